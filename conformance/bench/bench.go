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

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
)

const (
	// Requests under way at once where a row says nothing else.
	parallel = 4
	// While nothing is measured.
	parallelFill = 16
	gets         = 3000
	applies      = 1500
	// Pods made, and patched, where the pods of the row are there already.
	more = 1000
)

// Bench is a server under measurement and its clients.
type Bench struct {
	Options
	process        Process
	json, protobuf *kubernetes.Clientset
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

// times is how often something is repeated.
func (b *Bench) times(full int) int { return max(int(float64(full)*b.Scale), parallel) }

// each calls f for from..to, so many at once, and returns all errors.
func each(workers, from, to int, f func(i int) error) error {
	var next, wrong atomic.Int64
	next.Store(int64(from) - 1)
	var group sync.WaitGroup
	errs := make([]error, workers)
	for worker := range workers {
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
	used, err := b.process.cost(func() error { return each(parallel, from, to, f) })
	count := float64(max(to-from, 1))
	rows[row+"_cpu_us"] = float64(used.Microseconds()) / count
	rows[row+"_per_second"] = count / time.Since(started).Seconds()
	return err
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
