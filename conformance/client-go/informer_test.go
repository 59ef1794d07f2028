package conformance

// Informers. Since 1.35 a reflector gets its initial state as a stream of a watch; it falls back to a list silently, so
// the record of requests is what tells which road was taken.

import (
	"context"
	"fmt"
	"os/exec"
	"sync"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	clientfeatures "k8s.io/client-go/features"
	clientfeaturestesting "k8s.io/client-go/features/testing"
	"k8s.io/client-go/informers"
	"k8s.io/client-go/tools/cache"
	toolswatch "k8s.io/client-go/tools/watch"
)

// ledger counts what the handlers of an informer were told, by uid.
type ledger struct {
	mutex                    sync.Mutex
	added, updated, deleted  map[types.UID]int
	initial                  int
	last                     map[types.UID]string
	backwards, beforeDeleted []string
}

func newLedger() *ledger {
	return &ledger{added: map[types.UID]int{}, updated: map[types.UID]int{}, deleted: map[types.UID]int{}, last: map[types.UID]string{}}
}

func (l *ledger) handler() cache.ResourceEventHandlerDetailedFuncs {
	locked := func(do func()) { l.mutex.Lock(); defer l.mutex.Unlock(); do() }
	return cache.ResourceEventHandlerDetailedFuncs{
		AddFunc: func(object any, initial bool) {
			locked(func() {
				m := object.(*corev1.ConfigMap)
				l.added[m.UID]++
				l.last[m.UID] = m.ResourceVersion
				if initial {
					l.initial++
				}
			})
		},
		UpdateFunc: func(before, after any) {
			locked(func() {
				m := after.(*corev1.ConfigMap)
				// After a relist an informer tells all objects again, as they are.
				if before.(*corev1.ConfigMap).ResourceVersion == m.ResourceVersion {
					return
				}
				l.updated[m.UID]++
				if older(m.ResourceVersion, l.last[m.UID]) {
					l.backwards = append(l.backwards, m.Name)
				}
				l.last[m.UID] = m.ResourceVersion
			})
		},
		DeleteFunc: func(object any) {
			locked(func() {
				if unknown, is := object.(cache.DeletedFinalStateUnknown); is {
					object = unknown.Obj
				}
				l.deleted[object.(*corev1.ConfigMap).UID]++
			})
		},
	}
}

func older(a, b string) bool { return len(a) < len(b) || len(a) == len(b) && a < b }

// once checks that each of the objects was told once, and says how many there are.
func once(t *testing.T, what string, told map[types.UID]int) int {
	t.Helper()
	for uid, times := range told {
		want(t, times == 1, "%s was told %d times of %s", what, times, uid)
	}
	return len(told)
}

func onlyConformance(o *metav1.ListOptions) { o.LabelSelector = paged }

func TestInformerJSON(t *testing.T)     { t.Parallel(); sharedInformer(t, jsonType) }
func TestInformerProtobuf(t *testing.T) { t.Parallel(); sharedInformer(t, protobuf) }

func sharedInformer(t *testing.T, mediaType string) {
	p := newPlace(t, mediaType)
	maps := p.client.CoreV1().ConfigMaps(p.namespace)
	factory := informers.NewSharedInformerFactoryWithOptions(p.client, 0, informers.WithNamespace(p.namespace), informers.WithTweakListOptions(onlyConformance))
	informer, told := factory.Core().V1().ConfigMaps().Informer(), newLedger()
	before := 0
	play(t, []step{
		{"the initial state is told", func(t *testing.T) {
			fill(t, p, 20)
			// What creates asked is not what the informer asks.
			before = len(p.record.of("/configmaps"))
			must(t, informer.AddIndexers(cache.Indexers{"first": func(object any) ([]string, error) {
				return []string{object.(*corev1.ConfigMap).Name[:2]}, nil
			}}))
			registered, err := informer.AddEventHandler(told.handler())
			must(t, err)
			factory.Start(p.ctx.Done())
			want(t, cache.WaitForCacheSync(p.ctx.Done(), informer.HasSynced, registered.HasSynced), "never in sync")
			want(t, once(t, "an object", told.added) == 20 && told.initial == 20, "%d told, %d as initial", len(told.added), told.initial)
		}},
		{"it came as a stream", func(t *testing.T) {
			asked := p.record.of("/configmaps")[before:]
			want(t, len(asked) == 1, "%v", asked)
			e := asked[0]
			want(t, e.isWatch() && e.status == 200 && e.query["sendInitialEvents"][0] == "true" &&
				e.query["resourceVersionMatch"][0] == "NotOlderThan" && e.query["allowWatchBookmarks"][0] == "true", "%s", e)
		}},
		{"what changes is told", func(t *testing.T) {
			for i := range 10 {
				_, err := maps.Create(p.ctx, configMap(fmt.Sprintf("n%02d", i), nil), metav1.CreateOptions{})
				must(t, err)
				_, err = maps.Patch(p.ctx, fmt.Sprintf("m%02d", i), types.MergePatchType, []byte(`{"data":{"k":"v"}}`), metav1.PatchOptions{})
				must(t, err)
				must(t, maps.Delete(p.ctx, fmt.Sprintf("m%02d", 10+i), metav1.DeleteOptions{}))
			}
			soon(t, "the events", func() (bool, string) {
				told.mutex.Lock()
				defer told.mutex.Unlock()
				seen := fmt.Sprintf("%d added, %d updated, %d deleted", len(told.added), len(told.updated), len(told.deleted))
				return seen == "30 added, 10 updated, 10 deleted", seen
			})
			once(t, "an addition", told.added)
			once(t, "an update", told.updated)
			once(t, "a deletion", told.deleted)
		}},
		{"lister and index show the state", func(t *testing.T) {
			m, err := factory.Core().V1().ConfigMaps().Lister().ConfigMaps(p.namespace).Get("m00")
			must(t, err)
			want(t, m.Data["k"] == "v", "%+v", m)
			n0, err := informer.GetIndexer().ByIndex("first", "n0")
			must(t, err)
			want(t, len(n0) == 10 && len(informer.GetStore().List()) == 20, "%d, %d", len(n0), len(informer.GetStore().List()))
		}},
		{"nothing fell back to a list", func(t *testing.T) {
			for _, e := range p.record.of("/configmaps")[before:] {
				want(t, e.method != "GET" || e.isWatch(), "%s", e)
			}
		}},
	})
}

// The reflector's older road, which clients before 1.35 take: list, then watch. Not parallel: the gate is global.
func TestInformerWithoutStream(t *testing.T) {
	clientfeaturestesting.SetFeatureDuringTest(t, clientfeatures.WatchListClient, false)
	p := newPlace(t, protobuf)
	play(t, []step{{"list, then watch", func(t *testing.T) {
		fill(t, p, 5)
		before := len(p.record.of("/configmaps"))
		factory := informers.NewSharedInformerFactoryWithOptions(p.client, 0, informers.WithNamespace(p.namespace), informers.WithTweakListOptions(onlyConformance))
		informer := factory.Core().V1().ConfigMaps().Informer()
		factory.Start(p.ctx.Done())
		want(t, cache.WaitForCacheSync(p.ctx.Done(), informer.HasSynced), "never in sync")
		want(t, len(informer.GetStore().List()) == 5, "%d", len(informer.GetStore().List()))
		soon(t, "the watch", func() (bool, string) {
			asked := p.record.of("/configmaps")[before:]
			return len(asked) == 2 && !asked[0].isWatch() && asked[0].query["resourceVersion"][0] == "0" &&
				asked[1].isWatch() && asked[1].query["sendInitialEvents"] == nil, fmt.Sprint(asked)
		})
	}}})
}

func TestWatchList(t *testing.T) {
	t.Parallel()
	p := newPlace(t, protobuf)
	maps := p.client.CoreV1().ConfigMaps(p.namespace)
	options := metav1.ListOptions{
		LabelSelector: paged, AllowWatchBookmarks: true, SendInitialEvents: new(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan,
	}
	play(t, []step{
		{"objects, the bookmark that ends them, then changes", func(t *testing.T) {
			fill(t, p, 3)
			w, err := maps.Watch(p.ctx, options)
			must(t, err)
			defer w.Stop()
			names := map[string]bool{}
			for range 3 {
				event := <-w.ResultChan()
				want(t, event.Type == watch.Added, "%+v", event)
				names[event.Object.(*corev1.ConfigMap).Name] = true
			}
			want(t, names["m00"] && names["m01"] && names["m02"], "%v", names)
			event := <-w.ResultChan()
			want(t, event.Type == watch.Bookmark, "%+v", event)
			bookmark := event.Object.(*corev1.ConfigMap)
			want(t, bookmark.Annotations[metav1.InitialEventsAnnotationKey] == "true" && bookmark.ResourceVersion != "" && bookmark.Name == "", "%+v", bookmark)
			after, err := maps.Create(p.ctx, configMap("after", nil), metav1.CreateOptions{})
			must(t, err)
			event = <-w.ResultChan()
			want(t, event.Type == watch.Added && event.Object.(*corev1.ConfigMap).UID == after.UID && older(bookmark.ResourceVersion, after.ResourceVersion), "%+v", event)
		}},
		{"of nothing comes the bookmark at once", func(t *testing.T) {
			nothing := options
			nothing.LabelSelector = "nobody=has"
			w, err := maps.Watch(p.ctx, nothing)
			must(t, err)
			defer w.Stop()
			event := <-w.ResultChan()
			want(t, event.Type == watch.Bookmark && event.Object.(*corev1.ConfigMap).Annotations[metav1.InitialEventsAnnotationKey] == "true", "%+v", event)
		}},
		{"without resourceVersionMatch it is refused", func(t *testing.T) {
			_, err := maps.Watch(p.ctx, metav1.ListOptions{SendInitialEvents: new(true), AllowWatchBookmarks: true})
			refused(t, err, metav1.StatusReasonInvalid, "resourceVersionMatch: Forbidden: sendInitialEvents requires setting resourceVersionMatch to NotOlderThan")
		}},
		{"on a list it is refused", func(t *testing.T) {
			_, err := maps.List(p.ctx, metav1.ListOptions{SendInitialEvents: new(true), ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
			refused(t, err, metav1.StatusReasonInvalid, "sendInitialEvents: Forbidden: sendInitialEvents is forbidden for list")
		}},
		{"UntilWithSync", func(t *testing.T) {
			lists := &cache.ListWatch{
				ListWithContextFunc:  func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) { return maps.List(ctx, o) },
				WatchFuncWithContext: func(ctx context.Context, o metav1.ListOptions) (watch.Interface, error) { return maps.Watch(ctx, o) },
			}
			event, err := toolswatch.UntilWithSync(p.ctx, lists, &corev1.ConfigMap{}, nil, func(e watch.Event) (bool, error) {
				return e.Object.(*corev1.ConfigMap).Name == "after", nil
			})
			must(t, err)
			want(t, event.Type == watch.Added, "%+v", event)
		}},
	})
}

// TestRestart kills the server under an informer and a writer: what was acknowledged is there, and the informer has told
// each object once. Not parallel: the server that is killed is everybody's.
func TestRestart(t *testing.T) {
	restart := need(t, "CONFORMANCE_RESTART")
	p := newPlace(t, protobuf)
	maps := p.client.CoreV1().ConfigMaps(p.namespace)
	factory := informers.NewSharedInformerFactoryWithOptions(p.client, 0, informers.WithNamespace(p.namespace), informers.WithTweakListOptions(onlyConformance))
	informer, told := factory.Core().V1().ConfigMaps().Informer(), newLedger()
	acknowledged := map[types.UID]string{}
	gone := map[types.UID]bool{}
	play(t, []step{
		{"an informer before", func(t *testing.T) {
			fill(t, p, 10)
			_, err := informer.AddEventHandler(told.handler())
			must(t, err)
			factory.Start(p.ctx.Done())
			want(t, cache.WaitForCacheSync(p.ctx.Done(), informer.HasSynced), "never in sync")
		}},
		{"writes while the server dies twice", func(t *testing.T) {
			stop, stopped := context.WithCancel(p.ctx)
			done := make(chan struct{})
			go func() {
				defer close(done)
				writeUntil(stop, p, acknowledged, gone)
			}()
			for range 2 {
				time.Sleep(300 * time.Millisecond)
				output, err := exec.CommandContext(p.ctx, "sh", "-c", restart).CombinedOutput()
				want(t, err == nil, "%v: %s", err, output)
				time.Sleep(700 * time.Millisecond)
			}
			stopped()
			<-done
			want(t, len(acknowledged) > 10, "only %d writes were acknowledged", len(acknowledged))
			t.Logf("%d creates acknowledged, %d deletes", len(acknowledged), len(gone))
		}},
		{"the informer shows what the server has, each told once", func(t *testing.T) {
			soon(t, "the same state", func() (bool, string) {
				list, err := maps.List(p.ctx, metav1.ListOptions{LabelSelector: paged})
				if err != nil {
					return false, err.Error()
				}
				missing := 0
				for _, m := range list.Items {
					held, there, _ := informer.GetStore().GetByKey(m.Namespace + "/" + m.Name)
					if !there || held.(*corev1.ConfigMap).ResourceVersion != m.ResourceVersion {
						missing++
					}
				}
				held := len(informer.GetStore().ListKeys())
				return missing == 0 && held == len(list.Items), fmt.Sprintf("%d objects, %d held, %d missing", len(list.Items), held, missing)
			})
			told.mutex.Lock()
			defer told.mutex.Unlock()
			once(t, "an addition", told.added)
			once(t, "a deletion", told.deleted)
			want(t, len(told.backwards) == 0, "told backwards: %v", told.backwards)
		}},
		{"no acknowledged write is lost", func(t *testing.T) {
			list, err := maps.List(p.ctx, metav1.ListOptions{LabelSelector: paged})
			must(t, err)
			there := map[types.UID]bool{}
			for _, m := range list.Items {
				there[m.UID] = true
			}
			for uid, name := range acknowledged {
				want(t, there[uid] != gone[uid], "%s: deleted %v, there %v", name, gone[uid], there[uid])
			}
		}},
	})
}

// writeUntil creates objects and deletes every third again, noting what was acknowledged.
func writeUntil(ctx context.Context, p *place, acknowledged map[types.UID]string, gone map[types.UID]bool) {
	maps := p.client.CoreV1().ConfigMaps(p.namespace)
	for i := 0; ctx.Err() == nil; i++ {
		m, err := maps.Create(p.ctx, configMap(fmt.Sprintf("w%05d", i), nil), metav1.CreateOptions{})
		if err != nil {
			time.Sleep(20 * time.Millisecond) // the server is away
			continue
		}
		acknowledged[m.UID] = m.Name
		if i%3 != 0 {
			continue
		}
		switch err := maps.Delete(p.ctx, m.Name, metav1.DeleteOptions{}); {
		case err == nil || apierrors.IsNotFound(err):
			gone[m.UID] = true
		default:
			delete(acknowledged, m.UID) // nobody knows whether it is there
		}
	}
}
