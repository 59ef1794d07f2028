// Command bench measures one running API server: what it weighs and how much CPU each kind of request costs it.
//
// `cargo xtask bench` starts upstream's server and ours in turn, each on a fresh etcd of the same program, and runs this
// program against each. It prints one JSON object, a number a row. CPU is that of the server's process alone, by its CPU clock; the
// client and etcd are other processes. Calls go through client-go; lists and watches are raw HTTP, so that what is
// measured is not the client's decoding, and their Accept-Encoding is always named.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"sort"
	"time"
)

// Options are the command line.
type Options struct {
	Server, Token, CA string
	PID               int
	Pods, Watchers    int
	Idle              time.Duration
}

func main() {
	var o Options
	flag.StringVar(&o.Server, "server", "", "URL of the API server")
	flag.StringVar(&o.Token, "token", "", "bearer token of a member of system:masters")
	flag.StringVar(&o.CA, "ca", "", "file with the authority of the server's certificate; empty: it is not checked")
	flag.IntVar(&o.PID, "pid", 0, "process of the API server")
	flag.IntVar(&o.Pods, "pods", 1000, "pods to be loaded")
	flag.IntVar(&o.Watchers, "watchers", 100, "watches, each on a connection of its own")
	flag.DurationVar(&o.Idle, "idle", 5*time.Second, "how long the idle server is looked at")
	flag.Parse()
	rows, err := measure(context.Background(), o)
	if err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	if err := out.Encode(rows); err != nil {
		fmt.Fprintln(os.Stderr, "Error:", err)
		os.Exit(1)
	}
}

// Rows are the results by name; the unit stands in the name.
type Rows map[string]float64

// measure runs all parts, in an order in which each finds what it needs.
func measure(ctx context.Context, o Options) (Rows, error) {
	process := Process(o.PID)
	b, err := newBench(ctx, o)
	if err != nil {
		return nil, err
	}
	rows := Rows{}
	resident := func(row string) error {
		mib, err := process.residentMiB()
		rows[row] = mib
		return err
	}
	if err := resident("memory_empty_mib"); err != nil {
		return nil, err
	}
	steps := []struct {
		name string
		run  func(context.Context, Rows) error
	}{
		{"idle", b.idle}, {"create", b.create}, {"status patches", b.patchStatus}, {"get", b.get},
		{"apply", b.apply}, {"leases", b.leases}, {"lists", b.lists},
		{"memory", func(context.Context, Rows) error { return resident("memory_loaded_mib") }},
		{"watches", b.watches},
	}
	for _, step := range steps {
		started := time.Now()
		if err := step.run(ctx, rows); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Fprintf(os.Stderr, "  %-16s %6.1f s\n", step.name, time.Since(started).Seconds())
	}
	return rows, nil
}

// quantile of durations in milliseconds.
func quantile(all []time.Duration, q float64) float64 {
	if len(all) == 0 {
		return 0
	}
	sort.Slice(all, func(i, j int) bool { return all[i] < all[j] })
	at := int(q * float64(len(all)-1))
	return float64(all[at].Nanoseconds()) / 1e6
}
