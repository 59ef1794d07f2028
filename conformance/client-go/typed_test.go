package conformance

// Typed clients: every verb, in JSON and in protobuf.

import (
	"context"
	"fmt"
	"strings"
	"testing"

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	policyv1 "k8s.io/api/policy/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/apimachinery/pkg/watch"
	corev1apply "k8s.io/client-go/applyconfigurations/core/v1"
)

func TestTypedJSON(t *testing.T)     { t.Parallel(); typed(t, jsonType) }
func TestTypedProtobuf(t *testing.T) { t.Parallel(); typed(t, protobuf) }

func typed(t *testing.T, mediaType string) {
	p := newPlace(t, mediaType)
	play(t, crud(p))
	play(t, patches(p))
	play(t, deletions(p))
	play(t, subresources(p))
	play(t, []step{
		{"every answer came in the form asked for", func(t *testing.T) {
			for _, e := range p.record.of("") {
				want(t, strings.HasPrefix(e.answerType, mediaType), "%s", e)
			}
		}},
		{"a watch is framed in that form", func(t *testing.T) {
			watches := 0
			for _, e := range p.record.of("/configmaps") {
				if !e.isWatch() {
					continue
				}
				watches++
				// JSON frames come as plain JSON; protobuf frames say that they are a stream.
				want(t, mediaType == jsonType || e.answerType == protobuf+";stream=watch", "%s", e)
			}
			want(t, watches > 0, "no watch was recorded")
		}},
	})
}

func crud(p *place) []step {
	ctx, maps := p.ctx, p.client.CoreV1().ConfigMaps(p.namespace)
	var made *corev1.ConfigMap
	return []step{
		{"create fills in", func(t *testing.T) {
			var err error
			made, err = maps.Create(ctx, configMap("a", map[string]string{"k": "1"}), metav1.CreateOptions{})
			must(t, err)
			want(t, made.UID != "" && made.ResourceVersion != "" && !made.CreationTimestamp.IsZero(), "%+v", made.ObjectMeta)
			want(t, len(made.ManagedFields) == 1 && made.ManagedFields[0].Manager == "copepod-conformance", "%+v", made.ManagedFields)
		}},
		{"create again is refused", func(t *testing.T) {
			_, err := maps.Create(ctx, configMap("a", nil), metav1.CreateOptions{})
			refused(t, err, metav1.StatusReasonAlreadyExists, `configmaps "a" already exists`)
		}},
		{"create with generateName", func(t *testing.T) {
			m, err := maps.Create(ctx, &corev1.ConfigMap{ObjectMeta: metav1.ObjectMeta{GenerateName: "gen-"}}, metav1.CreateOptions{})
			must(t, err)
			want(t, strings.HasPrefix(m.Name, "gen-") && len(m.Name) == len("gen-")+5, "%s", m.Name)
			must(t, maps.Delete(ctx, m.Name, metav1.DeleteOptions{}))
		}},
		{"create of nonsense is refused with causes", func(t *testing.T) {
			_, err := maps.Create(ctx, configMap("A_B", map[string]string{"bad key": "x"}), metav1.CreateOptions{})
			refused(t, err, metav1.StatusReasonInvalid, "data[bad key]: Invalid value")
			status := err.(apierrors.APIStatus).Status()
			want(t, len(status.Details.Causes) == 2 && status.Code == 422, "%+v", status)
		}},
		{"a dry run leaves nothing", func(t *testing.T) {
			_, err := maps.Create(ctx, configMap("dry", nil), metav1.CreateOptions{DryRun: []string{metav1.DryRunAll}})
			must(t, err)
			_, err = maps.Get(ctx, "dry", metav1.GetOptions{})
			refused(t, err, metav1.StatusReasonNotFound, `configmaps "dry" not found`)
		}},
		{"get", func(t *testing.T) {
			got, err := maps.Get(ctx, "a", metav1.GetOptions{})
			must(t, err)
			want(t, got.UID == made.UID && got.ResourceVersion == made.ResourceVersion && got.Data["k"] == "1", "%+v", got)
		}},
		{"list by labels and fields", func(t *testing.T) {
			_, err := maps.Create(ctx, configMap("b", nil), metav1.CreateOptions{})
			must(t, err)
			for selectors, names := range map[metav1.ListOptions]string{
				{LabelSelector: "app=conformance"}:                        "a b",
				{LabelSelector: "app in (other),!missing"}:                "",
				{FieldSelector: "metadata.name=b"}:                        "b",
				{FieldSelector: "metadata.name!=b", LabelSelector: "app"}: "a",
			} {
				list, err := maps.List(ctx, selectors)
				must(t, err)
				want(t, names == nameList(list.Items) && list.ResourceVersion != "", "%+v: %s", selectors, nameList(list.Items))
			}
		}},
		{"update", func(t *testing.T) {
			changed := made.DeepCopy()
			changed.Data["k"] = "2"
			got, err := maps.Update(ctx, changed, metav1.UpdateOptions{})
			must(t, err)
			want(t, got.Data["k"] == "2" && got.ResourceVersion != made.ResourceVersion, "%+v", got)
			same, err := maps.Update(ctx, got, metav1.UpdateOptions{})
			must(t, err)
			want(t, same.ResourceVersion == got.ResourceVersion, "an update without a change was written: %s, %s", same.ResourceVersion, got.ResourceVersion)
		}},
		{"update of a stale object is a conflict", func(t *testing.T) {
			_, err := maps.Update(ctx, made, metav1.UpdateOptions{})
			refused(t, err, metav1.StatusReasonConflict, "the object has been modified; please apply your changes to the latest version and try again")
		}},
		{"watch from a list tells what came after it", func(t *testing.T) { watchFromList(t, p) }},
		{"a watch is ended by its timeout", func(t *testing.T) {
			w, err := maps.Watch(ctx, metav1.ListOptions{TimeoutSeconds: new(int64(1))})
			must(t, err)
			for range w.ResultChan() {
			}
			want(t, ctx.Err() == nil, "it did not end")
		}},
	}
}

func nameList(items []corev1.ConfigMap) string {
	var names []string
	for _, i := range items {
		if i.Name != "kube-root-ca.crt" {
			names = append(names, i.Name)
		}
	}
	return strings.Join(names, " ")
}

// watchFromList: what leaves the selector is DELETED for its watcher, what enters is ADDED.
func watchFromList(t *testing.T, p *place) {
	ctx, maps := p.ctx, p.client.CoreV1().ConfigMaps(p.namespace)
	list, err := maps.List(ctx, metav1.ListOptions{})
	must(t, err)
	w, err := maps.Watch(ctx, metav1.ListOptions{ResourceVersion: list.ResourceVersion, LabelSelector: "watched=yes"})
	must(t, err)
	defer w.Stop()
	m := configMap("w", nil)
	m.Labels["watched"] = "yes"
	_, err = maps.Create(ctx, m, metav1.CreateOptions{})
	must(t, err)
	for _, patch := range []string{`{"data":{"n":"1"}}`, `{"metadata":{"labels":{"watched":"no"}}}`, `{"metadata":{"labels":{"watched":"yes"}}}`} {
		_, err = maps.Patch(ctx, "w", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
		must(t, err)
	}
	must(t, maps.Delete(ctx, "w", metav1.DeleteOptions{}))
	for _, wanted := range []watch.EventType{watch.Added, watch.Modified, watch.Deleted, watch.Added, watch.Deleted} {
		event, more := <-w.ResultChan()
		want(t, more && event.Type == wanted, "wanted %s, got %+v", wanted, event)
		want(t, event.Object.(*corev1.ConfigMap).Name == "w", "%+v", event)
	}
}

func patches(p *place) []step {
	ctx, templates := p.ctx, p.client.CoreV1().PodTemplates(p.namespace)
	var made *corev1.PodTemplate
	patched := func(t *testing.T, kind types.PatchType, patch string) *corev1.PodTemplate {
		got, err := templates.Patch(ctx, "p", kind, []byte(patch), metav1.PatchOptions{})
		must(t, err)
		return got
	}
	applied := func(manager string, force bool, labels map[string]string) (*corev1.PodTemplate, error) {
		return templates.Apply(ctx, corev1apply.PodTemplate("s", p.namespace).WithLabels(labels).
			WithTemplate(corev1apply.PodTemplateSpec().WithSpec(corev1apply.PodSpec().
				WithContainers(corev1apply.Container().WithName("c").WithImage("x")))),
			metav1.ApplyOptions{FieldManager: manager, Force: force})
	}
	return []step{
		{"strategic merge patch merges a list by its key", func(t *testing.T) {
			var err error
			made, err = templates.Create(ctx, &corev1.PodTemplate{ObjectMeta: metav1.ObjectMeta{Name: "p"}, Template: corev1.PodTemplateSpec{
				Spec: corev1.PodSpec{Containers: []corev1.Container{{Name: "one", Image: "x"}, {Name: "two", Image: "y"}}}}}, metav1.CreateOptions{})
			must(t, err)
			want(t, made.Template.Spec.RestartPolicy == corev1.RestartPolicyAlways, "no defaults: %+v", made.Template.Spec)
			got := patched(t, types.StrategicMergePatchType, `{"template":{"spec":{"containers":[{"name":"two","image":"z"},{"name":"one","$patch":"delete"}]}}}`)
			c := got.Template.Spec.Containers
			want(t, len(c) == 1 && c[0].Name == "two" && c[0].Image == "z", "%+v", c)
		}},
		{"merge patch replaces a list", func(t *testing.T) {
			got := patched(t, types.MergePatchType, `{"metadata":{"annotations":{"a":"b"}},"template":{"spec":{"containers":[{"name":"three","image":"x"}]}}}`)
			c := got.Template.Spec.Containers
			want(t, len(c) == 1 && c[0].Name == "three" && got.Annotations["a"] == "b", "%+v", got)
		}},
		{"JSON patch", func(t *testing.T) {
			got := patched(t, types.JSONPatchType, `[{"op":"test","path":"/metadata/annotations/a","value":"b"},{"op":"remove","path":"/metadata/annotations/a"},{"op":"add","path":"/metadata/labels","value":{"l":"m"}}]`)
			want(t, got.Annotations["a"] == "" && got.Labels["l"] == "m", "%+v", got.ObjectMeta)
			_, err := templates.Patch(ctx, "p", types.JSONPatchType, []byte(`[{"op":"test","path":"/metadata/name","value":"q"}]`), metav1.PatchOptions{})
			refused(t, err, metav1.StatusReasonInvalid, "")
		}},
		{"a patch with a stale resourceVersion is a conflict", func(t *testing.T) {
			patch := fmt.Sprintf(`{"metadata":{"resourceVersion":%q},"template":{"metadata":{"labels":{"x":"y"}}}}`, made.ResourceVersion)
			_, err := templates.Patch(ctx, "p", types.MergePatchType, []byte(patch), metav1.PatchOptions{})
			refused(t, err, metav1.StatusReasonConflict, "the object has been modified")
		}},
		{"apply creates and owns", func(t *testing.T) {
			got, err := applied("first", false, map[string]string{"l": "1", "m": "1"})
			must(t, err)
			want(t, len(got.ManagedFields) == 1 && got.ManagedFields[0].Manager == "first" &&
				got.ManagedFields[0].Operation == metav1.ManagedFieldsOperationApply, "%+v", got.ManagedFields)
		}},
		{"apply of what another owns is a conflict", func(t *testing.T) {
			_, err := applied("second", false, map[string]string{"l": "2"})
			refused(t, err, metav1.StatusReasonConflict, `conflict with "first"`)
			causes := err.(apierrors.APIStatus).Status().Details.Causes
			want(t, len(causes) == 1 && causes[0].Type == metav1.CauseTypeFieldManagerConflict && causes[0].Field == ".metadata.labels.l", "%+v", causes)
		}},
		{"apply by force takes it", func(t *testing.T) {
			got, err := applied("second", true, map[string]string{"l": "2"})
			must(t, err)
			want(t, got.Labels["l"] == "2" && got.Labels["m"] == "1", "%+v", got.Labels)
		}},
		{"apply without a field removes it, unless another owns it", func(t *testing.T) {
			got, err := applied("first", false, map[string]string{})
			must(t, err)
			_, there := got.Labels["m"]
			want(t, !there && got.Labels["l"] == "2", "%+v", got.Labels)
		}},
	}
}

func deletions(p *place) []step {
	ctx, maps := p.ctx, p.client.CoreV1().ConfigMaps(p.namespace)
	return []step{
		{"delete with the uid of another is a conflict", func(t *testing.T) {
			err := maps.Delete(ctx, "a", metav1.DeleteOptions{Preconditions: metav1.NewUIDPreconditions("other")})
			refused(t, err, metav1.StatusReasonConflict, "the UID in the precondition (other) does not match the UID in record")
		}},
		{"delete", func(t *testing.T) {
			must(t, maps.Delete(ctx, "a", metav1.DeleteOptions{}))
			refused(t, maps.Delete(ctx, "a", metav1.DeleteOptions{}), metav1.StatusReasonNotFound, `configmaps "a" not found`)
		}},
		{"a finalizer keeps what is deleted", func(t *testing.T) {
			m := configMap("kept", nil)
			m.Finalizers = []string{"conformance.copepod.dev/hold"}
			_, err := maps.Create(ctx, m, metav1.CreateOptions{})
			must(t, err)
			must(t, maps.Delete(ctx, "kept", metav1.DeleteOptions{}))
			got, err := maps.Get(ctx, "kept", metav1.GetOptions{})
			must(t, err)
			want(t, got.DeletionTimestamp != nil, "%+v", got.ObjectMeta)
			got.Finalizers = nil
			_, err = maps.Update(ctx, got, metav1.UpdateOptions{})
			must(t, err)
			_, err = maps.Get(ctx, "kept", metav1.GetOptions{})
			refused(t, err, metav1.StatusReasonNotFound, "")
		}},
		{"deletecollection takes what the selector names", func(t *testing.T) {
			for _, n := range []string{"x", "y", "z"} {
				m := configMap(n, nil)
				m.Labels["group"] = map[bool]string{true: "left", false: "gone"}[n == "z"]
				_, err := maps.Create(ctx, m, metav1.CreateOptions{})
				must(t, err)
			}
			must(t, maps.DeleteCollection(ctx, metav1.DeleteOptions{}, metav1.ListOptions{LabelSelector: "group=gone"}))
			list, err := maps.List(ctx, metav1.ListOptions{LabelSelector: "group"})
			must(t, err)
			want(t, nameList(list.Items) == "z", "%s", nameList(list.Items))
		}},
	}
}

// unscheduled is a pod that no scheduler looks at, so that it is this test's alone.
func unscheduled(name string) *corev1.Pod {
	return &corev1.Pod{ObjectMeta: metav1.ObjectMeta{Name: name}, Spec: corev1.PodSpec{
		SchedulerName: "nobody", Containers: []corev1.Container{{Name: "c", Image: "x"}}}}
}

// defaultAccount makes the service account that a controller makes in a whole cluster.
func defaultAccount(t *testing.T, ctx context.Context, p *place) {
	t.Helper()
	a := &corev1.ServiceAccount{ObjectMeta: metav1.ObjectMeta{Name: "default"}}
	if _, err := p.client.CoreV1().ServiceAccounts(p.namespace).Create(ctx, a, metav1.CreateOptions{}); !apierrors.IsAlreadyExists(err) {
		must(t, err)
	}
}

func subresources(p *place) []step {
	ctx, pods, accounts := p.ctx, p.client.CoreV1().Pods(p.namespace), p.client.CoreV1().ServiceAccounts(p.namespace)
	return []step{
		{"update of a status changes no spec", func(t *testing.T) {
			defaultAccount(t, ctx, p)
			pod, err := pods.Create(ctx, unscheduled("p"), metav1.CreateOptions{})
			must(t, err)
			pod.Spec.ActiveDeadlineSeconds = new(int64(100))
			pod.Status.Conditions = []corev1.PodCondition{{Type: "Seen", Status: corev1.ConditionTrue}}
			got, err := pods.UpdateStatus(ctx, pod, metav1.UpdateOptions{})
			must(t, err)
			want(t, got.Spec.ActiveDeadlineSeconds == nil && len(got.Status.Conditions) == 1, "%+v", got)
		}},
		{"update changes no status", func(t *testing.T) {
			got, err := pods.Patch(ctx, "p", types.StrategicMergePatchType, []byte(`{"metadata":{"labels":{"a":"b"}},"status":{"phase":"Failed"}}`), metav1.PatchOptions{})
			must(t, err)
			want(t, got.Labels["a"] == "b" && got.Status.Phase == corev1.PodPending, "%+v", got.Status)
		}},
		{"eviction", func(t *testing.T) {
			must(t, pods.EvictV1(ctx, &policyv1.Eviction{ObjectMeta: metav1.ObjectMeta{Name: "p"}}))
			_, err := pods.Get(ctx, "p", metav1.GetOptions{})
			refused(t, err, metav1.StatusReasonNotFound, `pods "p" not found`)
		}},
		{"scale", func(t *testing.T) {
			controllers := p.client.CoreV1().ReplicationControllers(p.namespace)
			pod := unscheduled("")
			pod.Labels = map[string]string{"rc": "r"}
			_, err := controllers.Create(ctx, &corev1.ReplicationController{ObjectMeta: metav1.ObjectMeta{Name: "r"}, Spec: corev1.ReplicationControllerSpec{
				Replicas: new(int32(0)), Template: &corev1.PodTemplateSpec{ObjectMeta: pod.ObjectMeta, Spec: pod.Spec}}}, metav1.CreateOptions{})
			must(t, err)
			scale, err := controllers.GetScale(ctx, "r", metav1.GetOptions{})
			must(t, err)
			want(t, scale.Spec.Replicas == 0 && scale.Status.Selector == "rc=r", "%+v", scale)
			// A controller may have written its status since.
			scale.ResourceVersion = ""
			scale.Spec.Replicas = 1
			scale, err = controllers.UpdateScale(ctx, "r", scale, metav1.UpdateOptions{})
			must(t, err)
			rc, err := controllers.Get(ctx, "r", metav1.GetOptions{})
			must(t, err)
			want(t, scale.Spec.Replicas == 1 && *rc.Spec.Replicas == 1 && rc.Generation == 2, "%+v", rc)
		}},
		{"token of a service account", func(t *testing.T) {
			got, err := accounts.CreateToken(ctx, "default", &authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: new(int64(600))}}, metav1.CreateOptions{})
			must(t, err)
			review, err := p.client.AuthenticationV1().TokenReviews().Create(ctx, &authenticationv1.TokenReview{Spec: authenticationv1.TokenReviewSpec{Token: got.Status.Token}}, metav1.CreateOptions{})
			must(t, err)
			want(t, review.Status.Authenticated && review.Status.User.Username == "system:serviceaccount:"+p.namespace+":default", "%+v", review.Status)
		}},
	}
}
