package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"net/http"
	"os"
	"sync"
	"sync/atomic"
	"time"

	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	applycorev1 "k8s.io/client-go/applyconfigurations/core/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

// Requests under way at once where a row says nothing else.
const parallel = 4

const (
	gets     = 3000
	applies  = 1500
	renewals = 3000
)

// Bench is a server under measurement and its clients.
type Bench struct {
	Options
	process        Process
	json, protobuf kubernetes.Interface
	tls            *tls.Config
}

func newBench(ctx context.Context, o Options) (*Bench, error) {
	b := &Bench{Options: o, process: Process(o.PID), tls: &tls.Config{}}
	config := rest.Config{Host: o.Server, BearerToken: o.Token, QPS: -1, Timeout: time.Minute}
	if o.CA == "" {
		config.Insecure, b.tls.InsecureSkipVerify = true, true
	} else {
		pem, err := os.ReadFile(o.CA)
		if err != nil {
			return nil, err
		}
		b.tls.RootCAs = x509.NewCertPool()
		b.tls.RootCAs.AppendCertsFromPEM(pem)
		config.CAData = pem
	}
	var err error
	if b.json, err = kubernetes.NewForConfig(&config); err != nil {
		return nil, err
	}
	config.ContentType = "application/vnd.kubernetes.protobuf"
	config.AcceptContentTypes = config.ContentType
	if b.protobuf, err = kubernetes.NewForConfig(&config); err != nil {
		return nil, err
	}
	return b, b.prepare(ctx)
}

// prepare makes the namespace and its service account, which no controller makes here.
func (b *Bench) prepare(ctx context.Context) error {
	ns := &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: namespace}}
	if _, err := b.json.CoreV1().Namespaces().Create(ctx, ns, metav1.CreateOptions{}); err != nil && !apierrors.IsAlreadyExists(err) {
		return err
	}
	account := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	_, err := b.json.CoreV1().ServiceAccounts(namespace).Create(ctx, account, metav1.CreateOptions{})
	if apierrors.IsAlreadyExists(err) {
		return nil
	}
	return err
}

// each calls f for from..to, some at once, and returns all errors.
func each(from, to int, f func(i int) error) error {
	var next, wrong atomic.Int64
	next.Store(int64(from) - 1)
	var group sync.WaitGroup
	errs := make([]error, parallel)
	for worker := range parallel {
		group.Go(func() {
			for wrong.Load() == 0 {
				i := int(next.Add(1))
				if i >= to {
					return
				}
				if err := f(i); err != nil {
					errs[worker] = fmt.Errorf("request %d: %w", i, err)
					wrong.Add(1)
				}
			}
		})
	}
	group.Wait()
	return errors.Join(errs...)
}

// perRequest writes the row: microseconds of server CPU a request.
func (b *Bench) perRequest(rows Rows, row string, from, to int, f func(i int) error) error {
	started := time.Now()
	used, err := b.process.cost(func() error { return each(from, to, f) })
	count := float64(max(to-from, 1))
	rows[row+"_cpu_us"] = float64(used.Microseconds()) / count
	rows[row+"_per_second"] = count / time.Since(started).Seconds()
	return err
}

func (b *Bench) idle(ctx context.Context, rows Rows) error {
	used, err := b.process.cost(func() error {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(b.Idle):
			return nil
		}
	})
	rows["idle_cpu_percent"] = 100 * used.Seconds() / b.Idle.Seconds()
	return err
}

func (b *Bench) create(ctx context.Context, rows Rows) error {
	with := func(client kubernetes.Interface) func(int) error {
		return func(i int) error {
			_, err := client.CoreV1().Pods(namespace).Create(ctx, pod(i), metav1.CreateOptions{})
			return err
		}
	}
	half := b.Pods / 2
	if err := b.perRequest(rows, "create_pod_json", 0, half, with(b.json)); err != nil {
		return err
	}
	return b.perRequest(rows, "create_pod_protobuf", half, b.Pods, with(b.protobuf))
}

func (b *Bench) patchStatus(ctx context.Context, rows Rows) error {
	return b.perRequest(rows, "status_patch", 0, b.Pods, func(i int) error {
		patch, err := runningPatch(i, 0)
		if err != nil {
			return err
		}
		options := metav1.PatchOptions{FieldManager: "kubelet"}
		_, err = b.json.CoreV1().Pods(namespace).Patch(ctx, podName(i), types.StrategicMergePatchType, patch, options, "status")
		return err
	})
}

func (b *Bench) get(ctx context.Context, rows Rows) error {
	with := func(client kubernetes.Interface) func(int) error {
		return func(i int) error {
			_, err := client.CoreV1().Pods(namespace).Get(ctx, podName(i%b.Pods), metav1.GetOptions{})
			return err
		}
	}
	if err := b.perRequest(rows, "get_pod_json", 0, gets, with(b.json)); err != nil {
		return err
	}
	return b.perRequest(rows, "get_pod_protobuf", 0, gets, with(b.protobuf))
}

func (b *Bench) apply(ctx context.Context, rows Rows) error {
	return b.perRequest(rows, "apply_configmap", 0, applies, func(i int) error {
		// A hundred objects, applied again and again with another value.
		config := applycorev1.ConfigMap(fmt.Sprintf("c%d", i%100), namespace).WithData(map[string]string{
			"a": "one", "b": "two", "round": fmt.Sprint(i),
		})
		_, err := b.json.CoreV1().ConfigMaps(namespace).Apply(ctx, config, metav1.ApplyOptions{FieldManager: "bench", Force: true})
		return err
	})
}

// leases: nodes renew theirs every 10 s; 5,000 nodes send 500 of these a second.
func (b *Bench) leases(ctx context.Context, rows Rows) error {
	const nodes = 100
	leases := make([]*coordinationv1.Lease, nodes)
	client := b.protobuf.CoordinationV1().Leases(namespace)
	for i := range leases {
		name, seconds, now := fmt.Sprintf("node-%d", i), int32(40), metav1.NowMicro()
		lease := &coordinationv1.Lease{
			ObjectMeta: metav1.ObjectMeta{Name: name},
			Spec:       coordinationv1.LeaseSpec{HolderIdentity: &name, LeaseDurationSeconds: &seconds, RenewTime: &now},
		}
		var err error
		if leases[i], err = client.Create(ctx, lease, metav1.CreateOptions{}); err != nil {
			return err
		}
	}
	var locks [nodes]sync.Mutex
	return b.perRequest(rows, "renew_lease", 0, renewals, func(i int) error {
		n := i % nodes
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

// transport is one with a connection pool of its own; compression is left to whoever sets Accept-Encoding.
func (b *Bench) transport() *http.Transport {
	return &http.Transport{TLSClientConfig: b.tls.Clone(), ForceAttemptHTTP2: true, DisableCompression: true}
}

// request is a raw GET.
func (b *Bench) request(ctx context.Context, path, accept, encoding string) (*http.Request, error) {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, b.Server+path, nil)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Authorization", "Bearer "+b.Token)
	r.Header.Set("Accept", accept)
	r.Header.Set("Accept-Encoding", encoding)
	return r, nil
}
