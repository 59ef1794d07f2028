package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

const (
	pods    = "/api/v1/namespaces/" + namespace + "/pods"
	asJSON  = "application/json"
	asProto = "application/vnd.kubernetes.protobuf"
	asTable = "application/json;as=Table;v=v1;g=meta.k8s.io"
	// A list of few pods is repeated more often than one of many.
	listedPods   = 50_000
	wholeRunsMax = 10
	partRunsMax  = 100
)

// allLists are lists of all pods in four forms and of one group in two ways.
var allLists = []struct {
	row, query, accept, encoding string
	runsMax                      int
}{
	{"list_json_identity", "", asJSON, "identity", wholeRunsMax},
	{"list_json_gzip", "", asJSON, "gzip", wholeRunsMax},
	{"list_protobuf_identity", "", asProto, "identity", wholeRunsMax},
	{"list_table_identity", "", asTable, "identity", wholeRunsMax},
	{"list_by_label", "?labelSelector=group%3Dg7", asJSON, "identity", partRunsMax},
	{"list_by_node", "?fieldSelector=spec.nodeName%3Dnode-g7", asJSON, "identity", partRunsMax},
}

// lists measures them; the first of each is not counted, because bodies are made in it.
func (b *Bench) lists(ctx context.Context, rows Rows) error {
	client := &http.Client{Transport: b.transport()}
	defer client.CloseIdleConnections()
	runs := func(most int) int {
		return max(2, min(b.times(most), most*listedPods/wholeRunsMax/b.Pods))
	}
	for _, list := range allLists {
		var bytes int64
		times := runs(list.runsMax)
		once := func() error {
			request, err := b.request(ctx, pods+list.query, list.accept, list.encoding)
			if err != nil {
				return err
			}
			bytes, err = drain(client, request)
			return err
		}
		if err := once(); err != nil {
			return fmt.Errorf("%s: %w", list.row, err)
		}
		used, err := b.process.cost(func() error {
			for range times {
				if err := once(); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", list.row, err)
		}
		rows[list.row+"_cpu_ms"] = used.Seconds() * 1e3 / float64(times)
		rows[list.row+"_mib"] = float64(bytes) / (1 << 20)
	}
	return nil
}

// drain reads an answer to its end and says how long it was.
func drain(client *http.Client, request *http.Request) (int64, error) {
	answer, err := client.Do(request)
	if err != nil {
		return 0, err
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		text, _ := io.ReadAll(io.LimitReader(answer.Body, 2000))
		return 0, fmt.Errorf("%s: %s", answer.Status, text)
	}
	return io.Copy(io.Discard, answer.Body)
}
