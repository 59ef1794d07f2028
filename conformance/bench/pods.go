package main

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/util/intstr"
)

const (
	namespace = "bench"
	// One pod of this many has a given label, and is on a given node.
	groups = 50
)

func group(i int) string { return fmt.Sprintf("g%d", i%groups) }

func podName(i int) string { return fmt.Sprintf("pod-%05d", i) }

// pod is one such as a Deployment makes: with its status about 5.4 KB of JSON and 3.6 KB of protobuf.
func pod(i int) *corev1.Pod {
	probe := func(path string) *corev1.Probe {
		return &corev1.Probe{
			ProbeHandler:  corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Path: path, Port: intstr.FromString("http")}},
			PeriodSeconds: 10, FailureThreshold: 3, TimeoutSeconds: 2,
		}
	}
	amount := func(cpu, memory string) corev1.ResourceList {
		return corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse(memory)}
	}
	fromField := func(name, path string) corev1.EnvVar {
		return corev1.EnvVar{Name: name, ValueFrom: &corev1.EnvVarSource{FieldRef: &corev1.ObjectFieldSelector{FieldPath: path}}}
	}
	yes, no := true, false
	return &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{
			Name: podName(i), Namespace: namespace,
			Labels:      map[string]string{"app": "web", "group": group(i), "pod-template-hash": "6d4b75cb6d", "tier": "front"},
			Annotations: map[string]string{"kubectl.kubernetes.io/restartedAt": "2026-01-01T00:00:00Z"},
			OwnerReferences: []metav1.OwnerReference{{
				APIVersion: "apps/v1", Kind: "ReplicaSet", Name: "web-6d4b75cb6d", UID: "0f2b9f0e-8f55-4a53-9d5c-2a3f1c7d9b11",
				Controller: &yes, BlockOwnerDeletion: &yes,
			}},
		},
		Spec: corev1.PodSpec{
			NodeName:                     "node-" + group(i),
			AutomountServiceAccountToken: &no,
			Containers: []corev1.Container{{
				Name: "web", Image: "registry.example.com/team/web:1.27.3",
				Ports: []corev1.ContainerPort{{Name: "http", ContainerPort: 8080}},
				Env: []corev1.EnvVar{
					{Name: "LOG_LEVEL", Value: "info"}, fromField("POD_IP", "status.podIP"),
				},
				Resources:      corev1.ResourceRequirements{Requests: amount("100m", "128Mi"), Limits: amount("500m", "256Mi")},
				ReadinessProbe: probe("/readyz"),
			}},
			Tolerations: []corev1.Toleration{{Key: "dedicated", Operator: corev1.TolerationOpEqual, Value: "web", Effect: corev1.TaintEffectNoSchedule}},
		},
	}
}

// runningPatch is the strategic merge patch of `status` that a kubelet sends when the pod runs. `round` makes it differ.
func runningPatch(i, round int) ([]byte, error) {
	at := metav1.Date(2026, 1, 1, 0, round%60, i%60, 0, metav1.Now().Location()).UTC().Format("2006-01-02T15:04:05Z")
	condition := func(kind string) map[string]any {
		return map[string]any{"type": kind, "status": "True", "lastTransitionTime": at, "observedGeneration": 1}
	}
	kinds := []string{"PodReadyToStartContainers", "Initialized", "Ready", "ContainersReady", "PodScheduled"}
	conditions, order := make([]any, len(kinds)), make([]any, len(kinds))
	for k, kind := range kinds {
		conditions[k], order[k] = condition(kind), map[string]any{"type": kind}
	}
	address := fmt.Sprintf("10.244.%d.%d", i/250%250, i%250+2)
	return json.Marshal(map[string]any{"status": map[string]any{
		"$setElementOrder/conditions": order,
		"conditions":                  conditions,
		"phase":                       "Running", "hostIP": "192.0.2.10", "podIP": address, "startTime": at,
		"hostIPs": []any{map[string]any{"ip": "192.0.2.10"}}, "podIPs": []any{map[string]any{"ip": address}},
		"containerStatuses": []any{map[string]any{
			"name": "web", "ready": true, "started": true, "restartCount": round, "image": "registry.example.com/team/web:1.27.3",
			"imageID":     "registry.example.com/team/web@sha256:9d6b58feebd2dbd3c56ab5853333d627cc6e281011cfd6050fa4bcf2072c9496",
			"containerID": fmt.Sprintf("containerd://%064x", i),
			"state":       map[string]any{"running": map[string]any{"startedAt": at}},
		}},
	}})
}
