package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strings"
	"time"
)

// Registry is the URL of a server of the distribution API.
type Registry string

// client: a request that takes longer than this on a loopback address is stuck.
var client = &http.Client{Timeout: time.Minute}

// split gives the repository and the tag by which a mirror is asked for an image: its reference without the registry's name.
func split(image Descriptor) (repository, tag string, err error) {
	ref := image.Annotations[refName]
	_, below, ok := strings.Cut(ref, "/")
	colon := strings.LastIndex(below, ":")
	if !ok || colon < 0 {
		return "", "", fmt.Errorf("the index names an image %q", ref)
	}
	return below[:colon], below[colon+1:], nil
}

// each calls use for every image of a layout.
func each(layout Layout, use func(image Descriptor, repository, tag string) error) error {
	index, err := layout.index()
	if err != nil {
		return err
	}
	var faults []error
	for _, image := range index.Manifests {
		repository, tag, err := split(image)
		if err == nil {
			err = use(image, repository, tag)
		}
		if err != nil {
			faults = append(faults, fmt.Errorf("%s: %w", image.Annotations[refName], err))
		}
	}
	return errors.Join(faults...)
}

// push puts every image of the layout into the registry whose tag does not stand there with the same digest. A layer that
// images share goes over the wire once.
func push(layout Layout, registry Registry) error {
	pushed := map[string]string{}
	return each(layout, func(image Descriptor, repository, tag string) error {
		there, err := registry.has(repository, "manifests", tag, image)
		if err != nil || there {
			return err
		}
		manifest, err := layout.manifest(image)
		if err != nil {
			return err
		}
		for _, d := range append(manifest.Layers, manifest.Config) {
			if err := registry.putBlob(layout, repository, d, pushed[d.Digest]); err != nil {
				return err
			}
			pushed[d.Digest] = repository
		}
		data, err := layout.blob(image)
		if err != nil {
			return err
		}
		header := http.Header{"Content-Type": {image.MediaType}}
		_, _, err = registry.do(http.MethodPut, repository+"/manifests/"+tag, header, data, http.StatusCreated)
		return err
	})
}

// has tells whether a blob or a manifest is there, with that digest.
func (r Registry) has(repository, kind, name string, want Descriptor) (bool, error) {
	header := http.Header{"Accept": {want.MediaType}}
	status, got, err := r.do(http.MethodHead, repository+"/"+kind+"/"+name, header, nil, http.StatusOK, http.StatusNotFound)
	return err == nil && status == http.StatusOK && got.header.Get("Docker-Content-Digest") == want.Digest, err
}

// putBlob uploads a blob, or takes it over from another repository that has it.
func (r Registry) putBlob(layout Layout, repository string, d Descriptor, other string) error {
	there, err := r.has(repository, "blobs", d.Digest, d)
	if err != nil || there {
		return err
	}
	uploads := repository + "/blobs/uploads/"
	if other != "" {
		uploads += "?" + url.Values{"mount": {d.Digest}, "from": {other}}.Encode()
	}
	status, started, err := r.do(http.MethodPost, uploads, nil, nil, http.StatusAccepted, http.StatusCreated)
	if err != nil || status == http.StatusCreated {
		return err
	}
	data, err := layout.blob(d)
	if err != nil {
		return err
	}
	location, err := url.Parse(started.header.Get("Location"))
	if err != nil {
		return fmt.Errorf("where to upload to: %w", err)
	}
	query := location.Query()
	query.Set("digest", d.Digest)
	location.RawQuery = query.Encode()
	header := http.Header{"Content-Type": {"application/octet-stream"}}
	_, _, err = r.do(http.MethodPut, location.String(), header, data, http.StatusCreated)
	return err
}

type answer struct {
	header http.Header
	body   []byte
}

// do asks for a path below /v2/ or for a URL, and fails on any other status than the wanted ones.
func (r Registry) do(method, to string, header http.Header, body []byte, want ...int) (int, answer, error) {
	base, err := url.Parse(string(r) + "/v2/")
	if err != nil {
		return 0, answer{}, err
	}
	target, err := base.Parse(to)
	if err != nil {
		return 0, answer{}, err
	}
	request, err := http.NewRequest(method, target.String(), bytes.NewReader(body))
	if err != nil {
		return 0, answer{}, err
	}
	for name, values := range header {
		request.Header[name] = values
	}
	response, err := client.Do(request)
	if err != nil {
		return 0, answer{}, err
	}
	defer response.Body.Close()
	data, err := io.ReadAll(response.Body)
	if err != nil {
		return 0, answer{}, fmt.Errorf("%s %s: %w", method, target, err)
	}
	for _, status := range want {
		if response.StatusCode == status {
			return status, answer{response.Header, data}, nil
		}
	}
	return 0, answer{}, fmt.Errorf("%s %s: %s: %s", method, target, response.Status, bytes.TrimSpace(data))
}

// verify reads every image back as a node does: the manifest by its tag, the configuration, the layers, whose unpacked
// digests must be those of the configuration. A layer that images share is read once; of the others it must be there.
func verify(layout Layout, registry Registry) error {
	read := map[string]string{}
	return each(layout, func(image Descriptor, repository, tag string) error {
		data, err := registry.get(repository+"/manifests/"+tag, image)
		if err != nil {
			return err
		}
		var manifest Manifest
		if err := json.Unmarshal(data, &manifest); err != nil {
			return err
		}
		var config Config
		if data, err = registry.get(repository+"/blobs/"+manifest.Config.Digest, manifest.Config); err != nil {
			return err
		}
		if err := json.Unmarshal(data, &config); err != nil {
			return err
		}
		if got := config.Config.Labels[standIn]; got != image.Annotations[refName] {
			return fmt.Errorf("it is labelled %q", got)
		}
		if len(manifest.Layers) != len(config.Rootfs.DiffIDs) {
			return fmt.Errorf("%d layers, %d diff_ids", len(manifest.Layers), len(config.Rootfs.DiffIDs))
		}
		for i, layer := range manifest.Layers {
			if diffID := read[layer.Digest]; diffID == config.Rootfs.DiffIDs[i] {
				if there, err := registry.has(repository, "blobs", layer.Digest, layer); err != nil {
					return err
				} else if !there {
					return fmt.Errorf("layer %d is not there", i)
				}
				continue
			}
			if data, err = registry.get(repository+"/blobs/"+layer.Digest, layer); err != nil {
				return err
			}
			if err := checkDiffID(data, config.Rootfs.DiffIDs[i]); err != nil {
				return fmt.Errorf("layer %d: %w", i, err)
			}
			read[layer.Digest] = config.Rootfs.DiffIDs[i]
		}
		return nil
	})
}

func (r Registry) get(from string, want Descriptor) ([]byte, error) {
	_, got, err := r.do(http.MethodGet, from, http.Header{"Accept": {want.MediaType}}, nil, http.StatusOK)
	if err != nil {
		return nil, err
	}
	if digest := digestOf(got.body); digest != want.Digest || int64(len(got.body)) != want.Size {
		return nil, fmt.Errorf("%s has digest %s and %d bytes, not %s and %d", from, digest, len(got.body), want.Digest, want.Size)
	}
	return got.body, nil
}

func checkDiffID(layer []byte, want string) error {
	unpacked, err := gzip.NewReader(bytes.NewReader(layer))
	if err != nil {
		return err
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, unpacked); err != nil {
		return err
	}
	if got := fmt.Sprintf("sha256:%x", sum.Sum(nil)); got != want {
		return fmt.Errorf("unpacked it has digest %s, not %s", got, want)
	}
	return nil
}
