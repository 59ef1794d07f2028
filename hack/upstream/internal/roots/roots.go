// Package roots lists the kinds that upstream serves by default or stores, with the schemes that know them.
package roots

import (
	"reflect"
	"sort"

	admissionv1 "k8s.io/api/admission/v1"
	apidiscoveryv2 "k8s.io/api/apidiscovery/v2"
	apiextensionsv1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1"
	apiextensionsv1beta1 "k8s.io/apiextensions-apiserver/pkg/apis/apiextensions/v1beta1"
	apiextensions "k8s.io/apiextensions-apiserver/pkg/apiserver"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/runtime/schema"
	apiregistrationv1 "k8s.io/kube-aggregator/pkg/apis/apiregistration/v1"
	aggregator "k8s.io/kube-aggregator/pkg/apiserver/scheme"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/controlplane"
)

// Root is a kind, its Go type, and the scheme that defaults and converts it (nil for a few types of meta/v1).
type Root struct {
	GVK    schema.GroupVersionKind
	Type   reflect.Type
	Scheme *runtime.Scheme
}

// storageOnly lists kinds that are stored in a version which is not served by default.
// upstream: pkg/kubeapiserver/default_storage_factory_builder.go
var storageOnly = []schema.GroupVersionKind{
	{Group: "admissionregistration.k8s.io", Version: "v1beta1", Kind: "MutatingAdmissionPolicy"},
	{Group: "admissionregistration.k8s.io", Version: "v1beta1", Kind: "MutatingAdmissionPolicyBinding"},
}

// Served lists the group-versions that upstream serves by default, the extension servers' included.
func Served() []schema.GroupVersion {
	var gvs []schema.GroupVersion
	for gv, enabled := range controlplane.DefaultAPIResourceConfigSource().GroupVersionConfigs {
		if enabled {
			gvs = append(gvs, gv)
		}
	}
	gvs = append(gvs, apiextensionsv1.SchemeGroupVersion, apiregistrationv1.SchemeGroupVersion)
	sort.Slice(gvs, func(i, j int) bool { return gvs[i].String() < gvs[j].String() })
	return gvs
}

// SchemeFor is the scheme of the server that serves a group-version.
func SchemeFor(gv schema.GroupVersion) *runtime.Scheme {
	switch gv.Group {
	case apiextensionsv1.GroupName:
		return apiextensions.Scheme
	case apiregistrationv1.GroupName:
		return aggregator.Scheme
	}
	return legacyscheme.Scheme
}

// Collect returns every kind once, sorted.
func Collect() []Root {
	var roots []Root
	add := func(scheme *runtime.Scheme, gvk schema.GroupVersionKind, goType reflect.Type) {
		roots = append(roots, Root{gvk, goType, scheme})
	}
	for _, gv := range Served() {
		scheme := SchemeFor(gv)
		for kind, goType := range scheme.KnownTypes(gv) {
			if kind == "__internal" || goType.Name() == "InternalEvent" {
				continue
			}
			add(scheme, gv.WithKind(kind), goType)
		}
	}
	for _, gvk := range storageOnly {
		add(legacyscheme.Scheme, gvk, legacyscheme.Scheme.KnownTypes(gvk.GroupVersion())[gvk.Kind])
	}
	for _, kind := range []string{"CustomResourceDefinition", "CustomResourceDefinitionList"} {
		gvk := apiextensionsv1beta1.SchemeGroupVersion.WithKind(kind)
		add(apiextensions.Scheme, gvk, apiextensions.Scheme.KnownTypes(gvk.GroupVersion())[kind])
	}
	meta := schema.GroupVersion{Group: "meta.k8s.io", Version: "v1"}
	metaBeta := schema.GroupVersion{Group: "meta.k8s.io", Version: "v1beta1"}
	for _, of := range []struct {
		gv     schema.GroupVersion
		object any
	}{
		{meta, metav1.Table{}},
		{meta, metav1.TableOptions{}},
		{meta, metav1.PartialObjectMetadata{}},
		{meta, metav1.PartialObjectMetadataList{}},
		{meta, metav1.ListOptions{}},
		{meta, metav1.GetOptions{}},
		{meta, metav1.DeleteOptions{}},
		{meta, metav1.CreateOptions{}},
		{meta, metav1.UpdateOptions{}},
		{meta, metav1.PatchOptions{}},
		{meta, metav1.WatchEvent{}},
		{meta, metav1.Status{}},
		{metaBeta, metav1.Table{}},
		{metaBeta, metav1.PartialObjectMetadata{}},
		{metaBeta, metav1.PartialObjectMetadataList{}},
		{apidiscoveryv2.SchemeGroupVersion, apidiscoveryv2.APIGroupDiscovery{}},
		{apidiscoveryv2.SchemeGroupVersion, apidiscoveryv2.APIGroupDiscoveryList{}},
		{admissionv1.SchemeGroupVersion, admissionv1.AdmissionReview{}},
	} {
		goType := reflect.TypeOf(of.object)
		add(nil, of.gv.WithKind(goType.Name()), goType)
	}
	sort.SliceStable(roots, func(i, j int) bool { return roots[i].GVK.String() < roots[j].GVK.String() })
	seen := map[schema.GroupVersionKind]bool{}
	unique := roots[:0]
	for _, r := range roots {
		if !seen[r.GVK] {
			unique = append(unique, r)
		}
		seen[r.GVK] = true
	}
	return unique
}
