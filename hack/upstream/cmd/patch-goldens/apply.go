package main

import (
	"bytes"
	"encoding/json"
	"fmt"
	"log"
	"math/rand"
	"os"
	"path/filepath"
	"sort"

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

// writeScripts plays the scripts of apply_cases.json, and random ones, and writes apply_goldens.json.
func writeScripts(dir string, random int) {
	var scripts []script
	read(filepath.Join(dir, "apply_cases.json"), &scripts)
	scripts = append(scripts, randomScripts(dir, random)...)
	for i := range scripts {
		scripts[i].play()
	}
	var out bytes.Buffer
	encoder := json.NewEncoder(&out)
	encoder.SetIndent("", " ")
	check(encoder.Encode(scripts))
	check(os.WriteFile(filepath.Join(dir, "apply_goldens.json"), out.Bytes(), 0o644))
	fmt.Println(len(scripts), "scripts")
}

// randomScripts applies and updates changed copies of the documents of documents.json, by three managers.
func randomScripts(dir string, n int) []script {
	var documents map[string]map[string]any
	read(filepath.Join(dir, "documents.json"), &documents)
	var names []string
	for kind := range documents {
		names = append(names, kind)
	}
	sort.Strings(names)
	r := rand.New(rand.NewSource(1))
	var scripts []script
	for i := range n {
		s := script{Name: fmt.Sprintf("random %d", i), Kind: names[i%len(names)]}
		document := encode(documents[s.Kind])
		for range 8 {
			object := decode(document)
			for range r.Intn(3) {
				mutate(r, object)
			}
			op := "apply"
			if r.Intn(3) == 0 {
				op = "update"
			}
			s.Steps = append(s.Steps, step{
				Op: op, Manager: string(rune('a' + r.Intn(3))), Force: r.Intn(2) == 0, Object: encode(object),
			})
		}
		scripts = append(scripts, s)
	}
	return scripts
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

