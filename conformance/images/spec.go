package main

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
)

// Spec is images.yaml.
type Spec struct {
	Programs map[string]Program
	Bases    []*Row
	Images   []*Row
	Absent   []Absent
}

// Program is a Go program of a module of this repository, or what a function of the script `build` makes.
type Program struct {
	Folder, Package, Ldflags string
	Recipe                   string
}

// Absent is an image of upstream's list that is not made.
type Absent struct {
	// Name without a tag stands for every tag, name/* for everything below it.
	Name, Why string
}

// Row is one image, or a base of others. It adds one layer to its base's, or none when it adds no file, and its declarations
// replace the base's one by one, as a Dockerfile's do.
type Row struct {
	Name, Tag, Why string
	// Base is the name of a base, or NAME:TAG of an image above.
	Base string
	// Packages are unpacked first, with all that they depend on. Their scripts are not run.
	Packages []string
	// Usrmerge: /bin, /sbin, /lib and /lib64 are links into /usr, as on Debian; so in all images made from this one.
	Usrmerge bool
	// Applets: links for every applet of a busybox.
	Applets *Applets
	// Directories, Files and Links come after packages and applets, and replace theirs. A link is path: target.
	Directories []Directory
	Files       []File
	Links       map[string]string
	// Registry is a folder with an image, as agnhost's fake-registry-server reads it.
	Registry *FakeRegistry

	User, Workdir, Stopsignal string
	Env, Entrypoint, Cmd      []string
	Ports                     []string

	base *Row
}

// Applets: Program at At; its links where busybox itself would install them.
type Applets struct{ Program, At string }

// Directory has mode 755 and belongs to root unless it says otherwise.
type Directory struct {
	Path  string
	Mode  int64
	Owner string
}

// File has mode 644 and belongs to root unless it says otherwise. Its content is one of Text, Program, or Module with Source.
type File struct {
	Path                          string
	Mode                          int64
	Text, Program, Module, Source string
	// Capability, permitted and effective for whoever runs the file.
	Capability string
}

// FakeRegistry: the image Image of this spec lies at At under the name As.
type FakeRegistry struct{ At, Image, As string }

func readSpec(file string) (*Spec, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	spec := &Spec{}
	decoder := yaml.NewDecoder(bytes.NewReader(data))
	decoder.KnownFields(true)
	if err := decoder.Decode(spec); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	if err := spec.link(); err != nil {
		return nil, fmt.Errorf("%s: %w", file, err)
	}
	return spec, nil
}

// link finds the bases and checks what the types cannot.
func (s *Spec) link() error {
	known := map[string]*Row{}
	var faults []error
	for _, row := range s.rows() {
		fault := func(format string, args ...any) {
			faults = append(faults, fmt.Errorf("%s: %w", row.ref(), fmt.Errorf(format, args...)))
		}
		if known[row.ref()] != nil {
			fault("stands twice")
		}
		known[row.ref()] = row
		if row.Why == "" {
			fault("lacks its why")
		}
		if row.Base != "" {
			if row.base = known[row.Base]; row.base == nil {
				fault("no base %s above it", row.Base)
			}
		}
		for _, f := range row.Files {
			if err := s.checkFile(f); err != nil {
				fault("%s: %w", f.Path, err)
			}
		}
		if a := row.Applets; a != nil && s.Programs[a.Program] == (Program{}) {
			fault("unknown program %s", a.Program)
		}
	}
	for _, image := range s.Images {
		if image.Tag == "" || !strings.Contains(image.Name, "/") {
			faults = append(faults, fmt.Errorf("%s: an image has a registry and a tag", image.ref()))
		}
	}
	return errors.Join(faults...)
}

func (s *Spec) checkFile(f File) error {
	contents := 0
	for _, has := range []bool{f.Text != "", f.Program != "", f.Module != ""} {
		if has {
			contents++
		}
	}
	switch {
	case !path.IsAbs(f.Path):
		return errors.New("the path is not absolute")
	case contents != 1:
		return errors.New("wants one of text, program, module")
	case f.Program != "" && s.Programs[f.Program] == (Program{}):
		return fmt.Errorf("unknown program %s", f.Program)
	case f.Capability != "" && capabilities[f.Capability] == 0:
		return fmt.Errorf("unknown capability %s", f.Capability)
	}
	return nil
}

func (s *Spec) rows() []*Row { return slices.Concat(s.Bases, s.Images) }

func (s *Spec) programNames() []string { return slices.Sorted(maps.Keys(s.Programs)) }

// packagesOf are the packages of a row and of its bases: what is resolved together.
func (s *Spec) packagesOf(row *Row) []string {
	var all []string
	for ; row != nil; row = row.base {
		all = append(all, row.Packages...)
	}
	slices.Sort(all)
	return slices.Compact(all)
}

// ref is the name by which another row or a pod asks for this one.
func (r *Row) ref() string {
	if r.Tag == "" {
		return r.Name
	}
	return r.Name + ":" + r.Tag
}

// id is the ref as a file name.
func (r *Row) id() string { return strings.NewReplacer("/", "_", ":", "_").Replace(r.ref()) }

// chain is the row with its bases, the lowest first.
func (r *Row) chain() []*Row {
	if r == nil {
		return nil
	}
	return append(r.base.chain(), r)
}

// declared are the paths that the row gives one by one.
func (r *Row) declared() []string {
	names := slices.Collect(maps.Keys(r.Links))
	for _, d := range r.Directories {
		names = append(names, d.Path)
	}
	for _, f := range r.Files {
		names = append(names, f.Path)
	}
	return names
}

func (r *Row) usrmerged() bool {
	return slices.ContainsFunc(r.chain(), func(r *Row) bool { return r.Usrmerge })
}

// repository is the name below the registry's: a mirror is asked for it whatever the registry is called.
func (r *Row) repository() string { return r.Name[strings.Index(r.Name, "/")+1:] }
