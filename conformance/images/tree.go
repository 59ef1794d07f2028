package main

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"maps"
	"os"
	"os/exec"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"
)

// Tree is the content of one layer: paths without a leading slash. Same tree, same bytes: entries are written in the order
// of their names and have no times; hard links come last, after what they link to.
type Tree map[string]*Entry

// Entry is one file. Its header's name and time are set when it is written.
type Entry struct {
	Header tar.Header
	Data   []byte
}

// left out of packages: nobody reads them in a test, and they are a third of the bytes
var leftOut = []string{
	"usr/share/doc/", "usr/share/man/", "usr/share/info/", "usr/share/locale/", "usr/share/lintian/", "usr/share/bug/",
	"usr/share/bash-completion/", "usr/lib/x86_64-linux-gnu/gconv/", "usr/lib/aarch64-linux-gnu/gconv/",
}

// folders that are links into /usr on a merged system
var merged = []string{"bin", "sbin", "lib", "lib64"}

// capabilities that a file may have; the numbers are the kernel's
var capabilities = map[string]uint{"net_bind_service": 10}

func clean(name string) string { return strings.TrimPrefix(path.Clean("/"+name), "/") }

func (t Tree) directory(d Directory) error {
	mode := d.Mode
	if mode == 0 {
		mode = 0o755
	}
	header := tar.Header{Typeflag: tar.TypeDir, Mode: mode}
	if d.Owner != "" {
		uid, gid, ok := strings.Cut(d.Owner, ":")
		var uidErr, gidErr error
		header.Uid, uidErr = strconv.Atoi(uid)
		header.Gid, gidErr = strconv.Atoi(gid)
		if err := errors.Join(uidErr, gidErr); err != nil || !ok {
			return fmt.Errorf("%s: owner %q is not UID:GID", d.Path, d.Owner)
		}
	}
	t[clean(d.Path)] = &Entry{Header: header}
	return nil
}

func (t Tree) file(name string, mode int64, data []byte) *Entry {
	if mode == 0 {
		mode = 0o644
	}
	entry := &Entry{Header: tar.Header{Typeflag: tar.TypeReg, Mode: mode}, Data: data}
	t[clean(name)] = entry
	return entry
}

func (t Tree) link(name, target string) {
	t[clean(name)] = &Entry{Header: tar.Header{Typeflag: tar.TypeSymlink, Mode: 0o777, Linkname: target}}
}

// grant gives a file a capability, in the form of the kernel's struct vfs_cap_data, revision 2.
func (e *Entry) grant(capability string) {
	const revision2Effective = 0x02000001
	value := make([]byte, 20)
	for i, word := range []uint32{revision2Effective, 1 << capabilities[capability], 0, 0, 0} {
		for b := range 4 {
			value[4*i+b] = byte(word >> (8 * b))
		}
	}
	e.Header.PAXRecords = map[string]string{"SCHILY.xattr.security.capability": string(value)}
}

// folders of commands
var commands = []string{"bin", "sbin", "usr/bin", "usr/sbin"}

// applets adds a busybox and its links: in /bin as the published busybox has them, and where Alpine has them.
func (t Tree) applets(program, at string) error {
	data, err := os.ReadFile(program)
	if err != nil {
		return err
	}
	list, err := exec.Command(program, "--list-full").Output()
	if err != nil {
		return fmt.Errorf("%s --list-full: %w", program, err)
	}
	for _, name := range strings.Fields(string(list)) {
		t.link(name, at)
		t.link("bin/"+path.Base(name), at)
	}
	t.file(at, 0o755, data)
	return nil
}

// shadow lets this layer's commands win over links to a busybox of the layers below, whichever folder PATH names first.
func (t Tree) shadow(below []Tree) {
	for _, name := range slices.Sorted(maps.Keys(t)) {
		folder, command := path.Split(name)
		if !slices.Contains(commands, path.Clean(folder)) {
			continue
		}
		for _, other := range commands {
			other = path.Join(other, command)
			hidden := t[other] == nil && slices.ContainsFunc(below, func(b Tree) bool { return b[other] != nil })
			if hidden {
				t.link(other, "/"+name)
			}
		}
	}
}

// deb adds the content of a Debian package, with the owners and modes that it declares.
func (t Tree) deb(file string) error {
	command := exec.Command("dpkg-deb", "--fsys-tarfile", file)
	stream, err := command.Output()
	if err != nil {
		return fmt.Errorf("dpkg-deb --fsys-tarfile %s: %w", file, err)
	}
	reader := tar.NewReader(bytes.NewReader(stream))
	for {
		header, err := reader.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		name := clean(header.Name)
		if name == "" || slices.ContainsFunc(leftOut, func(p string) bool { return strings.HasPrefix(name+"/", p) }) {
			continue
		}
		data, err := io.ReadAll(reader)
		if err != nil {
			return fmt.Errorf("%s: %w", file, err)
		}
		entry := &Entry{Data: data, Header: tar.Header{
			Typeflag: header.Typeflag, Mode: header.Mode & 0o7777, Uid: header.Uid, Gid: header.Gid, Linkname: header.Linkname,
		}}
		if header.Typeflag == tar.TypeLink {
			entry.Header.Linkname = clean(header.Linkname)
		}
		// A folder that is there already keeps what it is: packages ship the folders of others.
		if old := t[name]; old == nil || header.Typeflag != tar.TypeDir {
			t[name] = entry
		}
	}
}

// merge moves everything below /bin, /sbin, /lib and /lib64 into /usr. With links, it also puts links in their places.
func (t Tree) merge(links bool) {
	for _, name := range slices.Sorted(maps.Keys(t)) {
		entry := t[name]
		if entry.Header.Typeflag == tar.TypeLink {
			entry.Header.Linkname = underUsr(entry.Header.Linkname)
		}
		if to := underUsr(name); to != name {
			delete(t, name)
			if t[to] == nil || entry.Header.Typeflag != tar.TypeDir {
				t[to] = entry
			}
		}
	}
	if links {
		for _, folder := range merged {
			t.link(folder, "usr/"+folder)
		}
	}
}

func underUsr(name string) string {
	first, _, _ := strings.Cut(name, "/")
	if slices.Contains(merged, first) {
		return "usr/" + name
	}
	return name
}

// write writes the layer as a tar stream, with every folder that a file needs.
func (t Tree) write(out io.Writer) error {
	all := maps.Clone(t)
	for name := range t {
		for folder := path.Dir(name); folder != "." && all[folder] == nil; folder = path.Dir(folder) {
			all[folder] = &Entry{Header: tar.Header{Typeflag: tar.TypeDir, Mode: 0o755}}
		}
	}
	var hardLinks []string
	writer := tar.NewWriter(out)
	for _, name := range slices.Sorted(maps.Keys(all)) {
		if all[name].Header.Typeflag == tar.TypeLink {
			hardLinks = append(hardLinks, name)
			continue
		}
		if err := all[name].write(writer, name); err != nil {
			return err
		}
	}
	for _, name := range hardLinks {
		if target := all[name].Header.Linkname; all[target] == nil {
			return fmt.Errorf("%s is a hard link to %s, which is not in its layer", name, target)
		}
		if err := all[name].write(writer, name); err != nil {
			return err
		}
	}
	return writer.Close()
}

func (e *Entry) write(out *tar.Writer, name string) error {
	header := e.Header
	header.Name, header.Size, header.ModTime = name, int64(len(e.Data)), time.Unix(0, 0)
	if header.Typeflag == tar.TypeDir {
		header.Name += "/"
	}
	if err := out.WriteHeader(&header); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	if _, err := out.Write(e.Data); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
