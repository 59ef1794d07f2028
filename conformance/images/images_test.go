package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"go/ast"
	"go/parser"
	"go/token"
	"io"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	imageutils "k8s.io/kubernetes/test/utils/image"
)

func spec(t *testing.T) *Spec {
	t.Helper()
	spec, err := readSpec("images.yaml")
	if err != nil {
		t.Fatal(err)
	}
	return spec
}

// absent tells whether the list of what is not made has the image.
func (s *Spec) absent(ref string) bool {
	name := ref[:strings.LastIndex(ref, ":")]
	return slices.ContainsFunc(s.Absent, func(a Absent) bool {
		folder, all := strings.CutSuffix(a.Name, "*")
		return a.Name == name || a.Name == ref || all && strings.HasPrefix(ref, folder)
	})
}

func (s *Spec) made(ref string) bool {
	return slices.ContainsFunc(s.Images, func(r *Row) bool { return r.ref() == ref })
}

// Every image of upstream's list is made, with its tag, or stands among the absent ones with a reason.
func TestUpstreamsListIsCovered(t *testing.T) {
	spec, seen := spec(t), 0
	for _, config := range imageutils.GetOriginalImageConfigs() {
		ref := config.GetE2EImage()
		seen++
		if made, absent := spec.made(ref), spec.absent(ref); made == absent {
			t.Errorf("%s: made %v, absent %v", ref, made, absent)
		}
	}
	if seen < 28 {
		t.Errorf("upstream's list has %d images", seen)
	}
	for _, absent := range spec.Absent {
		if absent.Why == "" {
			t.Errorf("%s lacks its why", absent.Name)
		}
	}
}

// What no conformance test needs although a file of conformance tests names it: other tests of that file want it.
var neededByOthers = []string{"AgnhostPrivate", "InvalidRegistryImage"}

// Every image that a file with conformance tests, or the framework below them, names is made.
func TestConformanceTestsFindTheirImages(t *testing.T) {
	module, err := moduleFolder("k8s.io/kubernetes")
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile(filepath.Join(module, "test/conformance/testdata/conformance.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	found := regexp.MustCompile(`(?m)^\s*file: (.*)$`).FindAllStringSubmatch(string(list), -1)
	if len(found) != 446 {
		t.Errorf("upstream's list has %d conformance tests", len(found))
	}
	files := map[string]bool{}
	for _, match := range found {
		for _, file := range strings.Split(match[1], ", ") {
			files[filepath.Join(module, file)] = true
		}
	}
	for _, folder := range []string{"pod", "statefulset", "deployment", "daemonset", "job", "network", "service", "rc"} {
		sources, err := filepath.Glob(filepath.Join(module, "test/e2e/framework", folder, "*.go"))
		if err != nil {
			t.Fatal(err)
		}
		for _, source := range sources {
			files[source] = true
		}
	}
	ids := imageIDs(t, filepath.Join(module, "test/utils/image/manifest.go"))
	spec, named := spec(t), map[string]bool{}
	for file := range files {
		for _, name := range imagesNamedIn(t, file) {
			named[name] = true
			if slices.Contains(neededByOthers, name) {
				continue
			}
			id, known := ids[name]
			if config := imageutils.GetConfig(id); known && id != imageutils.None && !spec.made(config.GetE2EImage()) {
				t.Errorf("%s wants %s", file, config.GetE2EImage())
			}
		}
	}
	for _, want := range []string{"Agnhost", "BusyBox", "Etcd", "Nonewprivs", "GlibcDnsTesting"} {
		if !named[want] {
			t.Errorf("no file names %s: they are not read", want)
		}
	}
}

// imageIDs are the constants of upstream's type ImageID: iota, from None on.
func imageIDs(t *testing.T, file string) map[string]imageutils.ImageID {
	t.Helper()
	ids := map[string]imageutils.ImageID{}
	ast.Inspect(parse(t, file), func(n ast.Node) bool {
		block, ok := n.(*ast.GenDecl)
		if !ok || block.Tok != token.CONST {
			return true
		}
		for i, line := range block.Specs {
			ids[line.(*ast.ValueSpec).Names[0].Name] = imageutils.ImageID(i)
		}
		return false
	})
	if _, ok := ids["VolumeISCSIServer"]; !ok {
		t.Fatal("the constants are not read")
	}
	return ids
}

// imagesNamedIn are the X of imageutils.X.
func imagesNamedIn(t *testing.T, file string) []string {
	t.Helper()
	names := map[string]bool{}
	ast.Inspect(parse(t, file), func(n ast.Node) bool {
		if selector, ok := n.(*ast.SelectorExpr); ok {
			if of, ok := selector.X.(*ast.Ident); ok && (of.Name == "imageutils" || of.Name == "imageutil") {
				names[selector.Sel.Name] = true
			}
		}
		return true
	})
	return slices.Collect(maps.Keys(names))
}

func parse(t *testing.T, file string) *ast.File {
	t.Helper()
	parsed, err := parser.ParseFile(token.NewFileSet(), file, nil, parser.SkipObjectResolution)
	if err != nil {
		t.Fatal(err)
	}
	return parsed
}

func TestASpecThatCannotBeBuiltIsRefused(t *testing.T) {
	for _, c := range []struct{ name, text, want string }{
		{"an unknown member", "images: [{name: a/b, tag: '1', why: x, colour: red}]", "field colour not found"},
		{"a base that does not exist", "images: [{name: a/b, tag: '1', why: x, base: c}]", "no base c above it"},
		{"a base below", "bases: [{name: a, why: x, base: b}, {name: b, why: x}]", "a: no base b above it"},
		{"an image twice", "images: [{name: a/b, tag: '1', why: x}, {name: a/b, tag: '1', why: x}]", "stands twice"},
		{"no tag", "images: [{name: a/b, why: x}]", "has a registry and a tag"},
		{"no why", "bases: [{name: a}]", "lacks its why"},
		{"no content", "bases: [{name: a, why: x, files: [{path: /f}]}]", "wants one of text, program, module"},
		{"two contents", "bases: [{name: a, why: x, files: [{path: /f, text: a, module: b}]}]", "wants one of"},
		{"an unknown program", "bases: [{name: a, why: x, files: [{path: /f, program: p}]}]", "unknown program p"},
		{"an unknown capability", "bases: [{name: a, why: x, files: [{path: /f, text: a, capability: all}]}]", "capability all"},
	} {
		file := filepath.Join(t.TempDir(), "images.yaml")
		if err := os.WriteFile(file, []byte(c.text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := readSpec(file); err == nil || !strings.Contains(err.Error(), c.want) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

// render writes a layer and lists what a tar reader sees in it.
func render(t *testing.T, tree Tree) (bytesOfLayer []byte, entries map[string]*tar.Header) {
	t.Helper()
	var out bytes.Buffer
	if err := tree.write(&out); err != nil {
		t.Fatal(err)
	}
	entries = map[string]*tar.Header{}
	reader := tar.NewReader(bytes.NewReader(out.Bytes()))
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return out.Bytes(), entries
		}
		if err != nil {
			t.Fatal(err)
		}
		entries[header.Name] = header
	}
}

func TestALayerKeepsModesOwnersLinksAndCapabilities(t *testing.T) {
	make := func() Tree {
		tree := Tree{}
		tree.file("/usr/local/bin/nnp", 0o6755, []byte("program"))
		tree.file("/coredns", 0o755, []byte("program")).grant("net_bind_service")
		tree.link("/bin/nc", "nc.openbsd")
		tree["bin/a"] = &Entry{Header: tar.Header{Typeflag: tar.TypeLink, Linkname: "usr/local/bin/nnp"}}
		if err := tree.directory(Directory{Path: "/home/u", Mode: 0o2755, Owner: "1000:1001"}); err != nil {
			t.Fatal(err)
		}
		return tree
	}
	first, entries := render(t, make())
	if second, _ := render(t, make()); !bytes.Equal(first, second) {
		t.Error("the same files do not make the same bytes")
	}
	if h := entries["usr/local/bin/nnp"]; h == nil || h.Mode != 0o6755 || h.Uid != 0 || h.ModTime.Unix() != 0 {
		t.Errorf("nnp: %+v", h)
	}
	if h := entries["home/u/"]; h == nil || h.Mode != 0o2755 || h.Uid != 1000 || h.Gid != 1001 {
		t.Errorf("home: %+v", h)
	}
	if h := entries["usr/local/"]; h == nil || h.Mode != 0o755 || h.Typeflag != tar.TypeDir {
		t.Errorf("a folder that a file needs: %+v", h)
	}
	if h := entries["bin/a"]; h == nil || h.Typeflag != tar.TypeLink || h.Linkname != "usr/local/bin/nnp" {
		t.Errorf("hard link: %+v", h)
	}
	want := "\x01\x00\x00\x02\x00\x04\x00\x00" + strings.Repeat("\x00", 12)
	if got := entries["coredns"].PAXRecords["SCHILY.xattr.security.capability"]; got != want {
		t.Errorf("capability: %q", got)
	}
}

func TestAMergedSystemHasItsProgramsInUsr(t *testing.T) {
	tree := Tree{}
	tree.file("/bin/sh", 0o755, []byte("shell"))
	tree.file("/lib64/ld.so", 0o755, []byte("loader"))
	tree.merge(true)
	_, entries := render(t, tree)
	if entries["usr/bin/sh"] == nil || entries["usr/lib64/ld.so"] == nil {
		t.Errorf("%v", slices.Collect(maps.Keys(entries)))
	}
	for _, folder := range merged {
		if h := entries[folder]; h == nil || h.Linkname != "usr/"+folder {
			t.Errorf("/%s: %+v", folder, h)
		}
	}
}

func TestAPackagesCommandWinsOverBusybox(t *testing.T) {
	below, above := Tree{}, Tree{}
	for _, name := range []string{"/bin/nc", "/usr/bin/nc", "/usr/bin/wget"} {
		below.link(name, "/bin/busybox")
	}
	above.link("/bin/nc", "nc.openbsd")
	above.shadow([]Tree{below})
	if got := above["usr/bin/nc"]; got == nil || got.Header.Linkname != "/bin/nc" {
		t.Errorf("/usr/bin/nc: %+v", got)
	}
	if len(above) != 2 {
		t.Errorf("%v", slices.Collect(maps.Keys(above)))
	}
}

// As in a Dockerfile: one by one, and a new entry point forgets the command of the base.
func TestDeclarationsReplaceTheBases(t *testing.T) {
	var d Declarations
	d.declare(&Row{Cmd: []string{"sh"}, User: "1"})
	d.declare(&Row{Entrypoint: []string{"/agnhost"}})
	if d.Cmd != nil || d.User != "1" {
		t.Errorf("%+v", d)
	}
	d.declare(&Row{Cmd: []string{"test-webserver"}, Ports: []string{"80/tcp"}})
	if _, open := d.ExposedPorts["80/tcp"]; !open || d.Entrypoint[0] != "/agnhost" || d.Cmd[0] != "test-webserver" {
		t.Errorf("%+v", d)
	}
}
