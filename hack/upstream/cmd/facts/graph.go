package main

import (
	"bytes"
	"copepod.dev/hack/upstream/internal/roots"
	"encoding/json"
	"fmt"
	"log"
	"os"
	"path/filepath"
	"reflect"
	"sort"
	"strings"

	"k8s.io/kube-openapi/pkg/common"
	"k8s.io/kube-openapi/pkg/util"
	"k8s.io/kube-openapi/pkg/validation/spec"
	generated "k8s.io/kubernetes/pkg/generated/openapi"
)

// special names the types whose wire forms are hand-written, and how the facts spell them.
var special = map[string]string{
	"k8s.io/apimachinery/pkg/apis/meta/v1.Time":                          "Time",
	"k8s.io/apimachinery/pkg/apis/meta/v1.MicroTime":                     "MicroTime",
	"k8s.io/apimachinery/pkg/apis/meta/v1.Duration":                      "Duration",
	"k8s.io/apimachinery/pkg/api/resource.Quantity":                      "Quantity",
	"k8s.io/apimachinery/pkg/util/intstr.IntOrString":                    "IntOrString",
	"k8s.io/apimachinery/pkg/apis/meta/v1.FieldsV1":                      "FieldsV1",
	"k8s.io/apimachinery/pkg/runtime.RawExtension":                       "RawExtension",
	"k8s.io/apimachinery/pkg/runtime.Unknown":                            "Unknown",
	"k8s.io/apimachinery/pkg/runtime.Object":                             "Object",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1.JSON":      "JSON",
	"k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1.JSON": "JSON",
}

// orSpecial are special types over the JSONSchemaProps of their own package.
var orSpecial = map[string]bool{"JSONSchemaPropsOrBool": true, "JSONSchemaPropsOrArray": true, "JSONSchemaPropsOrStringArray": true}

// graph holds every struct and message list reachable from the roots.
type graph struct {
	types   map[string]reflect.Type
	gvks    map[string][]string
	openapi map[string]common.OpenAPIDefinition

	structs, fields, kinds int
}

func typeKey(t reflect.Type) string { return t.PkgPath() + "." + t.Name() }

// openAPIName is the name under which upstream publishes a type: io.k8s.api.core.v1.Pod.
func openAPIName(t reflect.Type) string {
	if named, ok := reflect.Zero(t).Interface().(interface{ OpenAPIModelName() string }); ok {
		return named.OpenAPIModelName()
	}
	return util.ToRESTFriendlyName(typeKey(t))
}

func newGraph(kinds []roots.Root) *graph {
	g := &graph{types: map[string]reflect.Type{}, gvks: map[string][]string{}}
	g.openapi = generated.GetOpenAPIDefinitions(func(name string) spec.Ref { return spec.MustCreateRef(name) })
	for _, r := range kinds {
		g.visit(r.Type)
		name := openAPIName(r.Type)
		g.gvks[name] = append(g.gvks[name], r.GVK.Group+"/"+r.GVK.Version+"/"+r.GVK.Kind)
		g.kinds++
	}
	return g
}

// messageList tells named slices that are protobuf messages of their own.
func messageList(t reflect.Type) bool {
	_, ok := reflect.PointerTo(t).MethodByName("MarshalToSizedBuffer")
	return t.Kind() == reflect.Slice && ok
}

func isMessage(t reflect.Type) bool {
	_, ok := reflect.PointerTo(t).MethodByName("MarshalToSizedBuffer")
	return ok
}

func (g *graph) visit(t reflect.Type) {
	if _, ok := special[typeKey(t)]; ok && t.Name() != "" {
		return
	}
	switch t.Kind() {
	case reflect.Pointer, reflect.Map:
		g.visit(t.Elem())
	case reflect.Slice:
		if messageList(t) {
			g.types[openAPIName(t)] = t
		}
		g.visit(t.Elem())
	case reflect.Struct:
		name := openAPIName(t)
		if _, seen := g.types[name]; seen {
			return
		}
		if orSpecial[t.Name()] {
			return
		}
		g.types[name] = t
		for i := range t.NumField() {
			if field := t.Field(i); field.IsExported() && jsonName(field) != "-" {
				g.visit(field.Type)
			}
		}
	}
}

func jsonName(field reflect.StructField) string {
	name, _, _ := strings.Cut(field.Tag.Get("json"), ",")
	return name
}

func jsonOption(field reflect.StructField, option string) bool {
	_, options, _ := strings.Cut(field.Tag.Get("json"), ",")
	for _, o := range strings.Split(options, ",") {
		if o == option {
			return true
		}
	}
	return false
}

// inlined fields are written as members of the struct that holds them.
func inlined(field reflect.StructField) bool {
	return jsonName(field) == "" && (field.Anonymous || jsonOption(field, "inline"))
}

// expr spells a type: *int32, []io.k8s.api.core.v1.Container, map[string]string, Time.
func expr(t reflect.Type) string {
	if name, ok := special[typeKey(t)]; ok && t.Name() != "" {
		return name
	}
	switch t.Kind() {
	case reflect.Pointer:
		return "*" + expr(t.Elem())
	case reflect.Slice:
		if messageList(t) {
			return openAPIName(t)
		}
		if t.Elem().Kind() == reflect.Uint8 {
			return "bytes"
		}
		return "[]" + expr(t.Elem())
	case reflect.Map:
		if t.Key().Kind() != reflect.String {
			log.Fatalf("map key of %s", t)
		}
		return "map[string]" + expr(t.Elem())
	case reflect.Struct:
		if orSpecial[t.Name()] {
			props := strings.TrimSuffix(openAPIName(t), t.Name()) + "JSONSchemaProps"
			return t.Name() + "(" + props + ")"
		}
		return openAPIName(t)
	case reflect.String:
		return "string"
	case reflect.Bool:
		return "bool"
	case reflect.Int32, reflect.Int16, reflect.Int8:
		return "int32"
	case reflect.Int64, reflect.Int:
		return "int64"
	case reflect.Uint8, reflect.Uint16, reflect.Uint32:
		return "uint32"
	case reflect.Uint64:
		return "uint64"
	case reflect.Float64:
		return "float64"
	case reflect.Interface:
		return "any"
	}
	log.Fatalf("type %s is not modelled", t)
	return ""
}

// member is one key of a JSON object whose order is ours.
type member struct {
	key   string
	value any
}

type object []member

func (o *object) put(key string, value any) { *o = append(*o, member{key, value}) }

func (o object) MarshalJSON() ([]byte, error) {
	var buf bytes.Buffer
	buf.WriteByte('{')
	for i, m := range o {
		if i > 0 {
			buf.WriteByte(',')
		}
		fmt.Fprintf(&buf, "%q:", m.key)
		value, err := marshal(m.value)
		if err != nil {
			return nil, err
		}
		buf.Write(value)
	}
	buf.WriteByte('}')
	return buf.Bytes(), nil
}

func marshal(value any) ([]byte, error) {
	var buf bytes.Buffer
	encoder := json.NewEncoder(&buf)
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(value); err != nil {
		return nil, err
	}
	return bytes.TrimRight(buf.Bytes(), "\n"), nil
}

// protoTag keeps wire form, number and packing: varint,3.
func protoTag(field reflect.StructField) string {
	parts := strings.Split(field.Tag.Get("protobuf"), ",")
	if len(parts) < 2 {
		return ""
	}
	tag := parts[0] + "," + parts[1]
	for _, part := range parts[2:] {
		if part == "packed" {
			tag += ",packed"
		}
	}
	return tag
}

func (g *graph) field(owner reflect.Type, field reflect.StructField, defaults *defaults, comments *comments) object {
	var o object
	def := g.openapi[openAPIName(owner)]
	if inlined(field) {
		o.put("inline", true)
	} else {
		o.put("json", jsonName(field))
	}
	o.put("go", field.Name)
	o.put("type", expr(field.Type))
	if text := named(field.Type); text != "" && !inlined(field) {
		o.put("named", text)
	}
	switch {
	case jsonOption(field, "omitzero"):
		o.put("omit", "zero")
	case jsonOption(field, "omitempty"):
		o.put("omit", "empty")
	}
	if tag := protoTag(field); tag != "" && isMessage(owner) {
		o.put("proto", tag)
	}
	if inlined(field) {
		return o
	}
	property := def.Schema.Properties[jsonName(field)]
	extension := func(name string) any { return property.Extensions[name] }
	if list := extension("x-kubernetes-list-type"); list != nil && list != "atomic" {
		o.put("list", list)
		if keys := extension("x-kubernetes-list-map-keys"); keys != nil {
			o.put("keys", keys)
		}
	} else if list == "atomic" {
		o.put("atomic", true)
	}
	if extension("x-kubernetes-map-type") == "atomic" {
		o.put("atomic", true)
	}
	if extension("x-kubernetes-map-type") == "granular" {
		o.put("granular", true)
	}
	if patch := field.Tag.Get("patchStrategy"); patch != "" {
		o.put("patch", patch)
	}
	if key := field.Tag.Get("patchMergeKey"); key != "" {
		o.put("mergeKey", key)
	}
	for _, required := range def.Schema.Required {
		if required == jsonName(field) {
			o.put("required", true)
		}
	}
	if enum := enumOf(property); len(enum) > 0 {
		o.put("enum", enum)
	}
	if value, ok := defaults.of(owner, field); ok {
		o.put("default", value)
	}
	if property.Default != nil && !isEmptyObject(property.Default) {
		o.put("openapiDefault", property.Default)
	}
	if tags := comments.field(owner, field.Name); len(tags) > 0 {
		o.put("declared", tags)
	}
	return o
}

func isEmptyObject(value any) bool {
	m, ok := value.(map[string]interface{})
	return ok && len(m) == 0
}

// enumOf returns the enum of a property, or of its elements or values.
func enumOf(property spec.Schema) []any {
	if len(property.Enum) > 0 {
		return property.Enum
	}
	if property.Items != nil && property.Items.Schema != nil {
		return property.Items.Schema.Enum
	}
	if property.AdditionalProperties != nil && property.AdditionalProperties.Schema != nil {
		return property.AdditionalProperties.Schema.Enum
	}
	return nil
}

// named is the type as Go prints it in errors (behind a pointer), where its expression does not tell it.
func named(t reflect.Type) string {
	for t.Kind() == reflect.Pointer {
		t = t.Elem()
	}
	if text := t.String(); text != derived(t) {
		return text
	}
	return ""
}

// derived is what the engine takes for the type's name from its expression alone.
func derived(t reflect.Type) string {
	if _, ok := special[typeKey(t)]; ok && t.Name() != "" || orSpecial[t.Name()] {
		return t.String()
	}
	switch t.Kind() {
	case reflect.Pointer:
		return "*" + derived(t.Elem())
	case reflect.Slice:
		return "[]" + derived(t.Elem())
	case reflect.Map:
		return "map[string]" + derived(t.Elem())
	case reflect.Struct:
		parts := strings.Split(openAPIName(t), ".")
		return strings.Join(parts[len(parts)-2:], ".")
	case reflect.Uint8, reflect.Interface:
		return t.String()
	default:
		return expr(t)
	}
}

// fileOf groups types by the group-version that declares them.
func fileOf(name string) string {
	parts := strings.Split(name, ".")
	pkg := parts[:len(parts)-1]
	version := pkg[len(pkg)-1]
	group := pkg[len(pkg)-2]
	return group + "_" + version + ".json"
}

func (g *graph) write(dir string, comments *comments, defaults *defaults) {
	files := map[string][]string{}
	for name := range g.types {
		files[fileOf(name)] = append(files[fileOf(name)], name)
	}
	for file, names := range files {
		sort.Strings(names)
		var buf bytes.Buffer
		buf.WriteString("{\n")
		for i, name := range names {
			fmt.Fprintf(&buf, "%q: ", name)
			g.writeType(&buf, name, comments, defaults)
			if i < len(names)-1 {
				buf.WriteByte(',')
			}
			buf.WriteByte('\n')
		}
		buf.WriteString("}\n")
		must(os.WriteFile(filepath.Join(dir, file), buf.Bytes(), 0o644))
	}
}

func (g *graph) writeType(buf *bytes.Buffer, name string, comments *comments, defaults *defaults) {
	t := g.types[name]
	var head object
	if gvks := g.gvks[name]; len(gvks) > 0 {
		head.put("gvk", gvks)
	}
	def := g.openapi[name]
	if def.Schema.Extensions["x-kubernetes-map-type"] == "atomic" {
		head.put("atomic", true)
	}
	if unions := def.Schema.Extensions["x-kubernetes-unions"]; unions != nil {
		head.put("unions", unions)
	}
	if tags := comments.typ(t); len(tags) > 0 {
		head.put("declared", tags)
	}
	if t.Kind() == reflect.Slice {
		head.put("list", expr(t.Elem()))
	}
	text, err := marshal(head)
	must(err)
	if t.Kind() == reflect.Slice {
		buf.Write(text)
		return
	}
	g.structs++
	text = bytes.TrimSuffix(text, []byte("}"))
	buf.Write(text)
	if len(head) > 0 {
		buf.WriteByte(',')
	}
	buf.WriteString("\"fields\":[\n")
	var lines [][]byte
	for i := range t.NumField() {
		field := t.Field(i)
		if !field.IsExported() || jsonName(field) == "-" {
			continue
		}
		line, err := marshal(g.field(t, field, defaults, comments))
		must(err)
		lines = append(lines, line)
		g.fields++
	}
	buf.Write(bytes.Join(lines, []byte(",\n")))
	buf.WriteString("\n]}")
}
