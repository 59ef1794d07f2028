package main

import (
	"fmt"
	"path"
	"reflect"
	"sort"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/kubernetes/pkg/apis/core"
	printersinternal "k8s.io/kubernetes/pkg/printers/internalversion"
)

// Records columns instead of printing.
type columnRecorder struct{ lines []string }

func (r *columnRecorder) TableHandler(columns []metav1.TableColumnDefinition, printFunc interface{}) error {
	ty := reflect.TypeOf(printFunc).In(0).Elem()
	if strings.HasSuffix(ty.Name(), "List") {
		return nil
	}
	for _, c := range columns {
		r.lines = append(r.lines, strings.Join([]string{
			typeName(ty), c.Name, c.Type, c.Format, fmt.Sprint(c.Priority), strings.ReplaceAll(c.Description, "\n", "\\n"),
		}, "\t"))
	}
	return nil
}

func columns() string {
	r := &columnRecorder{}
	printersinternal.AddHandlers(r)
	return strings.Join(r.lines, "\n") + "\n"
}

func typeName(t reflect.Type) string { return path.Base(t.PkgPath()) + "/" + t.Name() }

// The layout of the internal types that upstream prints in messages: a line a field,
// type, field of Go, name in JSON, what it holds. `core/PodSpec` prints as a Go struct, `meta` as on the wire.
func internalTypes() string {
	seen := map[reflect.Type]bool{}
	var lines []string
	var visit func(t reflect.Type)
	describe := func(t reflect.Type) string { return "" }
	describe = func(t reflect.Type) string {
		switch t.Kind() {
		case reflect.Ptr:
			return "*" + describe(t.Elem())
		case reflect.Slice:
			if t.Elem().Kind() == reflect.Uint8 {
				return "bytes"
			}
			return "[]" + describe(t.Elem())
		case reflect.Map:
			return "{}" + describe(t.Elem())
		case reflect.Struct:
			if strings.Contains(t.PkgPath(), "kubernetes/pkg/apis") {
				visit(t)
				return typeName(t)
			}
			// Has its own JSON: ObjectMeta, Time, Quantity, IntOrString, LabelSelector ...
			return "wire:" + t.Name()
		case reflect.String:
			return "string"
		case reflect.Bool:
			return "bool"
		default:
			return "number"
		}
	}
	visit = func(t reflect.Type) {
		if seen[t] {
			return
		}
		seen[t] = true
		for i := 0; i < t.NumField(); i++ {
			f := t.Field(i)
			if f.Anonymous {
				// Embedded structs print their fields in place, except those with a JSON name of their own.
				lines = append(lines, strings.Join([]string{typeName(t), "", "", describe(f.Type)}, "\t"))
				continue
			}
			lines = append(lines, strings.Join([]string{typeName(t), f.Name, jsonName(t, f.Name), describe(f.Type)}, "\t"))
		}
	}
	for _, root := range []interface{}{core.PodSpec{}, core.EphemeralContainer{}, core.PersistentVolumeClaimSpec{}, core.PersistentVolumeSpec{}, core.ServiceSpec{}, core.NodeSpec{}, core.PodStatus{}, core.LimitRangeItem{}, core.Taint{}} {
		visit(reflect.TypeOf(root))
	}
	for _, t := range extraInternal {
		visit(t)
	}
	sort.SliceStable(lines, func(i, j int) bool {
		return strings.SplitN(lines[i], "\t", 2)[0] < strings.SplitN(lines[j], "\t", 2)[0]
	})
	return strings.Join(lines, "\n") + "\n"
}

// The wire's name of a field of an internal struct: that of the field with the same Go name in the versioned struct.
func jsonName(t reflect.Type, field string) string {
	for _, v := range versionedTypes[t.Name()] {
		if f, ok := v.FieldByName(field); ok {
			if name := strings.Split(f.Tag.Get("json"), ",")[0]; name != "" {
				return name
			}
		}
	}
	return strings.ToLower(field[:1]) + field[1:]
}
