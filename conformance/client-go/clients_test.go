package conformance

// What programs build on the typed clients: discovery, dynamic and metadata clients, events, retries, leader election.

import (
	"context"
	"encoding/json"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	appsv1 "k8s.io/api/apps/v1"
	coordinationv1 "k8s.io/api/coordination/v1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime/schema"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/util/wait"
	"k8s.io/apimachinery/pkg/watch"
	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/dynamic/dynamicinformer"
	"k8s.io/client-go/kubernetes/scheme"
	typedcorev1 "k8s.io/client-go/kubernetes/typed/core/v1"
	"k8s.io/client-go/metadata"
	"k8s.io/client-go/metadata/metadatainformer"
	"k8s.io/client-go/openapi3"
	"k8s.io/client-go/restmapper"
	"k8s.io/client-go/tools/cache"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
	"k8s.io/client-go/tools/record"
	"k8s.io/client-go/util/retry"
	"sigs.k8s.io/yaml"
)

var (
	configMaps  = schema.GroupVersionResource{Version: "v1", Resource: "configmaps"}
	deployments = schema.GroupVersionResource{Group: "apps", Version: "v1", Resource: "deployments"}
)

func TestDiscovery(t *testing.T) {
	t.Parallel()
	record := &recorder{}
	client, err := discovery.NewDiscoveryClientForConfig(clientConfig(t, jsonType, record))
	must(t, err)
	mapper := restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(client))
	play(t, []step{
		{"kind to resource", func(t *testing.T) {
			for kind, wanted := range map[schema.GroupVersionKind]schema.GroupVersionResource{
				{Group: "apps", Version: "v1", Kind: "Deployment"}:                               deployments,
				{Version: "v1", Kind: "Endpoints"}:                                               {Version: "v1", Resource: "endpoints"},
				{Group: "networking.k8s.io", Version: "v1", Kind: "NetworkPolicy"}:               {Group: "networking.k8s.io", Version: "v1", Resource: "networkpolicies"},
				{Group: "policy", Version: "v1", Kind: "PodDisruptionBudget"}:                    {Group: "policy", Version: "v1", Resource: "poddisruptionbudgets"},
				{Group: "rbac.authorization.k8s.io", Version: "v1", Kind: "ClusterRole"}:         {Group: "rbac.authorization.k8s.io", Version: "v1", Resource: "clusterroles"},
				{Group: "apiextensions.k8s.io", Version: "v1", Kind: "CustomResourceDefinition"}: {Group: "apiextensions.k8s.io", Version: "v1", Resource: "customresourcedefinitions"},
			} {
				mapping, err := mapper.RESTMapping(kind.GroupKind(), kind.Version)
				must(t, err)
				want(t, mapping.Resource == wanted, "%v: %v", kind, mapping.Resource)
				cluster := kind.Kind == "ClusterRole" || kind.Kind == "CustomResourceDefinition"
				want(t, (mapping.Scope.Name() == meta.RESTScopeNameRoot) == cluster, "%v: %v", kind, mapping.Scope.Name())
			}
			_, err := mapper.RESTMapping(schema.GroupKind{Group: "apps", Kind: "Nonsense"})
			want(t, meta.IsNoMatchError(err), "%v", err)
		}},
		{"it took one request for the core and one for the groups", func(t *testing.T) {
			for _, path := range []string{"/api", "/apis"} {
				asked := record.of(path)
				want(t, len(asked) == 1 && asked[0].answerType == "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList", "%v", asked)
			}
			want(t, len(record.of("/v1")) == 0, "%v", record.of("/v1"))
		}},
		{"short names", func(t *testing.T) {
			for short, wanted := range map[string]string{"deploy": "deployments", "cm": "configmaps", "po": "pods", "netpol": "networkpolicies", "sts": "statefulsets"} {
				got, err := restmapper.NewShortcutExpander(mapper, client, nil).ResourceFor(schema.GroupVersionResource{Resource: short})
				must(t, err)
				want(t, got.Resource == wanted, "%s: %v", short, got)
			}
		}},
		{"preferred resources", func(t *testing.T) {
			lists, err := client.ServerPreferredResources()
			must(t, err)
			total := 0
			for _, l := range lists {
				total += len(l.APIResources)
			}
			want(t, total > 50, "%d resources", total)
		}},
		{"version and health", func(t *testing.T) {
			version, err := client.ServerVersion()
			must(t, err)
			want(t, version.Major == "1" && version.Minor == "36", "%+v", version)
		}},
		{"OpenAPI v3 of a group", func(t *testing.T) {
			spec, err := openapi3.NewRoot(client.OpenAPIV3()).GVSpec(schema.GroupVersion{Group: "apps", Version: "v1"})
			must(t, err)
			want(t, spec.Components.Schemas["io.k8s.api.apps.v1.Deployment"] != nil && spec.Paths.Paths["/apis/apps/v1/namespaces/{namespace}/deployments/{name}/scale"] != nil, "incomplete")
		}},
		{"OpenAPI v2", func(t *testing.T) {
			document, err := client.OpenAPISchema()
			must(t, err)
			want(t, len(document.Definitions.AdditionalProperties) > 500, "%d definitions", len(document.Definitions.AdditionalProperties))
			// It comes in protobuf, and says the same as the document in JSON.
			text, err := document.YAMLValue("")
			must(t, err)
			var got, wanted any
			must(t, yaml.Unmarshal(text, &got))
			plain, err := client.RESTClient().Get().AbsPath("/openapi/v2").SetHeader("Accept", jsonType).Do(t.Context()).Raw()
			must(t, err)
			must(t, json.Unmarshal(plain, &wanted))
			alike(t, "", got, wanted)
		}},
	})
}

// alike compares two documents and names the first place where they differ. What is empty or false is nothing.
func alike(t *testing.T, at string, got, wanted any) {
	t.Helper()
	switch wanted := wanted.(type) {
	case map[string]any:
		got, _ := got.(map[string]any)
		for key := range got {
			want(t, wanted[key] != nil, "%s.%s: is there in protobuf only", at, key)
		}
		for key, value := range wanted {
			if value != "" && value != false {
				alike(t, at+"."+key, got[key], value)
			}
		}
	case []any:
		got, _ := got.([]any)
		want(t, len(got) == len(wanted), "%s: %d elements, %d", at, len(got), len(wanted))
		for i := range wanted {
			alike(t, fmt.Sprintf("%s[%d]", at, i), got[i], wanted[i])
		}
	default:
		want(t, fmt.Sprint(got) == fmt.Sprint(wanted), "%s: %v, %v", at, got, wanted)
	}
}

func TestDynamic(t *testing.T) {
	t.Parallel()
	p := newPlace(t, jsonType)
	client := dynamic.NewForConfigOrDie(p.config).Resource(deployments).Namespace(p.namespace)
	object := func(name string, replicas int64) *unstructured.Unstructured {
		return &unstructured.Unstructured{Object: map[string]any{"apiVersion": "apps/v1", "kind": "Deployment", "metadata": map[string]any{"name": name},
			"spec": map[string]any{"replicas": replicas, "selector": map[string]any{"matchLabels": map[string]any{"a": "b"}},
				"template": map[string]any{"metadata": map[string]any{"labels": map[string]any{"a": "b"}},
					"spec": map[string]any{"schedulerName": "nobody", "containers": []any{map[string]any{"name": "c", "image": "x"}}}}}}}
	}
	play(t, []step{
		{"create, defaulted", func(t *testing.T) {
			got, err := client.Create(p.ctx, object("d", 0), metav1.CreateOptions{})
			must(t, err)
			strategy, _, _ := unstructured.NestedString(got.Object, "spec", "strategy", "type")
			want(t, strategy == "RollingUpdate" && got.GetKind() == "Deployment", "%v", got.Object)
		}},
		{"an unknown field is refused when asked", func(t *testing.T) {
			wrong := object("w", 0)
			must(t, unstructured.SetNestedField(wrong.Object, "x", "spec", "nonsense"))
			_, err := client.Create(p.ctx, wrong, metav1.CreateOptions{FieldValidation: metav1.FieldValidationStrict})
			refused(t, err, metav1.StatusReasonBadRequest, `unknown field "spec.nonsense"`)
		}},
		{"apply and scale", func(t *testing.T) {
			_, err := client.Apply(p.ctx, "applied", object("applied", 0), metav1.ApplyOptions{FieldManager: "dynamic"})
			must(t, err)
			scale, err := client.Get(p.ctx, "applied", metav1.GetOptions{}, "scale")
			must(t, err)
			want(t, scale.GetKind() == "Scale" && scale.GetAPIVersion() == "autoscaling/v1", "%v", scale.Object)
		}},
		{"an informer by stream", func(t *testing.T) {
			before := len(p.record.of("/deployments"))
			factory := dynamicinformer.NewFilteredDynamicSharedInformerFactory(dynamic.NewForConfigOrDie(p.config), 0, p.namespace, nil)
			informer := factory.ForResource(deployments).Informer()
			factory.Start(p.ctx.Done())
			want(t, cache.WaitForCacheSync(p.ctx.Done(), informer.HasSynced), "never in sync")
			want(t, len(informer.GetStore().List()) == 2, "%d", len(informer.GetStore().List()))
			asked := p.record.of("/deployments")[before:]
			want(t, len(asked) == 1 && asked[0].query["sendInitialEvents"] != nil && asked[0].status == 200, "%v", asked)
		}},
		{"a list of items with their kinds", func(t *testing.T) {
			list, err := client.List(p.ctx, metav1.ListOptions{})
			must(t, err)
			want(t, len(list.Items) == 2 && list.GetKind() == "DeploymentList" && list.Items[0].GetKind() == "Deployment", "%v", list.Object)
		}},
		{"deletecollection", func(t *testing.T) {
			must(t, client.DeleteCollection(p.ctx, metav1.DeleteOptions{}, metav1.ListOptions{}))
			list, err := client.List(p.ctx, metav1.ListOptions{})
			must(t, err)
			want(t, len(list.Items) == 0, "%v", list.Items)
		}},
	})
}

func TestMetadata(t *testing.T) {
	t.Parallel()
	p := newPlace(t, protobuf)
	all := metadata.NewForConfigOrDie(p.config)
	client := all.Resource(configMaps).Namespace(p.namespace)
	play(t, []step{
		{"get and list have metadata only, as protobuf", func(t *testing.T) {
			fill(t, p, 5)
			before := len(p.record.of(""))
			got, err := client.Get(p.ctx, "m00", metav1.GetOptions{})
			must(t, err)
			want(t, got.UID != "" && got.Labels["app"] == "conformance", "%+v", got)
			list, err := client.List(p.ctx, metav1.ListOptions{LabelSelector: paged, Limit: 3})
			must(t, err)
			want(t, len(list.Items) == 3 && list.Continue != "", "%+v", list.ListMeta)
			for i, e := range p.record.of("")[before:] {
				wanted := protobuf + ";as=" + []string{"PartialObjectMetadata", "PartialObjectMetadataList"}[i] + ";g=meta.k8s.io;v=v1"
				want(t, strings.HasPrefix(e.accept, wanted) && e.answerType == protobuf, "asked %s: %s", e.accept, e)
			}
		}},
		{"watch", func(t *testing.T) {
			w, err := client.Watch(p.ctx, metav1.ListOptions{ResourceVersion: "0", LabelSelector: paged})
			must(t, err)
			defer w.Stop()
			event := <-w.ResultChan()
			m, is := event.Object.(*metav1.PartialObjectMetadata)
			want(t, is && event.Type == watch.Added && m.Name != "" && m.UID != "", "%+v", event)
		}},
		{"an informer by stream", func(t *testing.T) {
			before := len(p.record.of("/configmaps"))
			factory := metadatainformer.NewFilteredSharedInformerFactory(all, 0, p.namespace, onlyConformance)
			informer := factory.ForResource(configMaps).Informer()
			factory.Start(p.ctx.Done())
			want(t, cache.WaitForCacheSync(p.ctx.Done(), informer.HasSynced), "never in sync")
			want(t, len(informer.GetStore().List()) == 5, "%d", len(informer.GetStore().List()))
			asked := p.record.of("/configmaps")[before:]
			want(t, len(asked) == 1 && asked[0].query["sendInitialEvents"] != nil && asked[0].status == 200, "%v", asked)
		}},
		{"patch and delete", func(t *testing.T) {
			got, err := client.Patch(p.ctx, "m01", types.MergePatchType, []byte(`{"metadata":{"labels":{"new":"label"}}}`), metav1.PatchOptions{})
			must(t, err)
			want(t, got.Labels["new"] == "label", "%+v", got)
			must(t, client.DeleteCollection(p.ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "new"}))
			_, err = client.Get(p.ctx, "m01", metav1.GetOptions{})
			refused(t, err, metav1.StatusReasonNotFound, "")
		}},
	})
}

func TestRetryOnConflict(t *testing.T) {
	t.Parallel()
	const writers, each = 8, 10
	p := newPlace(t, protobuf)
	maps := p.client.CoreV1().ConfigMaps(p.namespace)
	play(t, []step{{"no increment of concurrent writers is lost", func(t *testing.T) {
		_, err := maps.Create(p.ctx, configMap("counter", map[string]string{"n": "0"}), metav1.CreateOptions{})
		must(t, err)
		backoff := wait.Backoff{Duration: 5 * time.Millisecond, Factor: 1, Jitter: 1, Steps: 1000}
		var failures, tries atomic.Int32
		var all sync.WaitGroup
		for range writers {
			all.Go(func() {
				for range each {
					err := retry.RetryOnConflict(backoff, func() error {
						tries.Add(1)
						m, err := maps.Get(p.ctx, "counter", metav1.GetOptions{})
						if err != nil {
							return err
						}
						var n int
						fmt.Sscan(m.Data["n"], &n)
						m.Data["n"] = fmt.Sprint(n + 1)
						_, err = maps.Update(p.ctx, m, metav1.UpdateOptions{})
						return err
					})
					if err != nil {
						failures.Add(1)
						t.Log(err)
					}
				}
			})
		}
		all.Wait()
		m, err := maps.Get(p.ctx, "counter", metav1.GetOptions{})
		must(t, err)
		want(t, failures.Load() == 0 && m.Data["n"] == fmt.Sprint(writers*each), "%s counted, %d failures", m.Data["n"], failures.Load())
		t.Logf("%d tries for %d increments", tries.Load(), writers*each)
	}}})
}

func TestEvents(t *testing.T) {
	t.Parallel()
	p := newPlace(t, protobuf)
	play(t, []step{{"the same event many times is one object that counts", func(t *testing.T) {
		m, err := p.client.CoreV1().ConfigMaps(p.namespace).Create(p.ctx, configMap("subject", nil), metav1.CreateOptions{})
		must(t, err)
		broadcaster := record.NewBroadcaster(record.WithContext(p.ctx))
		defer broadcaster.Shutdown()
		broadcaster.StartRecordingToSink(&typedcorev1.EventSinkImpl{Interface: p.client.CoreV1().Events(p.namespace)})
		recorder := broadcaster.NewRecorder(scheme.Scheme, corev1.EventSource{Component: "conformance"})
		for range 5 {
			recorder.Event(m, corev1.EventTypeWarning, "Tested", "it was tested")
		}
		soon(t, "the count", func() (bool, string) {
			list, err := p.client.CoreV1().Events(p.namespace).List(p.ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=subject,reason=Tested,type=Warning"})
			must(t, err)
			return len(list.Items) == 1 && list.Items[0].Count == 5 && list.Items[0].InvolvedObject.UID == m.UID, fmt.Sprintf("%+v", list.Items)
		})
		newer, err := p.client.EventsV1().Events(p.namespace).List(p.ctx, metav1.ListOptions{})
		must(t, err)
		want(t, len(newer.Items) == 1 && newer.Items[0].Note == "it was tested" && newer.Items[0].DeprecatedCount == 5, "%+v", newer.Items)
	}}})
}

// candidate runs for leader until it is stopped. Stopped without release it is as one that was killed: its lease runs out.
type candidate struct {
	stop         context.CancelFunc
	leads, ended chan struct{}
}

func run(t *testing.T, p *place, name string, release bool, leading *atomic.Int32) *candidate {
	ctx, stop := context.WithCancel(p.ctx)
	t.Cleanup(stop)
	c := &candidate{stop: stop, leads: make(chan struct{}), ended: make(chan struct{})}
	lock := &resourcelock.LeaseLock{LeaseMeta: metav1.ObjectMeta{Namespace: p.namespace, Name: "leader"},
		Client: p.client.CoordinationV1(), LockConfig: resourcelock.ResourceLockConfig{Identity: name}}
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock: lock, LeaseDuration: 3 * time.Second, RenewDeadline: 2 * time.Second, RetryPeriod: 250 * time.Millisecond, ReleaseOnCancel: release, Name: name,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) {
				if leading.Add(1) != 1 {
					t.Errorf("%s leads beside another", name)
				}
				close(c.leads)
			},
			OnStoppedLeading: func() {},
		}})
	must(t, err)
	go func() { defer close(c.ended); elector.Run(ctx) }()
	return c
}

func (c *candidate) wait(t *testing.T, p *place, channel chan struct{}, what string) {
	t.Helper()
	select {
	case <-channel:
	case <-p.ctx.Done():
		t.Fatalf("never: %s", what)
	}
}

func TestLeaderElection(t *testing.T) {
	t.Parallel()
	whole := t // candidates outlive the case that starts them
	p := newPlace(t, protobuf)
	var leading atomic.Int32
	var first, second *candidate
	lease := func(t *testing.T) coordinationv1.LeaseSpec {
		got, err := p.client.CoordinationV1().Leases(p.namespace).Get(p.ctx, "leader", metav1.GetOptions{})
		must(t, err)
		return got.Spec
	}
	play(t, []step{
		{"one of two leads", func(t *testing.T) {
			first = run(whole, p, "first", false, &leading)
			first.wait(t, p, first.leads, "the first leads")
			second = run(whole, p, "second", true, &leading)
			time.Sleep(time.Second)
			s := lease(t)
			want(t, *s.HolderIdentity == "first" && *s.LeaseTransitions == 0 && leading.Load() == 1, "%+v", s)
		}},
		{"it is killed, the other takes over when its lease has run out", func(t *testing.T) {
			first.stop()
			first.wait(t, p, first.ended, "the first ends")
			leading.Store(0)
			killed := time.Now()
			second.wait(t, p, second.leads, "the second leads")
			took := time.Since(killed)
			s := lease(t)
			want(t, *s.HolderIdentity == "second" && *s.LeaseTransitions == 1 && took > 2*time.Second, "after %s: %+v", took, s)
		}},
		{"who lets go is followed at once", func(t *testing.T) {
			third := run(whole, p, "third", false, &leading)
			leading.Store(0)
			second.stop()
			third.wait(t, p, third.leads, "the third leads")
			want(t, *lease(t).HolderIdentity == "third", "%+v", lease(t))
		}},
	})
}

func TestOwnersAndFinalizers(t *testing.T) {
	t.Parallel()
	p := newPlace(t, jsonType)
	play(t, []step{{"foreground deletion waits for its dependents", func(t *testing.T) {
		sets := p.client.AppsV1().ReplicaSets(p.namespace)
		pod := unscheduled("")
		pod.Labels = map[string]string{"a": "b"}
		_, err := sets.Create(p.ctx, &appsv1.ReplicaSet{ObjectMeta: metav1.ObjectMeta{Name: "r", Finalizers: []string{"conformance.copepod.dev/hold"}}, Spec: appsv1.ReplicaSetSpec{
			Replicas: new(int32(0)), Selector: &metav1.LabelSelector{MatchLabels: pod.Labels}, Template: corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec}}}, metav1.CreateOptions{})
		must(t, err)
		foreground := metav1.DeletePropagationForeground
		must(t, sets.Delete(p.ctx, "r", metav1.DeleteOptions{PropagationPolicy: &foreground}))
		got, err := sets.Get(p.ctx, "r", metav1.GetOptions{})
		must(t, err)
		want(t, got.DeletionTimestamp != nil && len(got.Finalizers) >= 1, "%+v", got.ObjectMeta)
		_, err = sets.Patch(p.ctx, "r", types.MergePatchType, []byte(`{"metadata":{"finalizers":null}}`), metav1.PatchOptions{})
		must(t, err)
		_, err = sets.Get(p.ctx, "r", metav1.GetOptions{})
		refused(t, err, metav1.StatusReasonNotFound, "")
	}}})
}
