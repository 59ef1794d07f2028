// Package conformance drives a cluster as real client-go programs do, and says how many cases held.
//
// It needs a cluster: KUBECONFIG names an administrator's kubeconfig; without it nothing passes. It runs against
// Copepod and against upstream alike, and every expectation has to hold on both (conformance/on starts a bare server
// of either). What it needs beyond an API server is asked for by name, so that nothing is left out silently:
//
//	CONFORMANCE_NODE=1           there is a node that runs pods of CONFORMANCE_IMAGE [localhost/copepod/web:1]
//	CONFORMANCE_RESTART=COMMAND  kills the API server and starts it again
//	CONFORMANCE_COMPACTION=2s    the server's --etcd-compaction-interval, short enough to wait for
package conformance

import (
	"context"
	"crypto/rand"
	"fmt"
	"net/http"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/clientcmd"
)

const (
	// caseMax bounds what a test of several cases may take; the slowest waits for leases, restarts or pods.
	caseMax = 90 * time.Second
	// soonMax is how long a state may take that no clock of the cluster delays.
	soonMax = 20 * time.Second

	protobuf = "application/vnd.kubernetes.protobuf"
	jsonType = "application/json"
)

var passed, failed, skipped atomic.Int32

func TestMain(m *testing.M) {
	if os.Getenv("KUBECONFIG") == "" {
		fmt.Fprintln(os.Stderr, "Error: KUBECONFIG must name the kubeconfig of the cluster under test")
		os.Exit(1)
	}
	code := m.Run()
	fmt.Printf("client-go: %d passed, %d failed, %d skipped\n", passed.Load(), failed.Load(), skipped.Load())
	if passed.Load() == 0 && code == 0 {
		fmt.Fprintln(os.Stderr, "Error: no case ran")
		code = 1
	}
	os.Exit(code)
}

// step is a case of a table. The cases of one table build upon each other.
type step struct {
	name string
	run  func(t *testing.T)
}

// play runs the cases in order. After one that failed the others are not tried: they would only repeat it.
func play(t *testing.T, steps []step) {
	for i, s := range steps {
		if !t.Run(s.name, s.run) {
			failed.Add(1)
			if left := len(steps) - i - 1; left > 0 {
				t.Fatalf("%d further cases were not tried", left)
			}
			return
		}
		passed.Add(1)
	}
}

// need skips a table whose surroundings are not there, and counts it.
func need(t *testing.T, variable string) string {
	t.Helper()
	value := os.Getenv(variable)
	if value == "" {
		skipped.Add(1)
		t.Skipf("%s is not set", variable)
	}
	return value
}

// place is where a test works: a namespace of its own, and clients that keep a record of what they asked.
type place struct {
	ctx       context.Context
	namespace string
	config    *rest.Config
	client    *kubernetes.Clientset
	record    *recorder
}

// newPlace makes the namespace; it goes at the end. The media type is that of all of the clients' requests.
func newPlace(t *testing.T, mediaType string) *place {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), caseMax)
	t.Cleanup(cancel)
	record := &recorder{}
	config := clientConfig(t, mediaType, record)
	p := &place{ctx: ctx, config: config, client: kubernetes.NewForConfigOrDie(config), record: record}
	name := strings.ToLower(strings.NewReplacer("_", "-", "/", "-", " ", "-").Replace(t.Name()))
	p.namespace = fmt.Sprintf("%.40s-%s", strings.TrimPrefix(name, "test"), strings.ToLower(rand.Text()[:6]))
	_, err := p.client.CoreV1().Namespaces().Create(ctx, &corev1.Namespace{ObjectMeta: metav1.ObjectMeta{Name: p.namespace}}, metav1.CreateOptions{})
	must(t, err)
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), soonMax)
		defer cancel()
		if err := p.client.CoreV1().Namespaces().Delete(ctx, p.namespace, metav1.DeleteOptions{}); err != nil {
			t.Errorf("the namespace could not be deleted: %v", err)
		}
	})
	return p
}

func clientConfig(t *testing.T, mediaType string, record *recorder) *rest.Config {
	t.Helper()
	config, err := clientcmd.BuildConfigFromFlags("", os.Getenv("KUBECONFIG"))
	must(t, err)
	config.QPS = -1 // the server is under test, not the client's rate limiter
	config.UserAgent = "copepod-conformance"
	config.ContentType = mediaType
	if mediaType == protobuf {
		config.AcceptContentTypes = protobuf + "," + jsonType
	}
	if record != nil {
		config.Wrap(record.wrap)
	}
	return config
}

// exchange is one request and what was answered.
type exchange struct {
	method, path, accept, contentType string
	query                             map[string][]string
	status                            int
	answerType                        string
}

func (e exchange) isWatch() bool { return len(e.query["watch"]) > 0 }

func (e exchange) String() string {
	return fmt.Sprintf("%s %s %v -> %d %s", e.method, e.path, e.query, e.status, e.answerType)
}

// recorder keeps what clients asked, so that a test can tell the road that was taken from the one that it was to take.
type recorder struct {
	mutex     sync.Mutex
	exchanges []exchange
}

type recordingTransport struct {
	record *recorder
	next   http.RoundTripper
}

func (r *recorder) wrap(next http.RoundTripper) http.RoundTripper {
	return &recordingTransport{r, next}
}

func (t *recordingTransport) RoundTrip(request *http.Request) (*http.Response, error) {
	response, err := t.next.RoundTrip(request)
	e := exchange{
		method: request.Method, path: request.URL.Path, query: request.URL.Query(),
		accept: request.Header.Get("Accept"), contentType: request.Header.Get("Content-Type"),
	}
	if err == nil {
		e.status, e.answerType = response.StatusCode, response.Header.Get("Content-Type")
	}
	t.record.mutex.Lock()
	defer t.record.mutex.Unlock()
	t.record.exchanges = append(t.record.exchanges, e)
	return response, err
}

// of returns the exchanges whose path ends so.
func (r *recorder) of(suffix string) []exchange {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	var out []exchange
	for _, e := range r.exchanges {
		if strings.HasSuffix(e.path, suffix) {
			out = append(out, e)
		}
	}
	return out
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func want(t *testing.T, holds bool, format string, values ...any) {
	t.Helper()
	if !holds {
		t.Fatalf(format, values...)
	}
}

// refused checks that the error is the API's, with this reason and a message that contains the text.
func refused(t *testing.T, err error, reason metav1.StatusReason, text string) {
	t.Helper()
	if apierrors.ReasonForError(err) != reason || !strings.Contains(err.Error(), text) {
		t.Fatalf("wanted a refusal %q with %q, got %q: %v", reason, text, apierrors.ReasonForError(err), err)
	}
}

// soon waits until the condition holds. It is for states that no watch of the test reports.
func soon(t *testing.T, what string, condition func() (bool, string)) {
	t.Helper()
	until := time.Now().Add(soonMax)
	for {
		holds, seen := condition()
		if holds {
			return
		}
		if time.Now().After(until) {
			t.Fatalf("%s: not within %s; seen: %s", what, soonMax, seen)
		}
		time.Sleep(50 * time.Millisecond)
	}
}

func configMap(name string, data map[string]string) *corev1.ConfigMap {
	return &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{Name: name, Labels: map[string]string{"app": "conformance"}}, Data: data}
}
