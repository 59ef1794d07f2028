package main

import (
	"reflect"

	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apiserver/pkg/registry/rest"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/kubernetes/pkg/api/legacyscheme"
	"k8s.io/kubernetes/pkg/apis/apps"
	"k8s.io/kubernetes/pkg/apis/autoscaling"
	"k8s.io/kubernetes/pkg/apis/batch"
	certs "k8s.io/kubernetes/pkg/apis/certificates"
	"k8s.io/kubernetes/pkg/apis/core"
	_ "k8s.io/kubernetes/pkg/apis/core/install"
	"k8s.io/kubernetes/pkg/apis/flowcontrol"
	"k8s.io/kubernetes/pkg/apis/networking"
	"k8s.io/kubernetes/pkg/apis/policy"
	"k8s.io/kubernetes/pkg/apis/rbac"
	"k8s.io/kubernetes/pkg/apis/storage"
	_ "k8s.io/kubernetes/pkg/controlplane"

	"k8s.io/kubernetes/pkg/registry/admissionregistration/mutatingadmissionpolicy"
	"k8s.io/kubernetes/pkg/registry/admissionregistration/mutatingadmissionpolicybinding"
	"k8s.io/kubernetes/pkg/registry/admissionregistration/mutatingwebhookconfiguration"
	"k8s.io/kubernetes/pkg/registry/admissionregistration/validatingadmissionpolicy"
	"k8s.io/kubernetes/pkg/registry/admissionregistration/validatingadmissionpolicybinding"
	"k8s.io/kubernetes/pkg/registry/admissionregistration/validatingwebhookconfiguration"
	"k8s.io/kubernetes/pkg/registry/apps/controllerrevision"
	"k8s.io/kubernetes/pkg/registry/apps/daemonset"
	"k8s.io/kubernetes/pkg/registry/apps/deployment"
	"k8s.io/kubernetes/pkg/registry/apps/replicaset"
	"k8s.io/kubernetes/pkg/registry/apps/statefulset"
	"k8s.io/kubernetes/pkg/registry/autoscaling/horizontalpodautoscaler"
	"k8s.io/kubernetes/pkg/registry/batch/cronjob"
	"k8s.io/kubernetes/pkg/registry/batch/job"
	"k8s.io/kubernetes/pkg/registry/certificates/certificates"
	"k8s.io/kubernetes/pkg/registry/coordination/lease"
	"k8s.io/kubernetes/pkg/registry/core/configmap"
	"k8s.io/kubernetes/pkg/registry/core/endpoint"
	"k8s.io/kubernetes/pkg/registry/core/event"
	"k8s.io/kubernetes/pkg/registry/core/limitrange"
	"k8s.io/kubernetes/pkg/registry/core/namespace"
	"k8s.io/kubernetes/pkg/registry/core/node"
	"k8s.io/kubernetes/pkg/registry/core/persistentvolume"
	"k8s.io/kubernetes/pkg/registry/core/persistentvolumeclaim"
	"k8s.io/kubernetes/pkg/registry/core/pod"
	"k8s.io/kubernetes/pkg/registry/core/podtemplate"
	"k8s.io/kubernetes/pkg/registry/core/replicationcontroller"
	"k8s.io/kubernetes/pkg/registry/core/resourcequota"
	"k8s.io/kubernetes/pkg/registry/core/secret"
	"k8s.io/kubernetes/pkg/registry/core/service"
	"k8s.io/kubernetes/pkg/registry/core/serviceaccount"
	"k8s.io/kubernetes/pkg/registry/discovery/endpointslice"
	"k8s.io/kubernetes/pkg/registry/flowcontrol/flowschema"
	"k8s.io/kubernetes/pkg/registry/flowcontrol/prioritylevelconfiguration"
	"k8s.io/kubernetes/pkg/registry/networking/ingress"
	"k8s.io/kubernetes/pkg/registry/networking/ingressclass"
	"k8s.io/kubernetes/pkg/registry/networking/ipaddress"
	"k8s.io/kubernetes/pkg/registry/networking/networkpolicy"
	"k8s.io/kubernetes/pkg/registry/networking/servicecidr"
	"k8s.io/kubernetes/pkg/registry/node/runtimeclass"
	"k8s.io/kubernetes/pkg/registry/policy/poddisruptionbudget"
	"k8s.io/kubernetes/pkg/registry/rbac/clusterrole"
	"k8s.io/kubernetes/pkg/registry/rbac/clusterrolebinding"
	"k8s.io/kubernetes/pkg/registry/rbac/role"
	"k8s.io/kubernetes/pkg/registry/rbac/rolebinding"
	"k8s.io/kubernetes/pkg/registry/scheduling/priorityclass"
	"k8s.io/kubernetes/pkg/registry/storage/csidriver"
	"k8s.io/kubernetes/pkg/registry/storage/csinode"
	"k8s.io/kubernetes/pkg/registry/storage/csistoragecapacity"
	"k8s.io/kubernetes/pkg/registry/storage/storageclass"
	"k8s.io/kubernetes/pkg/registry/storage/volumeattachment"
	"k8s.io/kubernetes/pkg/registry/storage/volumeattributesclass"
)

// How upstream treats a kind.
type strategy struct {
	resource string
	create   rest.RESTCreateStrategy
	update   rest.RESTUpdateStrategy
	status   rest.RESTUpdateStrategy
	// Its refusals of updates are long (a diff each): every fifth mutation is enough.
	sparseUpdates bool
}

// A strategy that creates and updates.
type both interface {
	rest.RESTCreateStrategy
	rest.RESTUpdateStrategy
}

func of(resource string, s both) strategy {
	return strategy{resource: resource, create: s, update: s}
}

func withStatus(resource string, s both, status rest.RESTUpdateStrategy) strategy {
	return strategy{resource: resource, create: s, update: s, status: status}
}

func sparse(s strategy) strategy {
	s.sparseUpdates = true
	return s
}

func gk(group, kind string) schema.GroupKind { return schema.GroupKind{Group: group, Kind: kind} }

var strategies = map[schema.GroupKind]strategy{
	gk("", "Pod"):                   sparse(withStatus("pods", pod.Strategy, pod.StatusStrategy)),
	gk("", "Namespace"):             withStatus("namespaces", namespace.Strategy, namespace.StatusStrategy),
	gk("", "Node"):                  withStatus("nodes", node.Strategy, node.StatusStrategy),
	gk("", "ConfigMap"):             of("configmaps", configmap.Strategy),
	gk("", "Secret"):                of("secrets", secret.Strategy),
	gk("", "ServiceAccount"):        of("serviceaccounts", serviceaccount.Strategy),
	gk("", "Event"):                 of("events", event.Strategy),
	gk("events.k8s.io", "Event"):    of("events", event.Strategy),
	gk("", "Service"):               withStatus("services", service.Strategy, service.StatusStrategy),
	gk("", "Endpoints"):             of("endpoints", endpoint.Strategy),
	gk("", "LimitRange"):            of("limitranges", limitrange.Strategy),
	gk("", "ResourceQuota"):         withStatus("resourcequotas", resourcequota.Strategy, resourcequota.StatusStrategy),
	gk("", "PersistentVolume"):      sparse(withStatus("persistentvolumes", persistentvolume.Strategy, persistentvolume.StatusStrategy)),
	gk("", "PersistentVolumeClaim"): sparse(withStatus("persistentvolumeclaims", persistentvolumeclaim.Strategy, persistentvolumeclaim.StatusStrategy)),
	gk("", "PodTemplate"):           sparse(of("podtemplates", podtemplate.Strategy)),
	gk("", "ReplicationController"): sparse(withStatus("replicationcontrollers", replicationcontroller.Strategy, replicationcontroller.StatusStrategy)),

	gk("apps", "Deployment"):         sparse(withStatus("deployments", deployment.Strategy, deployment.StatusStrategy)),
	gk("apps", "ReplicaSet"):         sparse(withStatus("replicasets", replicaset.Strategy, replicaset.StatusStrategy)),
	gk("apps", "StatefulSet"):        sparse(withStatus("statefulsets", statefulset.Strategy, statefulset.StatusStrategy)),
	gk("apps", "DaemonSet"):          sparse(withStatus("daemonsets", daemonset.Strategy, daemonset.StatusStrategy)),
	gk("apps", "ControllerRevision"): of("controllerrevisions", controllerrevision.Strategy),
	gk("batch", "Job"):               sparse(withStatus("jobs", job.Strategy, job.StatusStrategy)),
	gk("batch", "CronJob"):           sparse(withStatus("cronjobs", cronjob.Strategy, cronjob.StatusStrategy)),
	gk("autoscaling", "HorizontalPodAutoscaler"): withStatus("horizontalpodautoscalers", horizontalpodautoscaler.Strategy,
		horizontalpodautoscaler.StatusStrategy),
	gk("policy", "PodDisruptionBudget"): withStatus("poddisruptionbudgets", poddisruptionbudget.Strategy, poddisruptionbudget.StatusStrategy),

	gk("coordination.k8s.io", "Lease"):                    of("leases", lease.Strategy),
	gk("discovery.k8s.io", "EndpointSlice"):               of("endpointslices", endpointslice.Strategy),
	gk("scheduling.k8s.io", "PriorityClass"):              of("priorityclasses", priorityclass.Strategy),
	gk("node.k8s.io", "RuntimeClass"):                     of("runtimeclasses", runtimeclass.Strategy),
	gk("rbac.authorization.k8s.io", "Role"):               of("roles", role.Strategy),
	gk("rbac.authorization.k8s.io", "ClusterRole"):        of("clusterroles", clusterrole.Strategy),
	gk("rbac.authorization.k8s.io", "RoleBinding"):        of("rolebindings", rolebinding.Strategy),
	gk("rbac.authorization.k8s.io", "ClusterRoleBinding"): of("clusterrolebindings", clusterrolebinding.Strategy),

	gk("networking.k8s.io", "Ingress"):       withStatus("ingresses", ingress.Strategy, ingress.StatusStrategy),
	gk("networking.k8s.io", "IngressClass"):  of("ingressclasses", ingressclass.Strategy),
	gk("networking.k8s.io", "NetworkPolicy"): of("networkpolicies", networkpolicy.Strategy),
	gk("networking.k8s.io", "ServiceCIDR"):   withStatus("servicecidrs", servicecidr.Strategy, servicecidr.StatusStrategy),
	gk("networking.k8s.io", "IPAddress"):     of("ipaddresses", ipaddress.Strategy),

	gk("storage.k8s.io", "StorageClass"):          of("storageclasses", storageclass.Strategy),
	gk("storage.k8s.io", "CSIDriver"):             of("csidrivers", csidriver.Strategy),
	gk("storage.k8s.io", "CSINode"):               of("csinodes", csinode.Strategy),
	gk("storage.k8s.io", "CSIStorageCapacity"):    of("csistoragecapacities", csistoragecapacity.Strategy),
	gk("storage.k8s.io", "VolumeAttachment"):      withStatus("volumeattachments", volumeattachment.Strategy, volumeattachment.StatusStrategy),
	gk("storage.k8s.io", "VolumeAttributesClass"): of("volumeattributesclasses", volumeattributesclass.Strategy),

	gk("flowcontrol.apiserver.k8s.io", "FlowSchema"): withStatus("flowschemas", flowschema.Strategy, flowschema.StatusStrategy),
	gk("flowcontrol.apiserver.k8s.io", "PriorityLevelConfiguration"): withStatus("prioritylevelconfigurations",
		prioritylevelconfiguration.Strategy, prioritylevelconfiguration.StatusStrategy),
	gk("admissionregistration.k8s.io", "ValidatingWebhookConfiguration"): of("validatingwebhookconfigurations", validatingwebhookconfiguration.Strategy),
	gk("admissionregistration.k8s.io", "ValidatingAdmissionPolicy"): withStatus("validatingadmissionpolicies",
		vapStrategy, validatingadmissionpolicy.NewStatusStrategy(vapStrategy)),
	gk("admissionregistration.k8s.io", "ValidatingAdmissionPolicyBinding"): of("validatingadmissionpolicybindings",
		validatingadmissionpolicybinding.NewStrategy(nil, nil, nil)),
	gk("admissionregistration.k8s.io", "MutatingAdmissionPolicy"): of("mutatingadmissionpolicies", mutatingadmissionpolicy.NewStrategy(nil, nil)),
	gk("admissionregistration.k8s.io", "MutatingAdmissionPolicyBinding"): of("mutatingadmissionpolicybindings",
		mutatingadmissionpolicybinding.NewStrategy(nil, nil, nil)),
	gk("admissionregistration.k8s.io", "MutatingWebhookConfiguration"): of("mutatingwebhookconfigurations", mutatingwebhookconfiguration.Strategy),
	gk("certificates.k8s.io", "CertificateSigningRequest"): withStatus("certificatesigningrequests", certificates.Strategy,
		certificates.StatusStrategy),
}

// Internal types besides core's that upstream prints in messages.
var vapStrategy = validatingadmissionpolicy.NewStrategy(nil, nil)

var extraInternal = []reflect.Type{
	reflect.TypeOf(batch.JobSpec{}),
	reflect.TypeOf(batch.JobStatus{}),
	reflect.TypeOf(policy.PodDisruptionBudgetSpec{}),
	reflect.TypeOf(storage.VolumeAttachmentSpec{}),
	reflect.TypeOf(storage.CSINodeSpec{}),
	reflect.TypeOf(storage.CSIDriverSpec{}),
	reflect.TypeOf(storage.StorageClass{}),
	reflect.TypeOf(flowcontrol.FlowSchemaSpec{}),
	reflect.TypeOf(flowcontrol.PriorityLevelConfigurationSpec{}),
	reflect.TypeOf(certs.CertificateSigningRequest{}),
	reflect.TypeOf(core.PersistentVolumeSpec{}),
	reflect.TypeOf(core.PersistentVolumeClaimSpec{}),
	reflect.TypeOf(core.PersistentVolumeClaimStatus{}),
	reflect.TypeOf(networking.IngressSpec{}),
	reflect.TypeOf(networking.IngressClassSpec{}),
	reflect.TypeOf(networking.ServiceCIDRSpec{}),
	reflect.TypeOf(networking.IPAddressSpec{}),
	reflect.TypeOf(networking.NetworkPolicySpec{}),
	reflect.TypeOf(rbac.RoleRef{}),
	reflect.TypeOf(apps.DeploymentSpec{}),
	reflect.TypeOf(apps.DaemonSetSpec{}),
	reflect.TypeOf(apps.StatefulSetSpec{}),
	reflect.TypeOf(core.Event{}),
	reflect.TypeOf(core.NodeStatus{}),
	reflect.TypeOf(autoscaling.HorizontalPodAutoscalerSpec{}),
}

// Versioned structs by name, for the names of their fields in JSON.
var versionedTypes = func() map[string][]reflect.Type {
	out := map[string][]reflect.Type{}
	seen := map[reflect.Type]bool{}
	var visit func(t reflect.Type)
	visit = func(t reflect.Type) {
		for t.Kind() == reflect.Ptr || t.Kind() == reflect.Slice || t.Kind() == reflect.Map {
			t = t.Elem()
		}
		if t.Kind() != reflect.Struct || seen[t] {
			return
		}
		seen[t] = true
		out[t.Name()] = append(out[t.Name()], t)
		for i := 0; i < t.NumField(); i++ {
			visit(t.Field(i).Type)
		}
	}
	visit(reflect.TypeOf(corev1.Pod{}))
	for gvk, t := range legacyscheme.Scheme.AllKnownTypes() {
		if gvk.Version == "v1" || gvk.Version == "v2" {
			visit(t)
		}
	}
	return out
}()
