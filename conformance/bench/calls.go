package main

import (
	"context"
	"fmt"
	"sync"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
)

// resident is a step that writes what the server weighs now.
func (b *Bench) resident(row string) func(context.Context, Rows) error {
	return func(_ context.Context, rows Rows) error {
		mib, err := b.process.residentMiB()
		rows[row] = mib
		return err
	}
}

func (b *Bench) idle(ctx context.Context, rows Rows) error {
	wait := func(length time.Duration) error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(length):
			return nil
		}
	}
	// What a start leaves behind is not idling.
	if err := wait(b.Settle); err != nil {
		return err
	}
	used, err := b.process.cost(func() error { return wait(b.Idle) })
	rows["idle_cpu_percent"] = 100 * used.Seconds() / b.Idle.Seconds()
	return err
}

func (b *Bench) createWith(ctx context.Context, client kubernetes.Interface) func(int) error {
	return func(i int) error {
		_, err := client.CoreV1().Pods(namespace).Create(ctx, pod(i), metav1.CreateOptions{})
		return err
	}
}

func (b *Bench) patchWith(ctx context.Context, round int) func(int) error {
	return func(i int) error {
		patch, err := runningPatch(i, round)
		if err != nil {
			return err
		}
		options := metav1.PatchOptions{FieldManager: "kubelet"}
		_, err = b.json.CoreV1().Pods(namespace).Patch(ctx, podName(i), types.StrategicMergePatchType, patch, options, "status")
		return err
	}
}

// fill makes the pods and has them running, without measuring anything.
func (b *Bench) fill(ctx context.Context, _ Rows) error {
	if err := each(parallelFill, 0, b.Pods, b.createWith(ctx, b.protobuf)); err != nil {
		return err
	}
	return each(parallelFill, 0, b.Pods, b.patchWith(ctx, b.Round))
}

func (b *Bench) create(ctx context.Context, rows Rows) error {
	from, to := 0, b.Pods
	if b.Existing {
		from, to = b.Pods, b.Pods+b.times(more)
	}
	half := (from + to) / 2
	if err := b.perRequest(rows, "create_pod_json", from, half, b.createWith(ctx, b.json)); err != nil {
		return err
	}
	return b.perRequest(rows, "create_pod_protobuf", half, to, b.createWith(ctx, b.protobuf))
}

func (b *Bench) patchStatus(ctx context.Context, rows Rows) error {
	to := b.Pods
	if b.Existing {
		to = min(b.times(more), b.Pods)
	}
	return b.perRequest(rows, "status_patch", 0, to, b.patchWith(ctx, b.Round))
}

func (b *Bench) get(ctx context.Context, rows Rows) error {
	with := func(client kubernetes.Interface) func(int) error {
		return func(i int) error {
			_, err := client.CoreV1().Pods(namespace).Get(ctx, podName(i%b.Pods), metav1.GetOptions{})
			return err
		}
	}
	if err := b.perRequest(rows, "get_pod_json", 0, b.times(gets), with(b.json)); err != nil {
		return err
	}
	return b.perRequest(rows, "get_pod_protobuf", 0, b.times(gets), with(b.protobuf))
}

func (b *Bench) apply(ctx context.Context, rows Rows) error {
	return b.perRequest(rows, "apply_configmap", 0, b.times(applies), func(i int) error {
		// A hundred objects, applied again and again with another value.
		config := applycorev1.ConfigMap(fmt.Sprintf("c%d", i%100), namespace).WithData(map[string]string{
			"a": "one", "b": "two", "round": fmt.Sprint(b.Round, ".", i),
		})
		_, err := b.json.CoreV1().ConfigMaps(namespace).Apply(ctx, config, metav1.ApplyOptions{FieldManager: "bench", Force: true})
		return err
	})
}

// leases: each node renews its own twice. A node does so every 10 s; 5,000 nodes send 500 of these a second.
func (b *Bench) leases(ctx context.Context, rows Rows) error {
	leases := make([]*coordinationv1.Lease, b.Nodes)
	client := b.protobuf.CoordinationV1().Leases(namespace)
	err := each(parallelFill, 0, b.Nodes, func(i int) error {
		name, seconds, now := nodeName(i), int32(40), metav1.NowMicro()
		lease := &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &seconds, RenewTime: &now},
		}
		var err error
		leases[i], err = client.Create(ctx, lease, metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	locks := make([]sync.Mutex, b.Nodes)
	return b.perRequest(rows, "renew_lease", 0, 2*b.Nodes, func(i int) error {
		n := i % b.Nodes
		locks[n].Lock()
		defer locks[n].Unlock()
		now := metav1.NowMicro()
		leases[n].Spec.RenewTime = &now
		updated, err := client.Update(ctx, leases[n], metav1.UpdateOptions{})
		if err == nil {
			leases[n] = updated
		}
		return err
	})
}

// nodeStatus: each node says once how it is, which a kubelet does every 5 minutes.
func (b *Bench) nodeStatus(ctx context.Context, rows Rows) error {
	nodes := b.protobuf.CoreV1().Nodes()
	err := each(parallelFill, 0, b.Nodes, func(i int) error {
		_, err := nodes.Create(ctx, node(i), metav1.CreateOptions{})
		return err
	})
	if err != nil {
		return err
	}
	return b.perRequest(rows, "node_status_patch", 0, b.Nodes, func(i int) error {
		patch, err := heartbeat(i)
		if err != nil {
			return err
		}
		_, err = b.protobuf.CoreV1().Nodes().Patch(ctx, nodeName(i), types.StrategicMergePatchType, patch, metav1.PatchOptions{}, "status")
		return err
	})
}
