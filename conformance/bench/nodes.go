package main

import (
	"encoding/json"
	"fmt"

	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
)

const zones = 3

func nodeName(i int) string { return fmt.Sprintf("node-%05d", i) }

var nodeConditions = []struct {
	kind   corev1.NodeConditionType
	status corev1.ConditionStatus
	reason string
}{
	{corev1.NodeMemoryPressure, corev1.ConditionFalse, "KubeletHasSufficientMemory"},
	{corev1.NodeDiskPressure, corev1.ConditionFalse, "KubeletHasNoDiskPressure"},
	{corev1.NodePIDPressure, corev1.ConditionFalse, "KubeletHasSufficientPID"},
	{corev1.NodeReady, corev1.ConditionTrue, "KubeletReady"},
}

// node is a ready one of upstream's scheduler_perf's size (4 CPUs, 32 GiB, 110 pods), in one of three zones, with what a
// kubelet says about its machine.
func node(i int) *corev1.Node {
	room := corev1.ResourceList{
		corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("32Gi"), corev1.ResourcePods: resource.MustParse("110"),
	}
	n := &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: nodeName(i), Labels: map[string]string{
			corev1.LabelHostname: nodeName(i), corev1.LabelTopologyZone: fmt.Sprintf("zone-%d", i%zones),
			corev1.LabelOSStable: "linux", corev1.LabelArchStable: "amd64",
		}},
		Spec: corev1.NodeSpec{PodCIDR: fmt.Sprintf("10.%d.%d.0/24", 100+i/250, i%250)},
		Status: corev1.NodeStatus{
			Capacity: room, Allocatable: room,
			Addresses: []corev1.NodeAddress{
				{Type: corev1.NodeInternalIP, Address: fmt.Sprintf("192.168.%d.%d", i/250, i%250+1)},
				{Type: corev1.NodeHostName, Address: nodeName(i)},
			},
			NodeInfo: corev1.NodeSystemInfo{
				MachineID: fmt.Sprintf("%032x", i), BootID: fmt.Sprintf("%032x", i+1), SystemUUID: fmt.Sprintf("%032x", i+2),
				KernelVersion: "6.1.0", OSImage: "Debian GNU/Linux 12 (bookworm)", ContainerRuntimeVersion: "containerd://1.6.20",
				KubeletVersion: "v1.36.3", OperatingSystem: "linux", Architecture: "amd64",
			},
		},
	}
	for _, condition := range nodeConditions {
		n.Status.Conditions = append(n.Status.Conditions, corev1.NodeCondition{
			Type: condition.kind, Status: condition.status, Reason: condition.reason, Message: "kubelet: " + condition.reason,
			LastHeartbeatTime: metav1.Now(), LastTransitionTime: metav1.Now(),
		})
	}
	for image := range 10 {
		n.Status.Images = append(n.Status.Images, corev1.ContainerImage{
			Names: []string{fmt.Sprintf("registry.example.com/team/image-%d:1.2.%d", image, i%7)}, SizeBytes: int64(1+image) << 24,
		})
	}
	return n
}

// heartbeat is the strategic merge patch of `status` that a kubelet sends when nothing but the time has changed.
func heartbeat(i int) ([]byte, error) {
	conditions, order := []any{}, []any{}
	for _, condition := range nodeConditions {
		at := metav1.Date(2040, 1, 1, 0, i/60%60, i%60, 0, metav1.Now().Location()).UTC().Format("2006-01-02T15:04:05Z")
		conditions = append(conditions, map[string]any{"type": condition.kind, "lastHeartbeatTime": at})
		order = append(order, map[string]any{"type": condition.kind})
	}
	return json.Marshal(map[string]any{"status": map[string]any{"$setElementOrder/conditions": order, "conditions": conditions}})
}
