package conformance

// What needs a node: a pod's way as an informer sees it, logs, exec and attach through WebSocket and through SPDY, port
// forwarding both ways, the proxy, ephemeral containers.

import (
	"bytes"
	"context"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/fields"
	"k8s.io/apimachinery/pkg/util/httpstream"
	"k8s.io/apimachinery/pkg/util/intstr"
	"k8s.io/client-go/kubernetes/scheme"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/portforward"
	"k8s.io/client-go/tools/remotecommand"
	"k8s.io/client-go/transport/spdy"
	utilexec "k8s.io/client-go/util/exec"
)

func image() string {
	if name := os.Getenv("CONFORMANCE_IMAGE"); name != "" {
		return name
	}
	return "localhost/copepod/web:1"
}

// listening holds when the image's web server answers.
func listening() *corev1.Probe {
	return &corev1.Probe{PeriodSeconds: 1, ProbeHandler: corev1.ProbeHandler{HTTPGet: &corev1.HTTPGetAction{Port: intstr.FromInt32(8080)}}}
}

// running makes a pod and waits, by watch, until its container is ready.
func running(t *testing.T, p *place, name string, container corev1.Container) *corev1.Pod {
	t.Helper()
	defaultAccount(t, p.ctx, p)
	container.Name, container.Image = "c", image()
	pods := p.client.CoreV1().Pods(p.namespace)
	made, err := pods.Create(p.ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name},
		Spec: corev1.PodSpec{TerminationGracePeriodSeconds: new(int64(0)), Containers: []corev1.Container{container}}}, metav1.CreateOptions{})
	must(t, err)
	w, err := pods.Watch(p.ctx, metav1.ListOptions{FieldSelector: fields.OneTermEqualSelector("metadata.name", name).String(), ResourceVersion: made.ResourceVersion})
	must(t, err)
	defer w.Stop()
	for event := range w.ResultChan() {
		if pod := event.Object.(*corev1.Pod); slices.ContainsFunc(pod.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.Ready }) {
			return pod
		}
	}
	t.Fatalf("%s never became ready", name)
	return nil
}

// TestPodLife follows a pod as controllers do.
func TestPodLife(t *testing.T) {
	need(t, "CONFORMANCE_NODE")
	t.Parallel()
	p := newPlace(t, protobuf)
	pods := p.client.CoreV1().Pods(p.namespace)
	var mutex sync.Mutex
	var phases []corev1.PodPhase
	play(t, []step{
		{"an informer sees it become Pending, Running, Succeeded", func(t *testing.T) {
			lists := cache.NewListWatchFromClient(p.client.CoreV1().RESTClient(), "pods", p.namespace, fields.Everything())
			_, informer := cache.NewInformerWithOptions(cache.InformerOptions{ListerWatcher: lists, ObjectType: &corev1.Pod{}, Handler: cache.ResourceEventHandlerFuncs{
				AddFunc: func(o any) { mutex.Lock(); defer mutex.Unlock(); phases = append(phases, o.(*corev1.Pod).Status.Phase) },
				UpdateFunc: func(_, o any) {
					mutex.Lock()
					defer mutex.Unlock()
					if phase := o.(*corev1.Pod).Status.Phase; phase != phases[len(phases)-1] {
						phases = append(phases, phase)
					}
				}}})
			go informer.RunWithContext(p.ctx)
			defaultAccount(t, p.ctx, p)
			_, err := pods.Create(p.ctx, &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Spec: corev1.PodSpec{RestartPolicy: corev1.RestartPolicyNever,
				Containers: []corev1.Container{{Name: "c", Image: image(), Command: []string{"sh", "-c", "echo one; echo two; sleep 1"}}}}}, metav1.CreateOptions{})
			must(t, err)
			soon(t, "its phases", func() (bool, string) {
				mutex.Lock()
				defer mutex.Unlock()
				return fmt.Sprint(phases) == "[Pending Running Succeeded]", fmt.Sprint(phases)
			})
		}},
		{"logs", func(t *testing.T) {
			stream, err := pods.GetLogs("p", &corev1.PodLogOptions{Follow: true, TailLines: new(int64(1))}).Stream(p.ctx)
			must(t, err)
			defer stream.Close()
			text, err := io.ReadAll(stream)
			must(t, err)
			want(t, string(text) == "two\n", "%q", text)
		}},
		{"a deleted pod is gone for its watcher", func(t *testing.T) {
			must(t, pods.Delete(p.ctx, "p", metav1.DeleteOptions{}))
			soon(t, "it is gone", func() (bool, string) {
				list, err := pods.List(p.ctx, metav1.ListOptions{})
				must(t, err)
				return len(list.Items) == 0, fmt.Sprintf("%d", len(list.Items))
			})
		}},
	})
}

// executors: both ways, each without the other as a way out.
var executors = map[string]func(*rest.Config, *url.URL) (remotecommand.Executor, error){
	"WebSocket": func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewWebSocketExecutor(c, http.MethodGet, u.String())
	},
	"SPDY": func(c *rest.Config, u *url.URL) (remotecommand.Executor, error) {
		return remotecommand.NewSPDYExecutor(c, http.MethodPost, u)
	},
}

// sizes is a terminal that is resized once.
type sizes struct{ left []remotecommand.TerminalSize }

func (s *sizes) Next() *remotecommand.TerminalSize {
	if len(s.left) == 0 {
		return nil
	}
	next := s.left[0]
	s.left = s.left[1:]
	return &next
}

// session runs a command in the pod, or attaches to it where there is none.
type session struct {
	p       *place
	way     string
	pod     string
	command []string
	stdin   io.Reader
	tty     bool
	sizes   remotecommand.TerminalSizeQueue
}

func (s session) run(t *testing.T) (stdout, stderr string, err error) {
	t.Helper()
	request := s.p.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(s.p.namespace).Name(s.pod)
	if s.command == nil {
		request = request.SubResource("attach").VersionedParams(&corev1.PodAttachOptions{Container: "c", Stdin: s.stdin != nil, Stdout: true, Stderr: !s.tty, TTY: s.tty}, scheme.ParameterCodec)
	} else {
		request = request.SubResource("exec").VersionedParams(&corev1.PodExecOptions{Container: "c", Command: s.command, Stdin: s.stdin != nil, Stdout: true, Stderr: !s.tty, TTY: s.tty}, scheme.ParameterCodec)
	}
	executor, err := executors[s.way](rest.CopyConfig(s.p.config), request.URL())
	must(t, err)
	ctx, cancel := context.WithTimeout(s.p.ctx, soonMax)
	defer cancel()
	var out, errs bytes.Buffer
	options := remotecommand.StreamOptions{Stdin: s.stdin, Stdout: &out, Tty: s.tty, TerminalSizeQueue: s.sizes}
	if !s.tty {
		options.Stderr = &errs
	}
	err = executor.StreamWithContext(ctx, options)
	return out.String(), errs.String(), err
}

func TestExecWebSocket(t *testing.T) {
	need(t, "CONFORMANCE_NODE")
	t.Parallel()
	execs(t, "WebSocket")
}
func TestExecSPDY(t *testing.T) { need(t, "CONFORMANCE_NODE"); t.Parallel(); execs(t, "SPDY") }

func execs(t *testing.T, way string) {
	p := newPlace(t, protobuf)
	run := func(t *testing.T, stdin io.Reader, command ...string) (string, string, error) {
		return session{p: p, way: way, pod: "p", command: command, stdin: stdin}.run(t)
	}
	play(t, []step{
		{"standard output and error are apart", func(t *testing.T) {
			running(t, p, "p", corev1.Container{Command: []string{"sleep", "1000"}})
			stdout, stderr, err := run(t, nil, "sh", "-c", "echo out; echo err >&2")
			must(t, err)
			want(t, stdout == "out\n" && stderr == "err\n", "%q, %q", stdout, stderr)
		}},
		{"the exit code", func(t *testing.T) {
			_, _, err := run(t, nil, "sh", "-c", "exit 42")
			var code utilexec.CodeExitError
			want(t, errors.As(err, &code) && code.Code == 42, "%v", err)
		}},
		{"no such program", func(t *testing.T) {
			_, _, err := run(t, nil, "/no/such/program")
			want(t, err != nil && strings.Contains(err.Error(), "no such file or directory"), "%v", err)
		}},
		{"standard input ends", func(t *testing.T) {
			stdout, _, err := run(t, strings.NewReader("through\n"), "cat")
			must(t, err)
			want(t, stdout == "through\n", "%q", stdout)
		}},
		{"megabytes both ways", func(t *testing.T) {
			data := make([]byte, 3_000_000)
			rand.Read(data)
			stdout, _, err := run(t, bytes.NewReader(data), "cat")
			must(t, err)
			want(t, sha256.Sum256([]byte(stdout)) == sha256.Sum256(data), "%d bytes came back", len(stdout))
		}},
		{"a terminal of a size", func(t *testing.T) {
			s := session{p: p, way: way, pod: "p", command: []string{"sh", "-c", "tty; sleep 0.5; stty size"}, tty: true,
				sizes: &sizes{[]remotecommand.TerminalSize{{Width: 81, Height: 25}, {Width: 132, Height: 43}}}}
			stdout, _, err := s.run(t)
			must(t, err)
			want(t, strings.HasPrefix(stdout, "/dev/pts/") && strings.Contains(stdout, "43 132"), "%q", stdout)
		}},
		{"no such container", func(t *testing.T) {
			_, _, err := session{p: p, way: way, pod: "missing", command: []string{"true"}}.run(t)
			want(t, err != nil && strings.Contains(err.Error(), `pods "missing" not found`), "%v", err)
		}},
		{"attach", func(t *testing.T) {
			running(t, p, "in", corev1.Container{Stdin: true, StdinOnce: true, Command: []string{"sh", "-c", "read x; echo got $x; read y; sleep 1; echo end"}})
			stdout, _, err := session{p: p, way: way, pod: "in", stdin: strings.NewReader("word\n")}.run(t)
			must(t, err)
			want(t, stdout == "got word\nend\n", "%q", stdout)
		}},
	})
}

// dialers: the SPDY connection of a port-forward, bare and tunnelled through a WebSocket.
var dialers = map[string]func(*rest.Config, *url.URL) (httpstream.Dialer, error){
	"WebSocket": func(c *rest.Config, u *url.URL) (httpstream.Dialer, error) {
		return portforward.NewSPDYOverWebsocketDialer(u, c)
	},
	"SPDY": func(c *rest.Config, u *url.URL) (httpstream.Dialer, error) {
		transport, upgrader, err := spdy.RoundTripperFor(c)
		return spdy.NewDialer(upgrader, &http.Client{Transport: transport}, http.MethodPost, u), err
	},
}

func TestPortForwardWebSocket(t *testing.T) {
	need(t, "CONFORMANCE_NODE")
	t.Parallel()
	forwards(t, "WebSocket")
}
func TestPortForwardSPDY(t *testing.T) {
	need(t, "CONFORMANCE_NODE")
	t.Parallel()
	forwards(t, "SPDY")
}

func forwards(t *testing.T, way string) {
	p := newPlace(t, protobuf)
	stop, ready := make(chan struct{}), make(chan struct{})
	var errs bytes.Buffer
	var base string
	ended := make(chan error, 1)
	get := func(t *testing.T, path string) (int, []byte, error) {
		client := &http.Client{Timeout: soonMax, Transport: &http.Transport{DisableKeepAlives: true}}
		response, err := client.Get(base + path)
		if err != nil {
			return 0, nil, err
		}
		defer response.Body.Close()
		body, err := io.ReadAll(response.Body)
		return response.StatusCode, body, err
	}
	play(t, []step{
		{"a port is forwarded", func(t *testing.T) {
			running(t, p, "p", corev1.Container{Command: []string{"sh", "-c", "head -c 2000000 /dev/zero >/www/zeros; exec httpd -f -p 8080 -h /www"},
				ReadinessProbe: listening()})
			request := p.client.CoreV1().RESTClient().Post().Resource("pods").Namespace(p.namespace).Name("p").SubResource("portforward")
			dialer, err := dialers[way](rest.CopyConfig(p.config), request.URL())
			must(t, err)
			forwarder, err := portforward.NewOnAddresses(dialer, []string{"127.0.0.1"}, []string{":8080", ":1"}, stop, ready, io.Discard, &errs)
			must(t, err)
			go func() { ended <- forwarder.ForwardPorts() }()
			select {
			case <-ready:
			case err := <-ended:
				t.Fatal(err)
			}
			ports, err := forwarder.GetPorts()
			must(t, err)
			base = fmt.Sprintf("http://127.0.0.1:%d", ports[0].Local)
			status, body, err := get(t, "/")
			must(t, err)
			want(t, status == 200 && strings.Contains(string(body), "It runs."), "%d %q", status, body)
		}},
		{"connections beside each other", func(t *testing.T) {
			var all sync.WaitGroup
			for range 8 {
				all.Go(func() {
					if status, body, err := get(t, "/zeros"); err != nil || status != 200 || len(body) != 2_000_000 {
						t.Errorf("%d, %d bytes: %v", status, len(body), err)
					}
				})
			}
			all.Wait()
		}},
		{"it ends when told", func(t *testing.T) {
			close(stop)
			select {
			case err := <-ended:
				must(t, err)
			case <-time.After(soonMax):
				t.Fatal("it did not end")
			}
		}},
	})
}

func TestPodProxyAndEphemeral(t *testing.T) {
	need(t, "CONFORMANCE_NODE")
	t.Parallel()
	p := newPlace(t, protobuf)
	pods := p.client.CoreV1().Pods(p.namespace)
	play(t, []step{
		{"the proxy of the API server", func(t *testing.T) {
			running(t, p, "p", corev1.Container{ReadinessProbe: listening()})
			body, err := pods.ProxyGet("http", "p", "8080", "/index.html", nil).DoRaw(p.ctx)
			must(t, err)
			want(t, strings.Contains(string(body), "It runs."), "%q", body)
		}},
		{"an ephemeral container", func(t *testing.T) {
			pod, err := pods.Get(p.ctx, "p", metav1.GetOptions{})
			must(t, err)
			pod.Spec.EphemeralContainers = []corev1.EphemeralContainer{{EphemeralContainerCommon: corev1.EphemeralContainerCommon{
				Name: "e", Image: image(), Command: []string{"sh", "-c", "wget -qO- http://127.0.0.1:8080/; sleep 1000"}}}}
			_, err = pods.UpdateEphemeralContainers(p.ctx, "p", pod, metav1.UpdateOptions{})
			must(t, err)
			soon(t, "it runs", func() (bool, string) {
				got, err := pods.Get(p.ctx, "p", metav1.GetOptions{})
				must(t, err)
				s := got.Status.EphemeralContainerStatuses
				return len(s) == 1 && s[0].State.Running != nil, fmt.Sprintf("%+v", s)
			})
			soon(t, "it says so", func() (bool, string) {
				body, err := pods.GetLogs("p", &corev1.PodLogOptions{Container: "e"}).DoRaw(p.ctx)
				return err == nil && strings.Contains(string(body), "It runs."), fmt.Sprintf("%q %v", body, err)
			})
		}},
	})
}
