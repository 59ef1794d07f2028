package main

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Layout is the folder of an OCI image layout. Its index names each image by the reference that a pod asks for.
type Layout string

func (l Layout) init() error {
	if err := os.MkdirAll(filepath.Join(string(l), "blobs", "sha256"), 0o755); err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(string(l), "oci-layout"), []byte(`{"imageLayoutVersion":"1.0.0"}`), 0o644)
}

func (l Layout) path(digest string) string {
	return filepath.Join(string(l), "blobs", "sha256", strings.TrimPrefix(digest, "sha256:"))
}

func (l Layout) put(mediaType string, data []byte) (Descriptor, error) {
	d := Descriptor{MediaType: mediaType, Digest: digestOf(data), Size: int64(len(data))}
	return d, os.WriteFile(l.path(d.Digest), data, 0o644)
}

// blob reads a blob and checks it.
func (l Layout) blob(d Descriptor) ([]byte, error) {
	data, err := os.ReadFile(l.path(d.Digest))
	if err != nil {
		return nil, err
	}
	if got := digestOf(data); got != d.Digest {
		return nil, fmt.Errorf("%s has digest %s", l.path(d.Digest), got)
	}
	return data, nil
}

func (l Layout) manifest(image Descriptor) (Manifest, error) {
	var manifest Manifest
	data, err := l.blob(image)
	if err != nil {
		return manifest, err
	}
	return manifest, json.Unmarshal(data, &manifest)
}

func (l Layout) writeIndex(index Index) error {
	data, err := json.MarshalIndent(index, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(filepath.Join(string(l), "index.json"), data, 0o644)
}

func (l Layout) index() (Index, error) {
	var index Index
	data, err := os.ReadFile(filepath.Join(string(l), "index.json"))
	if err != nil {
		return index, err
	}
	return index, json.Unmarshal(data, &index)
}
