// Command facts writes api/: what upstream's own code knows of its types, resources, defaults and feature gates, as data.
//
// It reads Go types and tags by reflection, the generated OpenAPI definitions, the schemes that the servers install, the
// storage factory, the discovery documents and (for comments, which reflection cannot see) upstream's sources in the module
// cache. It runs upstream's defaulting on random objects to find the defaults that always apply.
//
//	cd hack/upstream && go run ./cmd/facts -out ../../api
package main

import (
	"copepod.dev/hack/upstream/internal/roots"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"strings"
)

const upstreamVersion = "v1.36.3"

func main() {
	out := flag.String("out", "../../api", "directory to write")
	probes := flag.Int("probes", 400, "random objects per kind when looking for defaults")
	flag.Parse()
	log.SetFlags(0)

	modules := moduleCache()
	kinds := roots.Collect()
	graph := newGraph(kinds)
	comments := newComments(modules)
	defaults := probeDefaults(kinds, *probes)

	typesDir := filepath.Join(*out, "types")
	must(os.MkdirAll(typesDir, 0o755))
	stale, err := filepath.Glob(filepath.Join(typesDir, "*.json"))
	must(err)
	for _, file := range stale {
		must(os.Remove(file))
	}
	graph.write(typesDir, comments, defaults)
	defaults.writeConditional(filepath.Join(*out, "defaults-conditional.json"))
	writeResources(filepath.Join(*out, "resources.json"), modules)
	graph.writeTexts(filepath.Join(*out, "texts.json"), modules)
	writeGates(filepath.Join(*out, "feature-gates.json"))
	writeConversions(filepath.Join(*out, "conversions.json"), modules)
	manifest := strings.Join([]string{
		"upstream: Kubernetes " + upstreamVersion + ", staging modules v0.36.3",
		"renew: cd hack/upstream && go run ./cmd/facts -out ../../api",
		fmt.Sprintf("types: %d structs, %d fields, %d kinds", graph.structs, graph.fields, graph.kinds),
		fmt.Sprintf("defaults: %d unconditional, %d conditional, from %d random objects a kind", defaults.always, defaults.sometimes, *probes),
		"",
	}, "\n")
	must(os.WriteFile(filepath.Join(*out, "MANIFEST"), []byte(manifest), 0o644))
	fmt.Print(manifest)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}
