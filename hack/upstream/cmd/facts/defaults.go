package main

import (
	"copepod.dev/hack/upstream/internal/roots"
	"encoding/json"
	"math/rand"
	"reflect"
	"sort"
	"strings"
	"time"

	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/util/intstr"
)

// defaults is what upstream's defaulting did to random objects, by field.
//
// A default is unconditional when the field, whenever it was absent in an object, got one and the same value, in every kind
// that contains it. All other defaults depend on something and are listed apart: they are code.
type defaults struct {
	seen    map[fieldKey]*observed
	enums   *comments
	random  *rand.Rand
	current string

	always, sometimes int
}

type fieldKey struct{ owner, field string }

// observed maps the JSON that an absent field got ("" for none) to the kinds in which it did.
type observed map[string]map[string]bool

func probeDefaults(kinds []roots.Root, probes int) *defaults {
	d := &defaults{seen: map[fieldKey]*observed{}, enums: newComments(moduleCache()), random: rand.New(rand.NewSource(1))}
	for _, r := range kinds {
		if r.Scheme == nil || strings.HasSuffix(r.GVK.Kind, "List") {
			continue
		}
		d.current = r.GVK.GroupVersion().String() + " " + r.GVK.Kind
		for i := range probes {
			fresh := reflect.New(r.Type)
			if i > 0 { // the first probe is the empty object
				d.fill(fresh.Elem(), "", 0)
			}
			before, ok := fresh.Interface().(runtime.Object)
			if !ok {
				continue
			}
			after := before.DeepCopyObject()
			if applyDefaults(r.Scheme, after) {
				d.compare(reflect.ValueOf(before).Elem(), reflect.ValueOf(after).Elem())
			}
		}
	}
	for _, o := range d.seen {
		if _, ok := o.unconditional(); ok {
			d.always++
		} else if len(*o) > 1 || (*o)[now] != nil {
			d.sometimes++
		}
	}
	return d
}

// applyDefaults reports whether upstream's functions survived the object; random ones can be too odd for them.
func applyDefaults(scheme *runtime.Scheme, object runtime.Object) (ok bool) {
	defer func() { ok = recover() == nil }()
	scheme.Default(object)
	return true
}

const depthMax = 14

func (d *defaults) chance(percent int) bool { return d.random.Intn(100) < percent }

// fill sets a value at random; what stays zero or nil counts as absent.
func (d *defaults) fill(v reflect.Value, name string, depth int) {
	switch v.Interface().(type) {
	case metav1.Time:
		if d.chance(50) {
			v.Set(reflect.ValueOf(metav1.NewTime(time.Unix(1700000000, 0))))
		}
		return
	case metav1.MicroTime:
		if d.chance(50) {
			v.Set(reflect.ValueOf(metav1.NewMicroTime(time.Unix(1700000000, 0))))
		}
		return
	case resource.Quantity:
		v.Set(reflect.ValueOf(resource.MustParse([]string{"0", "1", "100m", "1Gi", "1500m"}[d.random.Intn(5)])))
		return
	case intstr.IntOrString:
		v.Set(reflect.ValueOf([]intstr.IntOrString{{}, intstr.FromInt32(7), intstr.FromString("25%")}[d.random.Intn(3)]))
		return
	}
	if _, ok := special[typeKey(v.Type())]; ok || orSpecial[v.Type().Name()] {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		if depth < depthMax && d.chance(50) {
			v.Set(reflect.New(v.Type().Elem()))
			d.fill(v.Elem(), name, depth+1)
		}
	case reflect.Slice:
		if depth < depthMax && d.chance(55) {
			n := 1 + d.random.Intn(2)
			v.Set(reflect.MakeSlice(v.Type(), n, n))
			for i := range n {
				d.fill(v.Index(i), name, depth+1)
			}
		}
	case reflect.Map:
		if depth < depthMax && d.chance(50) {
			v.Set(reflect.MakeMap(v.Type()))
			element := reflect.New(v.Type().Elem()).Elem()
			d.fill(element, name, depth+1)
			key := []string{"cpu", "memory", "storage", "a"}[d.random.Intn(4)]
			v.SetMapIndex(reflect.ValueOf(key).Convert(v.Type().Key()), element)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if field := v.Type().Field(i); field.IsExported() {
				d.fill(v.Field(i), field.Name, depth+1)
			}
		}
	case reflect.String:
		v.SetString(d.text(v.Type(), name))
	case reflect.Bool:
		v.SetBool(d.chance(50))
	case reflect.Int, reflect.Int32, reflect.Int64:
		v.SetInt([]int64{0, 0, 1, 2, 5, 30, 8080}[d.random.Intn(7)])
	}
}

func (d *defaults) text(t reflect.Type, name string) string {
	if d.chance(40) {
		return ""
	}
	if t.PkgPath() != "" {
		if values := d.enums.pkg(t.PkgPath()).constants[t.Name()]; len(values) > 0 && d.chance(90) {
			return values[d.random.Intn(len(values))]
		}
	}
	if name == "Image" {
		return []string{"a", "a:latest", "a:v1", "a@sha256:b"}[d.random.Intn(4)]
	}
	return []string{"a", "b", "c.d"}[d.random.Intn(3)]
}

func absent(v reflect.Value) bool {
	switch v.Kind() {
	case reflect.Pointer, reflect.Slice, reflect.Map, reflect.Interface:
		return v.IsNil()
	}
	return v.IsZero()
}

// compare notes what happened to every field that was absent before.
func (d *defaults) compare(before, after reflect.Value) {
	t := before.Type()
	if _, ok := special[typeKey(t)]; ok && t.Name() != "" || orSpecial[t.Name()] {
		return
	}
	switch t.Kind() {
	case reflect.Pointer:
		if !before.IsNil() && !after.IsNil() {
			d.compare(before.Elem(), after.Elem())
		}
	case reflect.Slice:
		if before.Len() == after.Len() {
			for i := range before.Len() {
				d.compare(before.Index(i), after.Index(i))
			}
		}
	case reflect.Map:
		for _, key := range before.MapKeys() {
			if value := after.MapIndex(key); value.IsValid() {
				d.compare(before.MapIndex(key), value)
			}
		}
	case reflect.Struct:
		for i := range t.NumField() {
			field := t.Field(i)
			if !field.IsExported() || jsonName(field) == "-" {
				continue
			}
			plainStruct := field.Type.Kind() == reflect.Struct && special[typeKey(field.Type)] == ""
			if !plainStruct && absent(before.Field(i)) {
				d.note(t, field, after.Field(i))
			} else {
				d.compare(before.Field(i), after.Field(i))
			}
		}
	}
}

func (d *defaults) note(owner reflect.Type, field reflect.StructField, after reflect.Value) {
	text := ""
	if !absent(after) {
		value, err := marshal(after.Interface())
		must(err)
		text = string(value)
		if strings.HasSuffix(expr(field.Type), "Time") {
			text = now
		}
	}
	key := fieldKey{openAPIName(owner), field.Name}
	if d.seen[key] == nil {
		d.seen[key] = &observed{}
	}
	o := *d.seen[key]
	if o[text] == nil {
		o[text] = map[string]bool{}
	}
	o[text][d.current] = true
}

// now stands for the time at which defaulting ran.
const now = `"<now>"`

func (o *observed) unconditional() (string, bool) {
	if len(*o) != 1 || (*o)[now] != nil {
		return "", false
	}
	for value := range *o {
		return value, value != ""
	}
	return "", false
}

func (d *defaults) of(owner reflect.Type, field reflect.StructField) (json.RawMessage, bool) {
	o := d.seen[fieldKey{openAPIName(owner), field.Name}]
	if o == nil {
		return nil, false
	}
	value, ok := o.unconditional()
	return json.RawMessage(value), ok
}

// writeConditional lists the fields that defaulting fills sometimes, with samples of the values and of the kinds.
func (d *defaults) writeConditional(path string) {
	var rows []object
	for key, o := range d.seen {
		if len(*o) < 2 && (*o)[now] == nil {
			continue
		}
		var values []object
		for value, kinds := range *o {
			var names []string
			for kind := range kinds {
				names = append(names, kind)
			}
			sort.Strings(names)
			row := object{{"kinds", names}}
			if value == "" {
				row = append(object{{"absent", true}}, row...)
			} else {
				row = append(object{{"value", json.RawMessage(value)}}, row...)
			}
			values = append(values, row)
		}
		sort.Slice(values, func(i, j int) bool {
			a, _ := marshal(values[i])
			b, _ := marshal(values[j])
			return string(a) < string(b)
		})
		if len(values) > 6 {
			values = values[:6]
		}
		rows = append(rows, object{{"type", key.owner}, {"field", key.field}, {"got", values}})
	}
	sort.Slice(rows, func(i, j int) bool {
		a, b := rows[i], rows[j]
		return a[0].value.(string)+" "+a[1].value.(string) < b[0].value.(string)+" "+b[1].value.(string)
	})
	writeLines(path, rows)
}
