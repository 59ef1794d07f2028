// Command validation-goldens lets upstream's own code default, prepare, validate and print objects, and writes what it
// said as data for the tests of src/kinds. It also writes the facts that src/kinds keeps as data: table columns
// (columns.tsv) and the field order of upstream's internal types (internal.tsv).
//
//	cd hack/upstream && go run ./cmd/validation-goldens ../../src/kinds
//
// Cases are made by mutation: every value of a base manifest (testdata/bases/*.json) is replaced by values that are wrong
// in typical ways, one at a time; upstream's answer is recorded for each.
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"sort"
	"strings"

	"k8s.io/apimachinery/pkg/api/meta"
	"k8s.io/apimachinery/pkg/api/validate/content"
	genericvalidation "k8s.io/apimachinery/pkg/api/validation"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/util/validation/field"
	"k8s.io/apiserver/pkg/authentication/user"
	genericapirequest "k8s.io/apiserver/pkg/endpoints/request"
	"k8s.io/apiserver/pkg/registry/rest"
	"k8s.io/apiserver/pkg/warning"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/capabilities"
	"k8s.io/kubernetes/pkg/printers"
	printersinternal "k8s.io/kubernetes/pkg/printers/internalversion"
	printerstorage "k8s.io/kubernetes/pkg/printers/storage"
)

// One mutation and upstream's answer.
type testCase struct {
	Op     string        `json:"op"`
	Path   []interface{} `json:"path"`
	Value  interface{}   `json:"value,omitempty"`
	Delete bool          `json:"delete,omitempty"`
	Errors []string      `json:"errors"`
}

// A base manifest and all that upstream said of it.
type golden struct {
	Group    string          `json:"group"`
	Resource string          `json:"resource"`
	Version  string          `json:"version"`
	Base     json.RawMessage `json:"base"`
	Prepared json.RawMessage `json:"prepared"`
	Warnings []string        `json:"warnings"`
	Row      []interface{}   `json:"row"`
	RowState json.RawMessage `json:"rowConditions"`
	// What PUT may do without an object or a resourceVersion.
	CreateOnUpdate      bool       `json:"createOnUpdate"`
	UnconditionalUpdate bool       `json:"unconditionalUpdate"`
	Cases               []testCase `json:"cases"`
}

func main() {
	if len(os.Args) < 2 {
		fail(fmt.Errorf("usage: validation-goldens SRC_KINDS [NAME...]"))
	}
	out := os.Args[1]
	capabilities.Initialize(capabilities.Capabilities{AllowPrivileged: true})
	check(os.WriteFile(filepath.Join(out, "columns.tsv"), []byte(columns()), 0o644))
	check(os.WriteFile(filepath.Join(out, "internal.tsv"), []byte(internalTypes()), 0o644))
	bases, err := filepath.Glob(filepath.Join(out, "testdata/bases/*.json"))
	check(err)
	sort.Strings(bases)
	total := 0
	for _, base := range bases {
		name := strings.TrimSuffix(filepath.Base(base), ".json")
		if len(os.Args) > 2 && !contains(os.Args[2:], name) {
			continue
		}
		g, err := run(name, base)
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			continue
		}
		total += len(g.Cases)
		check(write(filepath.Join(out, "testdata/goldens", name+".json"), g))
		fmt.Printf("%-40s %5d cases\n", name, len(g.Cases))
	}
	fmt.Printf("%d cases\n", total)
}

func run(name, path string) (golden, error) {
	text, err := os.ReadFile(path)
	check(err)
	var base map[string]interface{}
	check(json.Unmarshal(text, &base))
	u := unstructured.Unstructured{Object: base}
	gvk := u.GroupVersionKind()
	currentGroupVersion = gvk.GroupVersion()
	entry, ok := strategies[gvk.GroupKind()]
	if !ok {
		return golden{}, fmt.Errorf("%s: no strategy for %s", name, gvk)
	}
	g := golden{Group: gvk.Group, Resource: entry.resource, Version: gvk.Version, Base: compact(text), Cases: []testCase{}}
	ctx, warnings := requestContext(u.GetNamespace())

	g.CreateOnUpdate = entry.update.AllowCreateOnUpdate()
	g.UnconditionalUpdate = entry.update.AllowUnconditionalUpdate()
	prepared, errs := create(ctx, entry, gvk, base)
	if len(errs) != 0 {
		return golden{}, fmt.Errorf("%s: the base itself is refused: %v", name, errs)
	}
	for _, w := range entry.create.WarningsOnCreate(ctx, prepared) {
		warnings.list = append(warnings.list, w)
	}
	g.Warnings = warnings.list
	entry.create.Canonicalize(prepared)
	versioned := toVersioned(prepared, gvk)
	g.Prepared = versioned
	g.Row, g.RowState = row(ctx, base, gvk)

	seen := map[string]bool{}
	add := func(c testCase) {
		key, _ := json.Marshal(c)
		if !seen[string(key)] {
			seen[string(key)] = true
			g.Cases = append(g.Cases, c)
		}
	}
	for _, m := range mutations(base) {
		object := m.apply(base)
		if _, errs, ok := tryCreate(entry, gvk, object, u.GetNamespace()); ok {
			add(testCase{"create", m.path, m.value, m.delete, errs})
		}
	}
	// Updates start from what was stored.
	var stored map[string]interface{}
	check(json.Unmarshal(versioned, &stored))
	storedMeta := stored["metadata"].(map[string]interface{})
	storedMeta["resourceVersion"] = "7"
	storedMeta["uid"] = "11111111-2222-3333-4444-555555555555"
	storedMeta["creationTimestamp"] = "2001-01-01T00:00:00Z"
	for i, m := range mutations(stored) {
		if entry.sparseUpdates && i%5 != 0 {
			continue
		}
		if errs, ok := tryUpdate(entry.update, gvk, m.apply(stored), stored, u.GetNamespace()); ok {
			add(testCase{"update", m.path, m.value, m.delete, errs})
		}
	}
	if entry.status != nil {
		if status, ok := base["status"]; ok {
			withStatus := deepCopy(stored).(map[string]interface{})
			withStatus["status"] = status
			for _, m := range mutations(withStatus) {
				if len(m.path) == 0 || m.path[0] != "status" {
					continue
				}
				if errs, ok := tryUpdate(entry.status, gvk, m.apply(withStatus), withStatus, u.GetNamespace()); ok {
					add(testCase{"status", m.path, m.value, m.delete, errs})
				}
			}
		}
	}
	return g, nil
}

func tryCreate(entry strategy, gvk schema.GroupVersionKind, object map[string]interface{}, ns string) (runtime.Object, []string, bool) {
	defer func() { _ = recover() }()
	ctx, _ := requestContext(ns)
	obj, err := decode(object, gvk)
	if err != nil {
		return nil, nil, false
	}
	prepared, errs := createDecoded(ctx, entry, obj)
	return prepared, texts(errs), true
}

func create(ctx context.Context, entry strategy, gvk schema.GroupVersionKind, object map[string]interface{}) (runtime.Object, field.ErrorList) {
	obj, err := decode(object, gvk)
	check(err)
	return createDecoded(ctx, entry, obj)
}

// As rest.BeforeCreate, without what it does to system fields.
func createDecoded(ctx context.Context, entry strategy, obj runtime.Object) (runtime.Object, field.ErrorList) {
	entry.create.PrepareForCreate(ctx, obj)
	errs := entry.create.Validate(ctx, obj)
	if len(errs) == 0 {
		accessor, err := meta.Accessor(obj)
		check(err)
		errs = genericvalidation.ValidateObjectMetaAccessor(accessor, entry.create.NamespaceScoped(), segmentName, field.NewPath("metadata"))
	}
	return obj, errs
}

// As rest.BeforeUpdate.
func tryUpdate(s rest.RESTUpdateStrategy, gvk schema.GroupVersionKind, object, old map[string]interface{}, ns string) (out []string, ok bool) {
	defer func() {
		if recover() != nil {
			ok = false
		}
	}()
	ctx, _ := requestContext(ns)
	obj, err := decode(object, gvk)
	if err != nil {
		return nil, false
	}
	oldObj, err := decode(old, gvk)
	check(err)
	newMeta, _ := meta.Accessor(obj)
	oldMeta, _ := meta.Accessor(oldObj)
	newMeta.SetGeneration(oldMeta.GetGeneration())
	s.PrepareForUpdate(ctx, obj, oldObj)
	if len(newMeta.GetUID()) == 0 {
		newMeta.SetUID(oldMeta.GetUID())
	}
	if created := oldMeta.GetCreationTimestamp(); !created.IsZero() {
		newMeta.SetCreationTimestamp(created)
	}
	path := field.NewPath("metadata")
	errs := genericvalidation.ValidateObjectMetaAccessor(newMeta, s.NamespaceScoped(), segmentName, path)
	errs = append(errs, genericvalidation.ValidateObjectMetaAccessorUpdate(newMeta, oldMeta, path)...)
	errs = append(errs, s.ValidateUpdate(ctx, obj, oldObj)...)
	return texts(errs), true
}

// As rest's own check of names: one segment of a URL.
func segmentName(name string, prefix bool) []string {
	if prefix {
		return content.IsPathSegmentPrefix(name)
	}
	return content.IsPathSegmentName(name)
}

func decode(object map[string]interface{}, gvk schema.GroupVersionKind) (runtime.Object, error) {
	text, err := json.Marshal(object)
	if err != nil {
		return nil, err
	}
	obj, _, err := legacyscheme.Codecs.UniversalDeserializer().Decode(text, &gvk, nil)
	if err != nil {
		return nil, err
	}
	legacyscheme.Scheme.Default(obj)
	// As the codec: what defaulting let two fields share, they go on sharing.
	internal, err := legacyscheme.Scheme.UnsafeConvertToVersion(obj, schema.GroupVersion{Group: gvk.Group, Version: runtime.APIVersionInternal})
	return internal, err
}

func toVersioned(obj runtime.Object, gvk schema.GroupVersionKind) json.RawMessage {
	versioned, err := legacyscheme.Scheme.ConvertToVersion(obj.DeepCopyObject(), gvk.GroupVersion())
	check(err)
	text, err := json.Marshal(versioned)
	check(err)
	return text
}

func row(ctx context.Context, base map[string]interface{}, gvk schema.GroupVersionKind) ([]interface{}, json.RawMessage) {
	obj, err := decode(base, gvk)
	check(err)
	generator := printerstorage.TableConvertor{TableGenerator: printers.NewTableGenerator().With(printersinternal.AddHandlers)}
	table, err := generator.ConvertToTable(ctx, obj, &metav1.TableOptions{})
	if err != nil || len(table.Rows) != 1 {
		return nil, nil
	}
	conditions, err := json.Marshal(table.Rows[0].Conditions)
	check(err)
	return table.Rows[0].Cells, conditions
}

type recorder struct{ list []string }

func (r *recorder) AddWarning(_, text string) { r.list = append(r.list, text) }

func requestContext(ns string) (context.Context, *recorder) {
	return requestContextOf(ns, currentGroupVersion)
}

// The group and version of the request: some strategies ask for it.
var currentGroupVersion schema.GroupVersion

func requestContextOf(ns string, gv schema.GroupVersion) (context.Context, *recorder) {
	r := &recorder{list: []string{}}
	ctx := genericapirequest.NewContext()
	ctx = genericapirequest.WithNamespace(ctx, ns)
	ctx = genericapirequest.WithUser(ctx, &user.DefaultInfo{Name: "admin", Groups: []string{"system:masters"}})
	ctx = genericapirequest.WithRequestInfo(ctx, &genericapirequest.RequestInfo{IsResourceRequest: true, APIGroup: gv.Group, APIVersion: gv.Version})
	return warning.WithWarningRecorder(ctx, r), r
}

func texts(errs field.ErrorList) []string {
	out := []string{}
	for _, e := range errs {
		out = append(out, e.Error())
	}
	return out
}

func write(path string, g golden) error {
	check(os.MkdirAll(filepath.Dir(path), 0o755))
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	defer f.Close()
	cases := g.Cases
	g.Cases = nil
	head, err := json.Marshal(g)
	if err != nil {
		return err
	}
	// One case a line, so that a renewed golden can be reviewed.
	fmt.Fprintf(f, "%s,\"cases\":[", strings.TrimSuffix(string(head), ",\"cases\":null}"))
	for i, c := range cases {
		text, err := json.Marshal(c)
		if err != nil {
			return err
		}
		if i > 0 {
			fmt.Fprint(f, ",")
		}
		fmt.Fprintf(f, "\n%s", text)
	}
	_, err = fmt.Fprint(f, "\n]}\n")
	return err
}

func compact(text []byte) json.RawMessage {
	var v interface{}
	check(json.Unmarshal(text, &v))
	out, err := json.Marshal(v)
	check(err)
	return out
}

func contains(list []string, s string) bool {
	for _, item := range list {
		if item == s {
			return true
		}
	}
	return false
}

func check(err error) {
	if err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, err)
	os.Exit(1)
}
