package main

import (
	"copepod.dev/hack/upstream/internal/roots"
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"reflect"
	"sort"
	"strconv"
	"strings"
)

// moduleCache maps upstream's module paths to their directories.
func moduleCache() map[string]string {
	paths := []string{
		"k8s.io/kubernetes", "k8s.io/api", "k8s.io/apimachinery", "k8s.io/apiserver",
		"k8s.io/apiextensions-apiserver", "k8s.io/kube-aggregator",
	}
	command := exec.Command("go", append([]string{"list", "-m", "-f", "{{.Path}} {{.Dir}}"}, paths...)...)
	command.Stderr = os.Stderr
	out, err := command.Output()
	must(err)
	dirs := map[string]string{}
	for _, line := range strings.Split(strings.TrimSpace(string(out)), "\n") {
		path, dir, _ := strings.Cut(line, " ")
		dirs[path] = dir
	}
	return dirs
}

// comments finds what only the source says: validation tags in comments, constants of named types.
type comments struct {
	modules  map[string]string
	packages map[string]*sourcePackage
}

type sourcePackage struct {
	types     map[string][]string            // type -> tags
	fields    map[string]map[string][]string // type -> field -> tags
	constants map[string][]string            // named string type -> values
}

func newComments(modules map[string]string) *comments {
	return &comments{modules: modules, packages: map[string]*sourcePackage{}}
}

func (c *comments) dir(pkgPath string) string {
	for module, dir := range c.modules {
		if rest, ok := strings.CutPrefix(pkgPath, module+"/"); ok {
			return filepath.Join(dir, rest)
		}
	}
	log.Fatalf("package %s is in no known module", pkgPath)
	return ""
}

func parseDir(dir string) map[string]*ast.File {
	entries, err := os.ReadDir(dir)
	must(err)
	files := map[string]*ast.File{}
	for _, entry := range entries {
		name := entry.Name()
		if !strings.HasSuffix(name, ".go") || strings.HasSuffix(name, "_test.go") {
			continue
		}
		path := filepath.Join(dir, name)
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ParseComments)
		must(err)
		files[path] = file
	}
	return files
}

func (c *comments) pkg(pkgPath string) *sourcePackage {
	if p, ok := c.packages[pkgPath]; ok {
		return p
	}
	p := &sourcePackage{map[string][]string{}, map[string]map[string][]string{}, map[string][]string{}}
	c.packages[pkgPath] = p
	for _, file := range parseDir(c.dir(pkgPath)) {
		for _, decl := range file.Decls {
			if decl, ok := decl.(*ast.GenDecl); ok {
				p.declaration(decl)
			}
		}
	}
	return p
}

func (p *sourcePackage) declaration(decl *ast.GenDecl) {
	for _, s := range decl.Specs {
		switch s := s.(type) {
		case *ast.TypeSpec:
			doc := s.Doc
			if doc == nil {
				doc = decl.Doc
			}
			p.types[s.Name.Name] = validationTags(doc)
			if st, ok := s.Type.(*ast.StructType); ok {
				p.fields[s.Name.Name] = map[string][]string{}
				for _, field := range st.Fields.List {
					for _, name := range field.Names {
						p.fields[s.Name.Name][name.Name] = validationTags(field.Doc)
					}
				}
			}
		case *ast.ValueSpec:
			if named, ok := s.Type.(*ast.Ident); ok && decl.Tok == token.CONST && len(s.Values) == 1 {
				if literal, ok := s.Values[0].(*ast.BasicLit); ok && literal.Kind == token.STRING {
					value, err := strconv.Unquote(literal.Value)
					must(err)
					p.constants[named.Name] = append(p.constants[named.Name], value)
				}
			}
		}
	}
}

// generatorTags drive code generators other than the validation one.
var generatorTags = []string{
	"+k8s:deepcopy-gen", "+k8s:prerelease-lifecycle-gen", "+k8s:conversion-gen", "+k8s:openapi-gen",
	"+k8s:protobuf-gen", "+k8s:defaulter-gen", "+k8s:validation-gen", "+k8s:openapi-model",
}

// validationTags returns the declarative validation tags of a comment.
func validationTags(doc *ast.CommentGroup) []string {
	if doc == nil {
		return nil
	}
	var tags []string
lines:
	for _, comment := range doc.List {
		line := strings.TrimSpace(strings.TrimPrefix(comment.Text, "//"))
		if !strings.HasPrefix(line, "+k8s:") {
			continue
		}
		for _, generator := range generatorTags {
			if strings.HasPrefix(line, generator) {
				continue lines
			}
		}
		tags = append(tags, strings.TrimPrefix(line, "+k8s:"))
	}
	return tags
}

func (c *comments) typ(t reflect.Type) []string { return c.pkg(t.PkgPath()).types[t.Name()] }

func (c *comments) field(owner reflect.Type, name string) []string {
	return c.pkg(owner.PkgPath()).fields[owner.Name()][name]
}

// conversionPackages are the folders whose hand-written defaulting and conversion functions matter to the default API.
func conversionPackages(modules map[string]string) []string {
	var dirs []string
	for _, gv := range roots.Served() {
		group, _, _ := strings.Cut(gv.Group, ".")
		switch gv.Group {
		case "":
			group = "core"
		case "rbac.authorization.k8s.io":
			group = "rbac"
		case "apiextensions.k8s.io", "apiregistration.k8s.io":
			continue
		}
		dirs = append(dirs, filepath.Join(modules["k8s.io/kubernetes"], "pkg/apis", group, gv.Version))
	}
	return append(dirs,
		filepath.Join(modules["k8s.io/kubernetes"], "pkg/apis/admissionregistration/v1beta1"),
		filepath.Join(modules["k8s.io/apiextensions-apiserver"], "pkg/apis/apiextensions/v1"),
		filepath.Join(modules["k8s.io/apiextensions-apiserver"], "pkg/apis/apiextensions/v1beta1"),
		filepath.Join(modules["k8s.io/kube-aggregator"], "pkg/apis/apiregistration/v1"),
		filepath.Join(modules["k8s.io/apimachinery"], "pkg/apis/meta/v1"),
		filepath.Join(modules["k8s.io/apimachinery"], "pkg/apis/meta/internalversion"),
	)
}

// writeConversions lists every hand-written SetDefaults_* and Convert_* function.
func writeConversions(path string, modules map[string]string) {
	var rows []object
	for _, dir := range conversionPackages(modules) {
		if _, err := os.Stat(dir); err != nil {
			log.Fatal(err)
		}
		for file, parsed := range parseDir(dir) {
			if strings.HasPrefix(filepath.Base(file), "zz_generated") {
				continue
			}
			for _, decl := range parsed.Decls {
				function, ok := decl.(*ast.FuncDecl)
				if !ok || function.Recv != nil {
					continue
				}
				name := function.Name.Name
				kind := ""
				switch {
				case strings.HasPrefix(name, "SetDefaults_"):
					kind = "defaults"
				case strings.HasPrefix(name, "Convert_"):
					kind = "conversion"
				case strings.HasPrefix(name, "AddFieldLabelConversionsFor") || name == "addConversionFuncs":
					kind = "fieldLabels"
				default:
					continue
				}
				rows = append(rows, object{{"name", name}, {"kind", kind}, {"file", relative(file, modules)}})
			}
		}
	}
	sort.Slice(rows, func(i, j int) bool {
		a, b := rows[i], rows[j]
		if a[2].value != b[2].value {
			return a[2].value.(string) < b[2].value.(string)
		}
		return a[0].value.(string) < b[0].value.(string)
	})
	writeLines(path, rows)
}

func relative(file string, modules map[string]string) string {
	for module, dir := range modules {
		if rest, err := filepath.Rel(dir, file); err == nil && !strings.HasPrefix(rest, "..") {
			return strings.TrimPrefix(module, "k8s.io/") + "/" + rest
		}
	}
	return file
}

// writeLines writes a JSON array, one element a line.
func writeLines[T any](path string, rows []T) {
	var out strings.Builder
	out.WriteString("[\n")
	for i, row := range rows {
		line, err := marshal(row)
		must(err)
		out.Write(line)
		if i < len(rows)-1 {
			out.WriteByte(',')
		}
		out.WriteByte('\n')
	}
	out.WriteString("]\n")
	must(os.WriteFile(path, []byte(out.String()), fs.FileMode(0o644)))
}
