// Command corpus writes objects of every kind, filled by upstream's fuzzers and encoded by upstream's encoders.
//
//	cd hack/upstream && go run ./cmd/corpus -out ../../target/corpus -n 20
//
// One directory a kind, group_version_kind (core_v1_Pod); in it, for each object N:
//
//	N.json            JSON as the server writes it
//	N.yaml            YAML as the server writes it
//	N.pb              protobuf in its envelope, for kinds that have a protobuf form
//	N.defaulted.json  the same object after upstream's defaulting
//
// Objects are read back from protobuf first, so that all forms of one object say the same (protobuf knows no empty lists).
// Every other object has about half of its fields removed, so that defaulting has something to do.
package main

import (
	"bytes"
	"flag"
	"fmt"
	"log"
	"math/rand"
	"os"
	"path/filepath"
	"reflect"

	apiextensionsfuzzer "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/fuzzer"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	"k8s.io/apimachinery/pkg/api/apitesting/fuzzer"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/runtime/serializer/json"
	"k8s.io/apimachinery/pkg/runtime/serializer/protobuf"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	apitesting "k8s.io/kubernetes/pkg/api/testing"
	"sigs.k8s.io/randfill"

	"copepod.dev/hack/upstream/internal/roots"
)

func main() {
	out := flag.String("out", "", "directory to write")
	n := flag.Int("n", 20, "objects per kind")
	seed := flag.Int64("seed", 1, "seed of the fuzzers")
	flag.Parse()
	log.SetFlags(0)
	if *out == "" {
		log.Fatal("-out is required")
	}
	legacy := fuzzer.FuzzerFor(apitesting.FuzzerFuncs, rand.NewSource(*seed), legacyscheme.Codecs)
	extensions := fuzzer.FuzzerFor(
		fuzzer.MergeFuzzerFuncs(apitesting.FuzzerFuncs, apiextensionsfuzzer.Funcs),
		rand.NewSource(*seed), apiextensions.Codecs)
	prune := rand.New(rand.NewSource(*seed))
	kinds := 0
	for _, root := range roots.Collect() {
		if root.Scheme == nil {
			root.Scheme = runtime.NewScheme()
			root.Scheme.AddKnownTypeWithName(root.GVK, reflect.New(root.Type).Interface().(runtime.Object))
		}
		w := writer{root: root, fill: legacy, prune: prune}
		if root.Scheme == apiextensions.Scheme {
			w.fill = extensions
		}
		group := root.GVK.Group
		if group == "" {
			group = "core"
		}
		dir := filepath.Join(*out, fmt.Sprintf("%s_%s_%s", group, root.GVK.Version, root.GVK.Kind))
		must(os.MkdirAll(dir, 0o755))
		for i := range *n {
			w.write(dir, i)
		}
		kinds++
	}
	fmt.Printf("%d kinds, %d objects each\n", kinds, *n)
}

func must(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

type writer struct {
	root  roots.Root
	fill  *randfill.Filler
	prune *rand.Rand
}

// object makes one object of the external version: by way of the internal one, for which most fuzzers are written, if any.
func (w *writer) object() runtime.Object {
	scheme, gvk := w.root.Scheme, w.root.GVK
	internal := schema.GroupVersionKind{Group: gvk.Group, Version: runtime.APIVersionInternal, Kind: gvk.Kind}
	if hub, err := scheme.New(internal); err == nil {
		w.fill.Fill(hub)
		if external, err := scheme.ConvertToVersion(hub, gvk.GroupVersion()); err == nil {
			return external
		}
	}
	external := reflect.New(w.root.Type).Interface().(runtime.Object)
	w.fill.Fill(external)
	return external
}

func (w *writer) write(dir string, i int) {
	object := w.object()
	if i%2 == 1 {
		w.thin(reflect.ValueOf(object).Elem())
	}
	object.GetObjectKind().SetGroupVersionKind(w.root.GVK)
	scheme := w.root.Scheme
	binary := protobuf.NewSerializer(scheme, scheme)
	var encoded bytes.Buffer
	hasProtobuf := binary.Encode(object, &encoded) == nil
	if hasProtobuf {
		again := reflect.New(w.root.Type).Interface().(runtime.Object)
		_, _, err := binary.Decode(encoded.Bytes(), &w.root.GVK, again)
		must(err)
		object = again
		object.GetObjectKind().SetGroupVersionKind(w.root.GVK)
		w.encode(dir, i, "pb", binary, object)
	}
	text := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{})
	yaml := json.NewSerializerWithOptions(json.DefaultMetaFactory, scheme, scheme, json.SerializerOptions{Yaml: true})
	w.encode(dir, i, "json", text, object)
	w.encode(dir, i, "yaml", yaml, object)
	if w.defaulted(object) {
		w.encode(dir, i, "defaulted.json", text, object)
	}
}

// defaulted applies upstream's defaulting; an object that is too odd for it has no golden.
func (w *writer) defaulted(object runtime.Object) (ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	w.root.Scheme.Default(object)
	return true
}

func (w *writer) encode(dir string, i int, suffix string, encoder runtime.Encoder, object runtime.Object) {
	var buf bytes.Buffer
	if err := encoder.Encode(object, &buf); err != nil {
		log.Fatalf("%s %d %s: %v", dir, i, suffix, err)
	}
	must(os.WriteFile(filepath.Join(dir, fmt.Sprintf("%d.%s", i, suffix)), buf.Bytes(), 0o644))
}

// thin removes fields at random; structs with wire forms of their own stay whole or go whole.
func (w *writer) thin(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			w.thin(v.Elem())
		}
	case reflect.Slice:
		for i := range v.Len() {
			w.thin(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			field := v.Field(i)
			if !v.Type().Field(i).IsExported() || v.Type() == reflect.TypeOf(runtime.RawExtension{}) {
				continue
			}
			if _, marshals := reflect.PointerTo(v.Type()).MethodByName("UnmarshalJSON"); marshals {
				continue
			}
			if w.prune.Intn(2) == 0 && removable(field) {
				field.SetZero()
			} else {
				w.thin(field)
			}
		}
	}
}

// removable spares embedded structs and lists of kinds, of which little would be left.
func removable(field reflect.Value) bool { return field.Kind() != reflect.Struct }
