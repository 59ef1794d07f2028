// scheduler-texts runs upstream's scheduler on small clusters and prints what it tells about the pod that waits:
// the message of its PodScheduled condition, or the node it was given.
//
// usage: go run ./cmd/scheduler-texts < ../../src/scheduler/testdata/cases.json > ../../src/scheduler/testdata/texts.json
package main

import (
	"context"
	"encoding/json"
	"fmt"
	"os"
	"time"

	v1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/kubernetes/fake"
	"k8s.io/client-go/tools/events"
	"k8s.io/kubernetes/pkg/scheduler"
	"k8s.io/kubernetes/pkg/scheduler/profile"
)

type testCase struct {
	Name  string    `json:"name"`
	Nodes []v1.Node `json:"nodes"`
	Pods  []v1.Pod  `json:"pods"`
	Pod   v1.Pod    `json:"pod"`
}

func main() {
	var cases []testCase
	if err := json.NewDecoder(os.Stdin).Decode(&cases); err != nil {
		fmt.Fprintln(os.Stderr, "cases:", err)
		os.Exit(1)
	}
	out := map[string]string{}
	for _, c := range cases {
		text, err := run(c)
		if err != nil {
			fmt.Fprintf(os.Stderr, "%s: %v\n", c.Name, err)
			os.Exit(1)
		}
		out[c.Name] = text
	}
	encoder := json.NewEncoder(os.Stdout)
	encoder.SetIndent("", " ")
	encoder.SetEscapeHTML(false)
	if err := encoder.Encode(out); err != nil {
		os.Exit(1)
	}
}

// run schedules the pod of one case and waits for the first thing that the scheduler says about it.
func run(c testCase) (string, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	namespace := &v1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	objects := []runtime.Object{namespace}
	for i := range c.Nodes {
		objects = append(objects, &c.Nodes[i])
	}
	for i := range c.Pods {
		objects = append(objects, &c.Pods[i])
	}
	client := fake.NewSimpleClientset(objects...)
	factory := informers.NewSharedInformerFactory(client, 0)
	broadcaster := events.NewBroadcaster(&events.EventSinkImpl{Interface: client.EventsV1()})
	sched, err := scheduler.New(ctx, client, factory, nil, profile.NewRecorderFactory(broadcaster))
	if err != nil {
		return "", err
	}
	factory.Start(ctx.Done())
	factory.WaitForCacheSync(ctx.Done())
	if err := sched.WaitForHandlersSync(ctx); err != nil {
		return "", err
	}
	go sched.Run(ctx)
	pods := client.CoreV1().Pods(c.Pod.Namespace)
	if _, err := pods.Create(ctx, &c.Pod, metav1.CreateOptions{}); err != nil {
		return "", err
	}
	for {
		pod, err := pods.Get(ctx, c.Pod.Name, metav1.GetOptions{})
		if err != nil {
			return "", err
		}
		for _, condition := range pod.Status.Conditions {
			if condition.Type == v1.PodScheduled && condition.Status == v1.ConditionFalse {
				return condition.Message, nil
			}
		}
		if pod.Spec.NodeName != "" {
			return "node " + pod.Spec.NodeName, nil
		}
		select {
		case <-ctx.Done():
			return "", ctx.Err()
		case <-time.After(20 * time.Millisecond):
		}
	}
}
