package main

import (
	"bufio"
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"strconv"
	"strings"
	"sync"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/types"
)

const (
	// So many for 100 watches; more watches, fewer events.
	deliveries = 20_000
	eventsMin  = 20
	// Writes are spread, so that latency is not that of a queue: longer the more watches there are.
	pausePerWatch = 250 * time.Microsecond
	// Connections that are being opened at once.
	opening = 20
	// After this long an event counts as lost.
	patience = 30 * time.Second
)

var sentMark = []byte(`"bench/sent":"`)

// watches measures each number of watches in turn.
func (b *Bench) watches(ctx context.Context, rows Rows) error {
	for text := range strings.SplitSeq(b.Watchers, ",") {
		watchers, err := strconv.Atoi(text)
		if err != nil {
			return err
		}
		if err := b.fanOut(ctx, rows, watchers); err != nil {
			return fmt.Errorf("%d watches: %w", watchers, err)
		}
	}
	return nil
}

// fanOut opens watches on connections of their own and measures what an event costs until all have it, and how long it
// takes from just before the write is sent.
func (b *Bench) fanOut(ctx context.Context, rows Rows, watchers int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	list, err := b.json.CoreV1().Pods(namespace).List(ctx, metav1.ListOptions{Limit: 1})
	if err != nil {
		return err
	}
	events := max(b.times(deliveries)/watchers, eventsMin)
	all := make(chan time.Duration, watchers*events)
	failed := make(chan error, watchers)
	var open sync.WaitGroup
	open.Add(watchers)
	slots := make(chan struct{}, opening)
	for range watchers {
		go func() {
			slots <- struct{}{}
			opened := func() { <-slots; open.Done() }
			failed <- b.watch(ctx, list.ResourceVersion, opened, all)
		}()
	}
	opened := make(chan struct{})
	go func() { open.Wait(); close(opened) }()
	select {
	case <-opened:
	case err := <-failed:
		return fmt.Errorf("a watch did not open: %w", err)
	case <-time.After(patience):
		return fmt.Errorf("the watches did not open in %s", patience)
	}
	delays := make([]time.Duration, 0, watchers*events)
	used, err := b.process.cost(func() error {
		for i := range events {
			patch := fmt.Appendf(nil, `{"metadata":{"annotations":{"bench/sent":"%d"}}}`, time.Now().UnixNano())
			_, err := b.json.CoreV1().Pods(namespace).Patch(ctx, podName(i%b.Pods), types.MergePatchType, patch, metav1.PatchOptions{})
			if err != nil {
				return err
			}
			time.Sleep(time.Duration(watchers) * pausePerWatch)
		}
		late := time.After(patience)
		for len(delays) < watchers*events {
			select {
			case delay := <-all:
				delays = append(delays, delay)
			case err := <-failed:
				return fmt.Errorf("a watch ended after %d deliveries: %w", len(delays), err)
			case <-late:
				return fmt.Errorf("%d of %d deliveries are missing", watchers*events-len(delays), watchers*events)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	row := func(text string) string { return fmt.Sprintf(text, watchers) }
	rows[row("watch_%d_event_cpu_us")] = float64(used.Microseconds()) / float64(watchers*events)
	rows[row("watch_%d_latency_p50_ms")] = quantile(delays, 0.5)
	rows[row("watch_%d_latency_p99_ms")] = quantile(delays, 0.99)
	rows[row("memory_%d_watchers_mib")], err = b.process.residentMiB()
	return err
}

// watch follows the pods on a connection of its own until the context ends.
func (b *Bench) watch(ctx context.Context, from string, open func(), delays chan<- time.Duration) error {
	client := &http.Client{Transport: b.transport()}
	defer client.CloseIdleConnections()
	request, err := b.request(ctx, pods+"?watch=true&resourceVersion="+from, asJSON, "identity")
	if err != nil {
		return err
	}
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s", answer.Status)
	}
	open()
	lines := bufio.NewReaderSize(answer.Body, 64<<10)
	for {
		line, err := lines.ReadBytes('\n')
		if err == io.EOF || ctx.Err() != nil {
			return fmt.Errorf("the watch ended: %w", io.ErrUnexpectedEOF)
		}
		if err != nil {
			return err
		}
		if sent, is := sentAt(line); is {
			delays <- time.Since(sent)
		}
	}
}

// sentAt is the time that the writer put into the object.
func sentAt(line []byte) (time.Time, bool) {
	_, rest, found := bytes.Cut(line, sentMark)
	if !found {
		return time.Time{}, false
	}
	digits, _, found := bytes.Cut(rest, []byte{'"'})
	ns, err := strconv.ParseInt(string(digits), 10, 64)
	return time.Unix(0, ns), found && err == nil
}
