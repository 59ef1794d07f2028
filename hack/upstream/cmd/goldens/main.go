// Command goldens prints what upstream's own tests and programs say, for our tests to compare with.
//
//	go run ./cmd/goldens etcd-paths > ../../src/schema/testdata/etcd-paths.json
package main

import (
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"log"
	"os"
	"os/exec"
	"path/filepath"
	"sort"
	"strconv"
	"strings"
)

func main() {
	log.SetFlags(0)
	if len(os.Args) != 2 {
		log.Fatal("usage: goldens etcd-paths")
	}
	switch os.Args[1] {
	case "etcd-paths":
		etcdPaths()
	default:
		log.Fatalf("no golden %q", os.Args[1])
	}
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

// stored is where upstream's storage test expects one object of a resource, and as what.
type stored struct {
	Resource string `json:"resource"` // group/version/plural
	Path     string `json:"path"`
	Kind     string `json:"kind,omitempty"` // group/version/kind where it is not the resource's own
}

// etcdPaths reads the table of test/integration/etcd/data.go. The package itself needs modules that no server needs, so the
// table is read as source: every `gvr(...): {...}` entry of a composite literal.
func etcdPaths() {
	out, err := exec.Command("go", "list", "-m", "-f", "{{.Dir}}", "k8s.io/kubernetes").Output()
	must(err)
	path := filepath.Join(strings.TrimSpace(string(out)), "test/integration/etcd/data.go")
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	must(err)
	seen := map[string]stored{}
	ast.Inspect(file, func(node ast.Node) bool {
		pair, ok := node.(*ast.KeyValueExpr)
		if !ok {
			return true
		}
		key, ok := pair.Key.(*ast.CallExpr)
		if !ok || name(key.Fun) != "gvr" {
			return true
		}
		value, ok := pair.Value.(*ast.CompositeLit)
		if !ok {
			return true
		}
		row := stored{Resource: joined(key.Args)}
		for _, element := range value.Elts {
			member := element.(*ast.KeyValueExpr)
			switch name(member.Key) {
			case "ExpectedEtcdPath":
				row.Path = text(member.Value)
			case "ExpectedGVK":
				row.Kind = joined(member.Value.(*ast.CallExpr).Args)
			}
		}
		seen[row.Resource] = row
		return true
	})
	var rows []stored
	for _, row := range seen {
		rows = append(rows, row)
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i].Resource < rows[j].Resource })
	fmt.Println("[")
	for i, row := range rows {
		line, err := json.Marshal(row)
		must(err)
		comma := ","
		if i == len(rows)-1 {
			comma = ""
		}
		fmt.Printf("%s%s\n", line, comma)
	}
	fmt.Println("]")
}

func name(expr ast.Expr) string {
	if ident, ok := expr.(*ast.Ident); ok {
		return ident.Name
	}
	return ""
}

// text evaluates a string of literals and names joined by +; a name stands for itself, in braces.
func text(expr ast.Expr) string {
	switch expr := expr.(type) {
	case *ast.BasicLit:
		value, err := strconv.Unquote(expr.Value)
		must(err)
		return value
	case *ast.Ident:
		return "{" + expr.Name + "}"
	case *ast.BinaryExpr:
		return text(expr.X) + text(expr.Y)
	}
	log.Fatalf("unexpected %T in the table", expr)
	return ""
}

func joined(args []ast.Expr) string {
	var parts []string
	for _, arg := range args {
		parts = append(parts, text(arg))
	}
	return strings.Join(parts, "/")
}
