// Command patch-goldens applies patches with upstream's libraries and writes what comes out.
//
//	cd hack/upstream && go run ./cmd/patch-goldens -dir ../../src/merge/testdata
//
// It reads cases.json, a list of {name, patch type, kind, document, patch}, and writes goldens.json: the same with "result" or
// "error". After the written cases come random ones: a document and a changed copy give a two-way merge patch, which is applied to
// a third, differently changed copy.
//
// It also reads apply_cases.json, scripts of applies and updates {name, kind, steps}, plays them through upstream's field manager and
// writes apply_goldens.json: each step with the live object after it (managedFields without times) or with the error.
package main

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"log"
	"math/rand"
	"os"
	"path/filepath"
	"sort"

	jsonpatch "gopkg.in/evanphx/json-patch.v4"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/strategicpatch"
)

type testCase struct {
	Name     string          `json:"name"`
	Type     string          `json:"type"`
	Kind     string          `json:"kind,omitempty"`
	Document json.RawMessage `json:"document"`
	Patch    json.RawMessage `json:"patch"`
	Result   json.RawMessage `json:"result,omitempty"`
	Error    string          `json:"error,omitempty"`
}

var kinds = map[string]any{
	"Pod":            &corev1.Pod{},
	"Service":        &corev1.Service{},
	"Node":           &corev1.Node{},
	"ConfigMap":      &corev1.ConfigMap{},
	"ServiceAccount": &corev1.ServiceAccount{},
	"Deployment":     &appsv1.Deployment{},
}

func main() {
	dir := flag.String("dir", "", "directory of cases.json")
	n := flag.Int("random", 60, "random cases")
	scripts := flag.Int("random-scripts", 0, "random scripts of applies and updates")
	flag.Parse()
	log.SetFlags(0)
	writeScripts(*dir, *scripts)
	var cases []testCase
	read(filepath.Join(*dir, "cases.json"), &cases)
	cases = append(cases, randomCases(*dir, *n)...)
	for i := range cases {
		cases[i].apply()
	}
	var out bytes.Buffer
	out.WriteString("[\n")
	for i, c := range cases {
		line, err := json.Marshal(c)
		if err != nil {
			log.Fatal(err)
		}
		if i > 0 {
			out.WriteString(",\n")
		}
		out.Write(line)
	}
	out.WriteString("\n]\n")
	if err := os.WriteFile(filepath.Join(*dir, "goldens.json"), out.Bytes(), 0o644); err != nil {
		log.Fatal(err)
	}
	fmt.Println(len(cases), "cases")
}

func read(path string, into any) {
	data, err := os.ReadFile(path)
	if err != nil {
		log.Fatal(err)
	}
	if err := json.Unmarshal(data, into); err != nil {
		log.Fatalf("%s: %v", path, err)
	}
}

// apply fills in result or error. A panic of the library is an error too.
func (c *testCase) apply() {
	defer func() {
		if r := recover(); r != nil {
			c.Result, c.Error = nil, fmt.Sprintf("panic: %v", r)
		}
	}()
	var result []byte
	var err error
	switch c.Type {
	case "strategic":
		result, err = strategicpatch.StrategicMergePatch(c.Document, c.Patch, kinds[c.Kind])
	case "merge":
		result, err = jsonpatch.MergePatch(c.Document, c.Patch)
	case "json":
		var patch jsonpatch.Patch
		if patch, err = jsonpatch.DecodePatch(c.Patch); err == nil {
			result, err = patch.Apply(c.Document)
		}
	default:
		log.Fatalf("%s: unknown type %q", c.Name, c.Type)
	}
	if err != nil {
		c.Error = err.Error()
		return
	}
	c.Result = result
}

// randomCases changes the documents of documents.json, a map from kind to document.
func randomCases(dir string, n int) []testCase {
	var documents map[string]map[string]any
	read(filepath.Join(dir, "documents.json"), &documents)
	var names []string
	for kind := range documents {
		names = append(names, kind)
	}
	sort.Strings(names)
	r := rand.New(rand.NewSource(1))
	var cases []testCase
	for len(cases) < n {
		kind := names[len(cases)%len(names)]
		document := encode(documents[kind])
		modified := encode(mutate(r, decode(document)))
		current := encode(mutate(r, decode(document)))
		patch, err := strategicpatch.CreateTwoWayMergePatch(document, modified, kinds[kind])
		if err != nil || string(patch) == "{}" {
			continue
		}
		cases = append(cases, testCase{
			Name: fmt.Sprintf("random %d", len(cases)), Type: "strategic", Kind: kind,
			Document: current, Patch: patch,
		})
	}
	return cases
}

func encode(value any) []byte {
	data, err := json.Marshal(value)
	if err != nil {
		log.Fatal(err)
	}
	return data
}

func decode(data []byte) map[string]any {
	var value map[string]any
	if err := json.Unmarshal(data, &value); err != nil {
		log.Fatal(err)
	}
	return value
}

// mutate removes and changes members and moves list items, never touching merge keys.
func mutate(r *rand.Rand, value map[string]any) map[string]any {
	keys := make([]string, 0, len(value))
	for key := range value {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	for _, key := range keys {
		switch key {
		case "name", "containerPort", "port", "mountPath", "ip", "type", "uid", "kind", "apiVersion", "key", "protocol":
			continue
		}
		switch typed := value[key].(type) {
		case map[string]any:
			if r.Intn(12) == 0 {
				delete(value, key)
				continue
			}
			mutate(r, typed)
		case []any:
			value[key] = mutateList(r, typed)
		case string:
			switch r.Intn(8) {
			case 0:
				delete(value, key)
			case 1:
				value[key] = fmt.Sprintf("changed-%d", r.Intn(10))
			}
		}
	}
	return value
}

func mutateList(r *rand.Rand, items []any) []any {
	var out []any
	for _, item := range items {
		if r.Intn(6) == 0 {
			continue
		}
		if typed, ok := item.(map[string]any); ok {
			item = mutate(r, typed)
		}
		out = append(out, item)
	}
	if len(items) > 0 && r.Intn(3) == 0 {
		if typed, ok := items[0].(map[string]any); ok {
			copied := decode(encode(typed))
			for _, key := range []string{"name", "mountPath", "key", "uid"} {
				if _, ok := copied[key].(string); ok {
					copied[key] = fmt.Sprintf("new-%d", r.Intn(3))
				}
			}
			for _, key := range []string{"containerPort", "port"} {
				if _, ok := copied[key].(float64); ok {
					copied[key] = 9000 + r.Intn(3)
				}
			}
			out = append(out, copied)
		}
	}
	if r.Intn(3) == 0 {
		r.Shuffle(len(out), func(i, j int) { out[i], out[j] = out[j], out[i] })
	}
	if out == nil {
		out = []any{}
	}
	return out
}
