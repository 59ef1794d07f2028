package main

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	corev1 "k8s.io/api/core/v1"
	schedulingv1 "k8s.io/api/scheduling/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/watch"
)

const (
	schedulePatience = 5 * time.Minute
	// Requests of the client at once: the scheduler is what has to be busy.
	scheduleParallel = 16
	highPriority     = "bench-high"
	measuredLabel    = "bench-measured"
	hopeless         = 200
)

// Workloads after upstream's scheduler_perf. The pods that are on nodes already are created there, where scheduler_perf has
// them scheduled: what is measured begins from the same state, sooner.
var workloads = []struct {
	name string
	// What the measured pods have, and the ones on nodes.
	shape func(*corev1.Pod)
	// Pods on nodes that differ from the measured ones.
	initial func(*corev1.Pod)
	// Pods that no node can take, waiting all the time.
	hopeless int
}{
	{name: "basic", shape: request("100m")},
	{name: "anti_affinity", shape: both(request("100m"), label("green"), apart)},
	{name: "affinity", shape: both(request("100m"), label("blue"), together)},
	{name: "topology_spreading", shape: both(request("100m"), label("blue"), spread)},
	// Every node has one pod of low priority that leaves no room for one of these.
	{name: "preemption", shape: both(request("3"), urgent), initial: request("3500m")},
	{name: "unschedulable", shape: request("100m"), hopeless: hopeless},
}

func workloadNames() []string {
	var out []string
	for _, w := range workloads {
		out = append(out, w.name)
	}
	return out
}

func both(changes ...func(*corev1.Pod)) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		for _, change := range changes {
			change(p)
		}
	}
}

func request(cpu string) func(*corev1.Pod) {
	return func(p *corev1.Pod) {
		amounts := corev1.ResourceList{corev1.ResourceCPU: resource.MustParse(cpu), corev1.ResourceMemory: resource.MustParse("200Mi")}
		p.Spec.Containers[0].Resources = corev1.ResourceRequirements{Requests: amounts, Limits: amounts}
	}
}

func label(color string) func(*corev1.Pod) { return func(p *corev1.Pod) { p.Labels["color"] = color } }

func urgent(p *corev1.Pod) { p.Spec.PriorityClassName = highPriority }

func alike(p *corev1.Pod, topology string) []corev1.PodAffinityTerm {
	return []corev1.PodAffinityTerm{{LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"color": p.Labels["color"]}}, TopologyKey: topology}}
}

func apart(p *corev1.Pod) {
	terms := alike(p, corev1.LabelHostname)
	p.Spec.Affinity = &corev1.Affinity{PodAntiAffinity: &corev1.PodAntiAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}}
}

func together(p *corev1.Pod) {
	terms := alike(p, corev1.LabelTopologyZone)
	p.Spec.Affinity = &corev1.Affinity{PodAffinity: &corev1.PodAffinity{RequiredDuringSchedulingIgnoredDuringExecution: terms}}
}

func spread(p *corev1.Pod) {
	p.Spec.TopologySpreadConstraints = []corev1.TopologySpreadConstraint{{
		MaxSkew: 5, TopologyKey: corev1.LabelTopologyZone, WhenUnsatisfiable: corev1.DoNotSchedule,
		LabelSelector: &metav1.LabelSelector{MatchLabels: map[string]string{"color": p.Labels["color"]}},
	}}
}

func small(name string, changes ...func(*corev1.Pod)) *corev1.Pod {
	none, no := int64(0), false
	p := &corev1.Pod{
		ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: namespace, Labels: map[string]string{}},
		Spec: corev1.PodSpec{
			// Nobody is there to end a pod that is preempted.
			TerminationGracePeriodSeconds: &none, AutomountServiceAccountToken: &no,
			Containers: []corev1.Container{{Name: "pause", Image: "registry.example.com/pause:1"}},
		},
	}
	both(changes...)(p)
	return p
}

// measureScheduler: without a workload nodes are made; with one, pods wait for the scheduler, which is measured.
func measureScheduler(ctx context.Context, o Options) (*Result, error) {
	b, err := newBench(ctx, o)
	if err != nil {
		return nil, err
	}
	if o.Workload == "" {
		return &Result{Rows: Rows{}}, b.makeNodes(ctx)
	}
	at := slices.Index(workloadNames(), o.Workload)
	if at < 0 {
		return nil, fmt.Errorf("unknown workload %q", o.Workload)
	}
	w := workloads[at]
	create := func(p *corev1.Pod) error {
		_, err := b.protobuf.CoreV1().Pods(namespace).Create(ctx, p, metav1.CreateOptions{})
		return err
	}
	initial := w.initial
	if initial == nil {
		initial = w.shape
	}
	err = each(scheduleParallel, 0, o.Initial, func(i int) error {
		p := small(fmt.Sprintf("initial-%05d", i), initial)
		p.Spec.NodeName = nodeName(i % o.Nodes)
		return create(p)
	})
	if err != nil {
		return nil, err
	}
	err = each(scheduleParallel, 0, w.hopeless, func(i int) error {
		return create(small(fmt.Sprintf("hopeless-%05d", i), request("9")))
	})
	if err != nil {
		return nil, err
	}
	// The scheduler has to have seen all of this, and to have looked at the hopeless ones.
	time.Sleep(o.Settle)
	rows := Rows{}
	return &Result{Rows: rows}, b.schedule(ctx, rows, func(i int) *corev1.Pod {
		return small(fmt.Sprintf("measured-%05d", i), w.shape, func(p *corev1.Pod) { p.Labels[measuredLabel] = "yes" })
	})
}

func (b *Bench) makeNodes(ctx context.Context) error {
	class := &schedulingv1.PriorityClass{ObjectMeta: metav1.ObjectMeta{Name: highPriority}, Value: 10}
	if _, err := b.json.SchedulingV1().PriorityClasses().Create(ctx, class, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	return each(scheduleParallel, 0, b.Nodes, func(i int) error {
		made, err := b.protobuf.CoreV1().Nodes().Create(ctx, node(i), metav1.CreateOptions{})
		if err != nil {
			return err
		}
		// A new node is tainted as not ready, and nobody is here to see that it is ready.
		made.Spec.Taints = nil
		_, err = b.protobuf.CoreV1().Nodes().Update(ctx, made, metav1.UpdateOptions{})
		return err
	})
}

// schedule makes pods and waits until each is on a node.
func (b *Bench) schedule(ctx context.Context, rows Rows, pod func(int) *corev1.Pod) error {
	ctx, cancel := context.WithTimeout(ctx, schedulePatience)
	defer cancel()
	client := b.protobuf.CoreV1().Pods(namespace)
	events, err := client.Watch(ctx, metav1.ListOptions{LabelSelector: measuredLabel})
	if err != nil {
		return err
	}
	defer events.Stop()
	var lock sync.Mutex
	sent := make(map[string]time.Time, b.Pods)
	var begun, ended time.Time
	delays := make([]time.Duration, 0, b.Pods)
	used, err := b.process.cost(func() error {
		begun = time.Now()
		made := make(chan error, 1)
		go func() {
			made <- each(scheduleParallel, 0, b.Pods, func(i int) error {
				p := pod(i)
				lock.Lock()
				sent[p.Name] = time.Now()
				lock.Unlock()
				_, err := client.Create(ctx, p, metav1.CreateOptions{})
				return err
			})
		}()
		placed := map[string]bool{}
		for len(placed) < b.Pods {
			select {
			case err := <-made:
				if err != nil {
					return err
				}
				made = nil
			case event, open := <-events.ResultChan():
				if !open || event.Type == watch.Error {
					return fmt.Errorf("the watch ended with %d of %d pods placed: %v", len(placed), b.Pods, event.Object)
				}
				p, is := event.Object.(*corev1.Pod)
				if !is || p.Spec.NodeName == "" || placed[p.Name] {
					continue
				}
				placed[p.Name] = true
				lock.Lock()
				delays = append(delays, time.Since(sent[p.Name]))
				lock.Unlock()
			case <-ctx.Done():
				return fmt.Errorf("%d of %d pods were placed in %s", len(placed), b.Pods, schedulePatience)
			}
		}
		ended = time.Now()
		return nil
	})
	if err != nil {
		return err
	}
	row := func(text string) string { return b.Workload + text }
	rows[row("_cpu_us")] = float64(used.Microseconds()) / float64(b.Pods)
	rows[row("_per_second")] = float64(b.Pods) / ended.Sub(begun).Seconds()
	rows[row("_latency_p50_ms")], rows[row("_latency_p99_ms")] = quantile(delays, 0.5), quantile(delays, 0.99)
	rows[row("_memory_mib")], err = b.process.residentMiB()
	return err
}
