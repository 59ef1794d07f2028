package conformance

// Lists in pages: limit, continue, tokens that are nonsense or have expired.

import (
	"context"
	"fmt"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	apierrors "k8s.io/apimachinery/pkg/api/errors"
	"k8s.io/apimachinery/pkg/api/meta"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/client-go/tools/pager"
)

const paged = "app=conformance"

func fill(t *testing.T, p *place, count int) {
	t.Helper()
	for i := range count {
		_, err := p.client.CoreV1().ConfigMaps(p.namespace).Create(p.ctx, configMap(fmt.Sprintf("m%02d", i), nil), metav1.CreateOptions{})
		must(t, err)
	}
}

func TestPaging(t *testing.T) {
	t.Parallel()
	p := newPlace(t, protobuf)
	ctx, maps := p.ctx, p.client.CoreV1().ConfigMaps(p.namespace)
	var first *corev1.ConfigMapList
	play(t, []step{
		{"the first page says how much is left", func(t *testing.T) {
			fill(t, p, 25)
			var err error
			first, err = maps.List(ctx, metav1.ListOptions{Limit: 10, FieldSelector: "metadata.name!=kube-root-ca.crt"})
			must(t, err)
			want(t, len(first.Items) == 10 && first.Continue != "", "%d items", len(first.Items))
			// With a selector nobody knows how many will match.
			want(t, first.RemainingItemCount == nil, "%v", first.RemainingItemCount)
			all, err := maps.List(ctx, metav1.ListOptions{Limit: 10})
			must(t, err)
			want(t, all.RemainingItemCount != nil && *all.RemainingItemCount >= 15, "%v", all.RemainingItemCount)
		}},
		{"further pages show the state of the first", func(t *testing.T) {
			_, err := maps.Create(ctx, configMap("m24-too-late", nil), metav1.CreateOptions{})
			must(t, err)
			must(t, maps.Delete(ctx, "m23", metav1.DeleteOptions{}))
			seen, page := len(first.Items), first
			for page.Continue != "" {
				page, err = maps.List(ctx, metav1.ListOptions{Limit: 10, Continue: page.Continue, FieldSelector: "metadata.name!=kube-root-ca.crt"})
				must(t, err)
				want(t, page.ResourceVersion == first.ResourceVersion, "%s, %s", page.ResourceVersion, first.ResourceVersion)
				seen += len(page.Items)
			}
			want(t, seen == 25, "%d objects", seen)
		}},
		{"a token that is nonsense", func(t *testing.T) {
			_, err := maps.List(ctx, metav1.ListOptions{Limit: 10, Continue: "nonsense"})
			refused(t, err, metav1.StatusReasonBadRequest, "continue key is not valid")
		}},
		{"a token and a resourceVersion", func(t *testing.T) {
			_, err := maps.List(ctx, metav1.ListOptions{Limit: 10, Continue: first.Continue, ResourceVersion: first.ResourceVersion})
			refused(t, err, metav1.StatusReasonBadRequest, "specifying resource version is not allowed when using continue")
		}},
		{"the pager reads all", func(t *testing.T) {
			lists := pager.New(func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.LabelSelector = paged
				return maps.List(ctx, o)
			})
			lists.PageSize = 7
			all, inPages, err := lists.List(ctx, metav1.ListOptions{})
			must(t, err)
			want(t, meta.LenList(all) == 25 && inPages, "%d objects, in pages: %v", meta.LenList(all), inPages)
		}},
		{"a list at a resourceVersion is exact", func(t *testing.T) {
			list, err := maps.List(ctx, metav1.ListOptions{LabelSelector: paged, ResourceVersion: first.ResourceVersion, ResourceVersionMatch: metav1.ResourceVersionMatchExact})
			must(t, err)
			want(t, len(list.Items) == 25 && list.ResourceVersion == first.ResourceVersion, "%d objects at %s", len(list.Items), list.ResourceVersion)
		}},
		{"a resourceVersion of the future", func(t *testing.T) {
			_, err := maps.List(ctx, metav1.ListOptions{ResourceVersion: "999999999", ResourceVersionMatch: metav1.ResourceVersionMatchNotOlderThan})
			refused(t, err, metav1.StatusReasonTimeout, "Too large resource version: 999999999, current: ")
		}},
	})
}

// expired asks until the server has forgotten what the token speaks of, and returns what it says then. History is kept for
// one to two intervals, and caches forget it at their leisure.
func expired(t *testing.T, p *place, token string, interval time.Duration) error {
	t.Helper()
	for range 10 {
		time.Sleep(interval)
		_, err := p.client.CoreV1().ConfigMaps(p.namespace).List(p.ctx, metav1.ListOptions{Limit: 4, LabelSelector: paged, Continue: token})
		if err != nil {
			return err
		}
	}
	t.Fatalf("the token is good after %s", 10*interval)
	return nil
}

func TestExpiredContinue(t *testing.T) {
	t.Parallel()
	interval, err := time.ParseDuration(need(t, "CONFORMANCE_COMPACTION"))
	must(t, err)
	p := newPlace(t, jsonType)
	ctx, maps := p.ctx, p.client.CoreV1().ConfigMaps(p.namespace)
	var renewed string
	play(t, []step{
		{"an expired token is 410 and brings a new one", func(t *testing.T) {
			fill(t, p, 9)
			first, err := maps.List(ctx, metav1.ListOptions{Limit: 4, LabelSelector: paged})
			must(t, err)
			_, err = maps.Create(ctx, configMap("m99", nil), metav1.CreateOptions{})
			must(t, err)
			err = expired(t, p, first.Continue, interval)
			refused(t, err, metav1.StatusReasonExpired, "The provided continue parameter is too old to display a consistent list result.")
			status := err.(apierrors.APIStatus).Status()
			want(t, status.Code == 410 && status.ListMeta.Continue != "" && apierrors.IsResourceExpired(err), "%+v", status)
			renewed = status.ListMeta.Continue
		}},
		{"the new token goes on where the old one stopped, at the present", func(t *testing.T) {
			list, err := maps.List(ctx, metav1.ListOptions{LabelSelector: paged, Continue: renewed})
			must(t, err)
			want(t, len(list.Items) == 6 && list.Items[0].Name == "m04" && list.Items[5].Name == "m99", "%s", nameList(list.Items))
		}},
		{"the pager lists anew when a token has expired", func(t *testing.T) {
			pages := 0
			lists := pager.New(func(ctx context.Context, o metav1.ListOptions) (runtime.Object, error) {
				o.LabelSelector = paged
				if pages++; pages == 2 {
					_, err := maps.Create(ctx, configMap("m98", nil), metav1.CreateOptions{})
					must(t, err)
					refused(t, expired(t, p, o.Continue, interval), metav1.StatusReasonExpired, "")
				}
				return maps.List(ctx, o)
			})
			lists.PageSize = 4
			all, _, err := lists.List(ctx, metav1.ListOptions{})
			must(t, err)
			want(t, meta.LenList(all) == 11 && pages == 3, "%d objects after %d requests", meta.LenList(all), pages)
		}},
	})
}
