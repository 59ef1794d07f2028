package main

import (
	"bytes"
	"copepod.dev/hack/upstream/internal/roots"
	"encoding/json"
	"log"
	"os"
	"path/filepath"
	"sort"
	"strings"

	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	genericoptions "k8s.io/apiserver/pkg/server/options"
	serverstorage "k8s.io/apiserver/pkg/server/storage"
	"k8s.io/apiserver/pkg/storage/storagebackend"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/controlplane"
	"k8s.io/kubernetes/pkg/kubeapiserver"
)

type groupRow struct {
	name     string
	versions []string
}

// discoveredGroups are the groups served by default, in discovery's order, the legacy core group first.
func discoveredGroups(dir string) []groupRow {
	enabled := map[string]bool{}
	for _, gv := range roots.Served() {
		enabled[gv.String()] = true
	}
	groups := []groupRow{{"", []string{"v1"}}}
	var list metav1.APIGroupList
	readJSON(filepath.Join(dir, "apis.json"), &list)
	for _, group := range list.Groups {
		row := groupRow{name: group.Name}
		for _, version := range group.Versions {
			if enabled[version.GroupVersion] {
				row.versions = append(row.versions, version.Version)
			}
		}
		if len(row.versions) > 0 {
			groups = append(groups, row)
		}
	}
	return groups
}

func readJSON(path string, into any) {
	text, err := os.ReadFile(path)
	must(err)
	must(json.Unmarshal(text, into))
}

// resource is one row under construction.
type resource1 struct {
	group    string
	first    metav1.APIResource
	versions []object
}

func writeResources(path string, modules map[string]string) {
	dir := filepath.Join(modules["k8s.io/kubernetes"], "api/discovery")
	factory := storageFactory()
	var groups, rows []object
	for _, group := range discoveredGroups(dir) {
		groups = append(groups, object{{"name", group.name}, {"versions", group.versions}})
		byName := map[string]*resource1{}
		for _, version := range group.versions {
			file := "apis__" + group.name + "__" + version + ".json"
			if group.name == "" {
				file = "api__v1.json"
			}
			var list metav1.APIResourceList
			readJSON(filepath.Join(dir, file), &list)
			addVersion(byName, group.name, version, list.APIResources)
		}
		var names []string
		for name := range byName {
			names = append(names, name)
		}
		sort.Strings(names)
		for _, name := range names {
			row := byName[name].row(factory)
			if returnsDeleted(modules, group.name, group.versions[0], byName[name].first) {
				row = append(row[:len(row)-1], member{"returnsDeleted", true}, row[len(row)-1])
			}
			rows = append(rows, row)
		}
	}
	var out bytes.Buffer
	out.WriteString("{\"groups\":")
	section(&out, groups)
	out.WriteString(",\"resources\":")
	section(&out, rows)
	registered, err := marshal(registeredGroupVersions())
	must(err)
	out.WriteString(",\"registered\":")
	out.Write(registered)
	out.WriteString("}\n")
	must(os.WriteFile(path, out.Bytes(), 0o644))
}

// returnsDeleted tells resources whose DELETE answers with the object instead of a Status, from the published document.
func returnsDeleted(modules map[string]string, group, version string, resource metav1.APIResource) bool {
	file, prefix := "apis__"+group+"__"+version, "/apis/"+group+"/"+version
	if group == "" {
		file, prefix = "api__v1", "/api/v1"
	}
	if resource.Namespaced {
		prefix += "/namespaces/{namespace}"
	}
	type content struct {
		Schema struct {
			Ref string `json:"$ref"`
		} `json:"schema"`
	}
	var document struct {
		Paths map[string]struct {
			Delete struct {
				Responses map[string]struct {
					Content map[string]content `json:"content"`
				} `json:"responses"`
			} `json:"delete"`
		} `json:"paths"`
	}
	readJSON(filepath.Join(modules["k8s.io/kubernetes"], "api/openapi-spec/v3", file+"_openapi.json"), &document)
	ref := document.Paths[prefix+"/"+resource.Name+"/{name}"].Delete.Responses["200"].Content["application/json"].Schema.Ref
	return ref != "" && !strings.HasSuffix(ref, ".Status")
}

// registeredGroupVersions are all that the servers know, served or not: the OpenAPI v2 document lists them for the types
// that are registered in each.
func registeredGroupVersions() []string {
	seen := map[string]bool{}
	for _, scheme := range []*runtime.Scheme{legacyscheme.Scheme, apiextensions.Scheme, aggregator.Scheme} {
		for gvk := range scheme.AllKnownTypes() {
			if gvk.Kind == "DeleteOptions" && gvk.Version != runtime.APIVersionInternal {
				seen[gvk.Group+"/"+gvk.Version] = true
			}
		}
	}
	return sortedKeys(seen)
}

func section(out *bytes.Buffer, rows []object) {
	out.WriteString("[\n")
	for i, row := range rows {
		line, err := marshal(row)
		must(err)
		out.Write(line)
		if i < len(rows)-1 {
			out.WriteByte(',')
		}
		out.WriteByte('\n')
	}
	out.WriteByte(']')
}

func addVersion(byName map[string]*resource1, group, version string, resources []metav1.APIResource) {
	for _, resource := range resources {
		if strings.Contains(resource.Name, "/") {
			continue
		}
		row := byName[resource.Name]
		if row == nil {
			row = &resource1{group: group, first: resource}
			byName[resource.Name] = row
		}
		one := object{{"version", version}, {"verbs", resource.Verbs}}
		if resource.StorageVersionHash != "" {
			one.put("storageVersionHash", resource.StorageVersionHash)
		}
		var subresources []object
		for _, sub := range resources {
			name, ok := strings.CutPrefix(sub.Name, resource.Name+"/")
			if !ok {
				continue
			}
			line := object{{"name", name}, {"kind", sub.Kind}}
			if sub.Version != "" {
				line.put("group", sub.Group)
				line.put("version", sub.Version)
			}
			line.put("verbs", sub.Verbs)
			subresources = append(subresources, line)
		}
		if len(subresources) > 0 {
			one.put("subresources", subresources)
		}
		row.versions = append(row.versions, one)
	}
}

func (r *resource1) row(factory *serverstorage.DefaultStorageFactory) object {
	row := object{{"group", r.group}, {"plural", r.first.Name}, {"singular", r.first.SingularName}, {"kind", r.first.Kind}}
	listKind := r.first.Kind + "List"
	gv := schema.GroupVersion{Group: r.group, Version: r.versions[0][0].value.(string)}
	if roots.SchemeFor(gv).Recognizes(gv.WithKind(listKind)) {
		row.put("listKind", listKind)
	}
	if r.first.Namespaced {
		row.put("namespaced", true)
	}
	if len(r.first.ShortNames) > 0 {
		row.put("shortNames", r.first.ShortNames)
	}
	if len(r.first.Categories) > 0 {
		row.put("categories", r.first.Categories)
	}
	row.put("versions", r.versions)
	if r.stored() {
		row.put("storage", storageOf(factory, schema.GroupResource{Group: r.group, Resource: r.first.Name}, r.first.Kind))
	}
	return row
}

// stored resources can be deleted; reviews and component statuses exist only while they are asked.
func (r *resource1) stored() bool {
	for _, verb := range r.first.Verbs {
		if verb == "delete" {
			return true
		}
	}
	return false
}

func storageFactory() *serverstorage.DefaultStorageFactory {
	etcd := genericoptions.NewEtcdOptions(storagebackend.NewDefaultConfig(kubeapiserverPrefix, nil))
	etcd.DefaultStorageMediaType = runtime.ContentTypeProtobuf
	config := kubeapiserver.NewStorageFactoryConfig()
	config.APIResourceConfig = controlplane.DefaultAPIResourceConfigSource()
	factory, err := config.Complete(etcd).New()
	must(err)
	return factory
}

const kubeapiserverPrefix = "/registry"

// eventTTLSeconds is upstream's --event-ttl default.
const eventTTLSeconds = 3600

func storageOf(factory *serverstorage.DefaultStorageFactory, gr schema.GroupResource, kind string) object {
	switch gr.Group {
	// Both extension servers store by LegacyCodec, which is JSON in the first version of its list.
	// upstream: apiextensions-apiserver/pkg/cmd/server/options/options.go, cmd/kube-apiserver/app/aggregator.go
	case apiextensionsv1.GroupName:
		return object{{"group", gr.Group}, {"version", "v1beta1"}, {"kind", kind}, {"prefix", gr.Group + "/" + gr.Resource}, {"json", true}}
	case apiregistrationv1.GroupName:
		return object{{"group", gr.Group}, {"version", "v1"}, {"kind", kind}, {"prefix", gr.Group + "/" + gr.Resource}, {"json", true}}
	}
	internal := schema.GroupVersionKind{Group: gr.Group, Version: runtime.APIVersionInternal, Kind: kind}
	example, err := legacyscheme.Scheme.New(internal)
	must(err)
	config, err := factory.NewConfig(gr, example)
	must(err)
	kinds, _, err := legacyscheme.Scheme.ObjectKinds(example)
	must(err)
	stored, ok := config.EncodeVersioner.KindForGroupVersionKinds(kinds)
	if !ok {
		log.Fatalf("%s has no storage version", gr)
	}
	row := object{{"group", stored.Group}, {"version", stored.Version}, {"kind", stored.Kind}, {"prefix", factory.ResourcePrefix(gr)}}
	if gr.Resource == "events" {
		row.put("ttlSeconds", eventTTLSeconds)
	}
	return row
}
