// Command bench measures running programs: what they weigh and how much CPU each kind of work costs them.
//
// `cargo xtask bench` starts upstream's programs and ours in turn, each on a fresh etcd of the same program, and runs this
// program against each. It prints one JSON object: a number for each row, and why for each row that the server does not
// support. CPU is that of the measured process alone, by its CPU clock; the client and etcd are other processes. Calls go
// through client-go; lists and watches are raw HTTP, so that what is measured is not the client's decoding, and their
// Accept-Encoding is always named.
//
//	bench api ...        an API server
//	bench scheduler ...  a scheduler, and the API server that it is a client of
//	bench etcd ...       etcd alone: from a put until a watch shows it
package main

import (
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"os"
	"sort"
	"strings"
	"time"
)

// Options are the command line.
type Options struct {
	Server, Token, CA string
	PID               int
	Pods, Nodes       int
	Existing          bool
	Round             int
	Watchers          string
	Idle, Settle      time.Duration
	Scale             float64
	Steps, Record     string
	Workload          string
	Initial           int
}

func main() {
	if len(os.Args) < 2 {
		fail(errors.New("usage: bench api|scheduler|etcd FLAGS"))
	}
	flags := flag.NewFlagSet(os.Args[1], flag.ExitOnError)
	var o Options
	flags.StringVar(&o.Server, "server", "", "URL of the API server, or of etcd")
	flags.StringVar(&o.Token, "token", "", "bearer token of a member of system:masters")
	flags.StringVar(&o.CA, "ca", "", "file with the authority of the server's certificate; empty: it is not checked")
	flags.IntVar(&o.PID, "pid", 0, "process that is measured")
	flags.IntVar(&o.Pods, "pods", 1000, "pods to be loaded; scheduler: pods to be scheduled while it is measured")
	flags.BoolVar(&o.Existing, "existing", false, "the pods are there already")
	flags.IntVar(&o.Round, "round", 0, "makes what is written differ from what an earlier run wrote")
	flags.IntVar(&o.Nodes, "nodes", 1000, "nodes that renew leases; scheduler: nodes there are")
	flags.StringVar(&o.Watchers, "watchers", "100", "numbers of watches, each on a connection of its own, comma-separated")
	flags.DurationVar(&o.Idle, "idle", 5*time.Second, "how long the idle server is looked at")
	flags.DurationVar(&o.Settle, "settle", 5*time.Second, "how long it is left alone before that")
	flags.Float64Var(&o.Scale, "scale", 1, "factor on how often things are repeated")
	flags.StringVar(&o.Steps, "steps", "", "api: steps to run, comma-separated; empty: all")
	flags.StringVar(&o.Record, "record", "", "api: folder for answers, which a floor plays back")
	flags.StringVar(&o.Workload, "workload", "", "scheduler: "+strings.Join(workloadNames(), ", "))
	flags.IntVar(&o.Initial, "initial", 1000, "scheduler: pods that are on nodes already")
	if err := flags.Parse(os.Args[2:]); err != nil {
		fail(err)
	}
	modes := map[string]func(context.Context, Options) (*Result, error){
		"api": measureAPI, "scheduler": measureScheduler, "etcd": measureEtcd,
	}
	mode := modes[os.Args[1]]
	if mode == nil {
		fail(fmt.Errorf("unknown subject %q", os.Args[1]))
	}
	result, err := mode(context.Background(), o)
	if err != nil {
		fail(err)
	}
	out := json.NewEncoder(os.Stdout)
	out.SetIndent("", "  ")
	if err := out.Encode(result); err != nil {
		fail(err)
	}
}

func fail(err error) {
	fmt.Fprintln(os.Stderr, "Error:", err)
	os.Exit(1)
}

// Rows are the results by name; the unit stands in the name.
type Rows map[string]float64

// Result is all that is printed.
type Result struct {
	Rows Rows `json:"rows"`
	// Rows that the server cannot have, and why.
	NotSupported map[string]string `json:"not_supported,omitempty"`
}

// measureAPI runs all steps asked for, in an order in which each finds what it needs.
func measureAPI(ctx context.Context, o Options) (*Result, error) {
	b, err := newBench(ctx, o)
	if err != nil {
		return nil, err
	}
	result := &Result{Rows: Rows{}, NotSupported: map[string]string{}}
	rows := result.Rows
	steps := []struct {
		name string
		run  func(context.Context, Rows) error
	}{
		{"empty", b.resident("memory_empty_mib")},
		{"idle", b.idle}, {"fill", b.fill}, {"create", b.create}, {"status", b.patchStatus}, {"get", b.get},
		{"apply", b.apply}, {"leases", b.leases}, {"nodes", b.nodeStatus}, {"lists", b.lists},
		{"loaded", b.resident("memory_loaded_mib")}, {"watches", b.watches}, {"record", b.record},
		{"crds", func(ctx context.Context, rows Rows) error { return b.crds(ctx, result) }},
	}
	wanted := strings.Split(o.Steps, ",")
	has := func(name string) bool {
		for _, w := range wanted {
			if w == name {
				return true
			}
		}
		// These are asked for by name only.
		return o.Steps == "" && name != "fill" && name != "crds" && (name != "record" || o.Record != "")
	}
	for _, step := range steps {
		if !has(step.name) {
			continue
		}
		started := time.Now()
		if err := step.run(ctx, rows); err != nil {
			return nil, fmt.Errorf("%s: %w", step.name, err)
		}
		fmt.Fprintf(os.Stderr, "  %-16s %6.1f s\n", step.name, time.Since(started).Seconds())
	}
	return result, nil
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
