package main

import (
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
)

// Media types and the one annotation of the OCI image specification that are used here.
const (
	typeIndex    = "application/vnd.oci.image.index.v1+json"
	typeManifest = "application/vnd.oci.image.manifest.v1+json"
	typeConfig   = "application/vnd.oci.image.config.v1+json"
	typeLayer    = "application/vnd.oci.image.layer.v1.tar+gzip"
	refName      = "org.opencontainers.image.ref.name"
	// standIn is a label. It also gives images of the same content different configurations, thus different ids: a node
	// would otherwise report either name for both, and tests of updates compare names.
	standIn = "dev.copepod.stand-in"
	epoch   = "1970-01-01T00:00:00Z"
	path0   = "PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
)

// Descriptor, Manifest, Index and Config are the specification's, as far as they are used here.
type Descriptor struct {
	MediaType   string            `json:"mediaType"`
	Digest      string            `json:"digest"`
	Size        int64             `json:"size"`
	Annotations map[string]string `json:"annotations,omitempty"`
	Platform    *Platform         `json:"platform,omitempty"`
}

type Platform struct {
	Architecture string `json:"architecture"`
	OS           string `json:"os"`
}

type Manifest struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Config        Descriptor   `json:"config"`
	Layers        []Descriptor `json:"layers"`
}

type Index struct {
	SchemaVersion int          `json:"schemaVersion"`
	MediaType     string       `json:"mediaType"`
	Manifests     []Descriptor `json:"manifests"`
}

type Config struct {
	Created string `json:"created"`
	Platform
	Config Declarations `json:"config"`
	Rootfs Rootfs       `json:"rootfs"`
}

type Rootfs struct {
	Type    string   `json:"type"`
	DiffIDs []string `json:"diff_ids"`
}

type Declarations struct {
	User         string              `json:"User,omitempty"`
	ExposedPorts map[string]struct{} `json:"ExposedPorts,omitempty"`
	Env          []string            `json:"Env,omitempty"`
	Entrypoint   []string            `json:"Entrypoint,omitempty"`
	Cmd          []string            `json:"Cmd,omitempty"`
	WorkingDir   string              `json:"WorkingDir,omitempty"`
	Labels       map[string]string   `json:"Labels,omitempty"`
	StopSignal   string              `json:"StopSignal,omitempty"`
}

// Inputs is the folder that the script `build` fills: programs/NAME, debs/FILE, and packages/ROW, which lists the files that
// a row's packages and its bases' need together.
type Inputs string

// Assembler makes images; each base and each layer once.
type Assembler struct {
	spec   *Spec
	inputs Inputs
	layout Layout
	built  map[*Row]*built
}

type built struct {
	tree    Tree
	layers  []Descriptor
	diffIDs []string
	image   Descriptor
}

func assemble(spec *Spec, inputs Inputs, layout Layout) error {
	if err := layout.init(); err != nil {
		return err
	}
	a := &Assembler{spec: spec, inputs: inputs, layout: layout, built: map[*Row]*built{}}
	if err := a.trees(); err != nil {
		return err
	}
	if err := a.layers(); err != nil {
		return err
	}
	index := Index{SchemaVersion: 2, MediaType: typeIndex}
	for _, row := range spec.Images {
		image, err := a.image(row)
		if err != nil {
			return fmt.Errorf("%s: %w", row.ref(), err)
		}
		index.Manifests = append(index.Manifests, image)
	}
	return layout.writeIndex(index)
}

// trees collects the files of all rows. The image of a fake registry is finished on the way: it is a file of another.
func (a *Assembler) trees() error {
	for _, row := range a.spec.rows() {
		tree, err := a.tree(row)
		if err != nil {
			return fmt.Errorf("%s: %w", row.ref(), err)
		}
		a.built[row] = &built{tree: tree}
	}
	return nil
}

func (a *Assembler) tree(row *Row) (Tree, error) {
	tree := Tree{}
	if row.Applets != nil {
		if err := tree.applets(a.inputs.program(row.Applets.Program), row.Applets.At); err != nil {
			return nil, err
		}
	}
	debs, err := a.inputs.debs(row)
	if err != nil {
		return nil, err
	}
	for _, deb := range debs {
		if err := tree.deb(deb); err != nil {
			return nil, err
		}
	}
	// What a base declares itself, packages above it do not replace: /etc/os-release, the mode of /tmp.
	for _, base := range row.base.chain() {
		for _, name := range base.declared() {
			delete(tree, clean(name))
		}
	}
	for _, d := range row.Directories {
		if err := tree.directory(d); err != nil {
			return nil, err
		}
	}
	for _, f := range row.Files {
		data, err := a.inputs.content(f)
		if err != nil {
			return nil, err
		}
		entry := tree.file(f.Path, f.Mode, data)
		if f.Capability != "" {
			entry.grant(f.Capability)
		}
	}
	for name, target := range row.Links {
		tree.link(name, target)
	}
	if row.Registry != nil {
		if err := a.fakeRegistry(tree, row.Registry); err != nil {
			return nil, err
		}
	}
	if row.usrmerged() {
		tree.merge(row.Usrmerge)
	}
	var below []Tree
	for _, base := range row.base.chain() {
		if base.Applets != nil {
			below = append(below, a.built[base].tree)
		}
	}
	tree.shadow(below)
	return tree, nil
}

// fakeRegistry adds an image as agnhost's fake-registry-server reads it: a tag's file holds the digest of a manifest list.
func (a *Assembler) fakeRegistry(tree Tree, r *FakeRegistry) error {
	var row *Row
	for _, image := range a.spec.Images {
		if image.ref() == r.Image {
			row = image
		}
	}
	if row == nil || a.built[row] == nil {
		return fmt.Errorf("no image %s above it", r.Image)
	}
	if err := a.layer(row); err != nil {
		return err
	}
	image, err := a.image(row)
	if err != nil {
		return err
	}
	name, tag, _ := strings.Cut(r.As, ":")
	put := func(kind, digest string, data []byte) {
		hex := strings.TrimPrefix(digest, "sha256:")
		tree.file(path.Join(r.At, name, kind, "sha256", hex[:2], hex, "data"), 0o644, data)
	}
	manifest, err := a.layout.manifest(image)
	if err != nil {
		return err
	}
	for _, d := range append(manifest.Layers, manifest.Config) {
		data, err := a.layout.blob(d)
		if err != nil {
			return err
		}
		put("blobs", d.Digest, data)
	}
	data, err := a.layout.blob(image)
	if err != nil {
		return err
	}
	put("manifests", image.Digest, data)
	image.Annotations, image.Platform = nil, &Platform{runtime.GOARCH, "linux"}
	list, err := json.Marshal(Index{SchemaVersion: 2, MediaType: typeIndex, Manifests: []Descriptor{image}})
	if err != nil {
		return err
	}
	digest := digestOf(list)
	put("manifests", digest, list)
	tree.file(path.Join(r.At, name, "manifests", tag), 0o644, []byte(digest+"\n"))
	return nil
}

// layers writes the layers of all rows, as many at a time as there are processors.
func (a *Assembler) layers() error {
	var (
		wait   sync.WaitGroup
		places = make(chan struct{}, runtime.NumCPU())
		faults = make(chan error, len(a.built))
	)
	for row := range a.built {
		wait.Go(func() {
			places <- struct{}{}
			defer func() { <-places }()
			if err := a.layer(row); err != nil {
				faults <- fmt.Errorf("%s: %w", row.ref(), err)
			}
		})
	}
	wait.Wait()
	close(faults)
	return <-faults
}

// layer writes the row's own layer. Its base's are another call's business.
func (a *Assembler) layer(row *Row) error {
	b := a.built[row]
	if len(b.tree) == 0 || b.layers != nil {
		return nil
	}
	plain := sha256.New()
	var packed bytes.Buffer
	compress, err := gzip.NewWriterLevel(&packed, 4)
	if err != nil {
		return err
	}
	if err := b.tree.write(io.MultiWriter(plain, compress)); err != nil {
		return err
	}
	if err := compress.Close(); err != nil {
		return err
	}
	layer, err := a.layout.put(typeLayer, packed.Bytes())
	if err != nil {
		return err
	}
	b.layers, b.diffIDs = []Descriptor{layer}, []string{fmt.Sprintf("sha256:%x", plain.Sum(nil))}
	return nil
}

// image writes the configuration and the manifest of a row whose layers and whose bases' layers are written.
func (a *Assembler) image(row *Row) (Descriptor, error) {
	manifest := Manifest{SchemaVersion: 2, MediaType: typeManifest}
	config := Config{
		Created:  epoch,
		Platform: Platform{runtime.GOARCH, "linux"},
		Config:   Declarations{Env: []string{path0}, Labels: map[string]string{standIn: row.ref()}},
		Rootfs:   Rootfs{Type: "layers"},
	}
	for _, r := range row.chain() {
		manifest.Layers = append(manifest.Layers, a.built[r].layers...)
		config.Rootfs.DiffIDs = append(config.Rootfs.DiffIDs, a.built[r].diffIDs...)
		config.Config.declare(r)
	}
	data, err := json.Marshal(config)
	if err != nil {
		return Descriptor{}, err
	}
	if manifest.Config, err = a.layout.put(typeConfig, data); err != nil {
		return Descriptor{}, err
	}
	if data, err = json.Marshal(manifest); err != nil {
		return Descriptor{}, err
	}
	image, err := a.layout.put(typeManifest, data)
	image.Annotations = map[string]string{refName: row.ref()}
	return image, err
}

// declare replaces what the row declares. As in a Dockerfile, a new entry point forgets the command of the base.
func (d *Declarations) declare(row *Row) {
	replace := func(to *string, with string) {
		if with != "" {
			*to = with
		}
	}
	replace(&d.User, row.User)
	replace(&d.WorkingDir, row.Workdir)
	replace(&d.StopSignal, row.Stopsignal)
	d.Env = append(d.Env, row.Env...)
	if row.Entrypoint != nil {
		d.Entrypoint, d.Cmd = row.Entrypoint, nil
	}
	if row.Cmd != nil {
		d.Cmd = row.Cmd
	}
	for _, port := range row.Ports {
		if d.ExposedPorts == nil {
			d.ExposedPorts = map[string]struct{}{}
		}
		d.ExposedPorts[port] = struct{}{}
	}
}

func (i Inputs) program(name string) string { return filepath.Join(string(i), "programs", name) }

// debs are the packages of the row's own layer: what it needs less what its base has.
func (i Inputs) debs(row *Row) ([]string, error) {
	if len(row.Packages) == 0 {
		return nil, nil
	}
	below := map[string]bool{}
	for base := row.base; base != nil; base = base.base {
		if len(base.Packages) == 0 {
			continue
		}
		names, err := i.packages(base)
		if err != nil {
			return nil, err
		}
		for _, name := range names {
			below[name] = true
		}
	}
	names, err := i.packages(row)
	if err != nil {
		return nil, err
	}
	var debs []string
	for _, name := range names {
		if !below[name] {
			debs = append(debs, filepath.Join(string(i), "debs", name))
		}
	}
	return debs, nil
}

func (i Inputs) packages(row *Row) ([]string, error) {
	data, err := os.ReadFile(filepath.Join(string(i), "packages", row.id()))
	return strings.Fields(string(data)), err
}

func (i Inputs) content(f File) ([]byte, error) {
	switch {
	case f.Program != "":
		return os.ReadFile(i.program(f.Program))
	case f.Module != "":
		folder, err := moduleFolder(f.Module)
		if err != nil {
			return nil, err
		}
		return os.ReadFile(filepath.Join(folder, f.Source))
	}
	return []byte(f.Text), nil
}

// moduleFolder is where Go keeps a module's source; the working folder is that of go.mod.
func moduleFolder(module string) (string, error) {
	out, err := exec.Command("go", "list", "-mod=readonly", "-m", "-f", "{{.Dir}}", module).Output()
	if err != nil {
		return "", fmt.Errorf("go list -m %s: %w", module, err)
	}
	return strings.TrimSpace(string(out)), nil
}

func digestOf(data []byte) string { return fmt.Sprintf("sha256:%x", sha256.Sum256(data)) }
