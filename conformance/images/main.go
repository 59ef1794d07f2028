// Command images makes stand-ins for the images of upstream's conformance suite, and puts them into a registry.
//
// Owns: the reading of images.yaml, layers, configurations and manifests, the distribution API. Does not: fetch or compile
// anything, start a registry; the scripts `build` and `serve` beside it do.
//
//	images programs SPEC                  what is to be built: a line "NAME go FOLDER PACKAGE LDFLAGS" or "NAME recipe FUNCTION"
//	images packages SPEC                  Debian packages, a line for each row that has some: "ROW NAME..."
//	images assemble SPEC INPUTS LAYOUT    writes the images into an OCI image layout
//	images push LAYOUT ADDRESS            pushes those that the registry at http://ADDRESS lacks
//	images verify LAYOUT ADDRESS          reads all of them back and compares every digest
package main

import (
	"errors"
	"fmt"
	"os"
	"strings"
)

var errUsage = errors.New("usage: images programs|packages SPEC, assemble SPEC INPUTS LAYOUT, push|verify LAYOUT ADDRESS")

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) < 2 {
		return errUsage
	}
	switch command, rest := args[0], args[1:]; {
	case command == "programs" && len(rest) == 1:
		return withSpec(rest[0], printPrograms)
	case command == "packages" && len(rest) == 1:
		return withSpec(rest[0], printPackages)
	case command == "assemble" && len(rest) == 3:
		return withSpec(rest[0], func(spec *Spec) error { return assemble(spec, Inputs(rest[1]), Layout(rest[2])) })
	case command == "push" && len(rest) == 2:
		return push(Layout(rest[0]), Registry("http://"+rest[1]))
	case command == "verify" && len(rest) == 2:
		return verify(Layout(rest[0]), Registry("http://"+rest[1]))
	}
	return errUsage
}

func withSpec(path string, use func(*Spec) error) error {
	spec, err := readSpec(path)
	if err != nil {
		return err
	}
	return use(spec)
}

func printPrograms(spec *Spec) error {
	for _, name := range spec.programNames() {
		p := spec.Programs[name]
		if p.Recipe != "" {
			fmt.Printf("%s recipe %s\n", name, p.Recipe)
			continue
		}
		fmt.Printf("%s go %s %s %s\n", name, p.Folder, p.Package, p.Ldflags)
	}
	return nil
}

func printPackages(spec *Spec) error {
	for _, row := range spec.rows() {
		if len(row.Packages) > 0 {
			fmt.Println(row.id(), strings.Join(spec.packagesOf(row), " "))
		}
	}
	return nil
}
