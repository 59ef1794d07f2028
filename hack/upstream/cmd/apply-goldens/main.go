// Command apply-goldens plays scripts of applies and updates through upstream's field manager and writes what comes out.
//
//	cd hack/upstream && go run ./cmd/apply-goldens -dir ../../src/merge/testdata
//
// It reads apply_cases.json, a list of {name, kind, steps}, and writes apply_goldens.json: each step with the live object after it
// (managedFields without times) or with the error.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"os"
	"path/filepath"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/managedfields"
	"k8s.io/client-go/applyconfigurations"
	"k8s.io/client-go/kubernetes/scheme"
)

type step struct {
	Op      string          `json:"op"`
	Manager string          `json:"manager"`
	Force   bool            `json:"force,omitempty"`
	Object  json.RawMessage `json:"object"`
	Live    json.RawMessage `json:"live,omitempty"`
	Error   string          `json:"error,omitempty"`
}

type script struct {
	Name  string `json:"name"`
	Kind  string `json:"kind"`
	Steps []step `json:"steps"`
}

func main() {
	dir := flag.String("dir", "", "directory of apply_cases.json")
	flag.Parse()
	log.SetFlags(0)
	data, err := os.ReadFile(filepath.Join(*dir, "apply_cases.json"))
	check(err)
	var scripts []script
	check(json.Unmarshal(data, &scripts))
	for i := range scripts {
		scripts[i].play()
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetIndent("", " ")
	check(encoder.Encode(scripts))
	check(os.WriteFile(filepath.Join(*dir, "apply_goldens.json"), out.Bytes(), 0o644))
	fmt.Println(len(scripts), "scripts")
}

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func (s *script) play() {
	gvk := schema.GroupVersionKind{Version: "v1", Kind: s.Kind}
	if s.Kind == "Deployment" {
		gvk.Group = "apps"
	}
	manager, err := managedfields.NewDefaultFieldManager(
		applyconfigurations.NewTypeConverter(scheme.Scheme), runtime.UnsafeObjectConvertor(scheme.Scheme),
		scheme.Scheme, scheme.Scheme, gvk, gvk.GroupVersion(), "", nil)
	check(err)
	live, err := scheme.Scheme.New(gvk)
	check(err)
	live.GetObjectKind().SetGroupVersionKind(gvk)
	for i := range s.Steps {
		step := &s.Steps[i]
		after, err := step.run(manager, live)
		if err != nil {
			step.Error = err.Error()
			continue
		}
		after.GetObjectKind().SetGroupVersionKind(gvk)
		live = after
		shown := live.DeepCopyObject()
		accessor, err := meta.Accessor(shown)
		check(err)
		entries := accessor.GetManagedFields()
		for j := range entries {
			entries[j].Time = nil
		}
		accessor.SetManagedFields(entries)
		step.Live, err = json.Marshal(shown)
		check(err)
	}
}

func (s *step) run(manager *managedfields.FieldManager, live runtime.Object) (runtime.Object, error) {
	config := &unstructured.Unstructured{}
	check(config.UnmarshalJSON(s.Object))
	if s.Op == "apply" {
		return manager.Apply(live.DeepCopyObject(), config, s.Manager, s.Force)
	}
	typed, _, err := scheme.Codecs.UniversalDeserializer().Decode(s.Object, nil, nil)
	check(err)
	return manager.UpdateNoErrors(live.DeepCopyObject(), typed, s.Manager), nil
}

