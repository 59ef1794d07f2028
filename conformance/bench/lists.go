package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
)

const (
	pods      = "/api/v1/namespaces/" + namespace + "/pods"
	asJSON    = "application/json"
	asProto   = "application/vnd.kubernetes.protobuf"
	asTable   = "application/json;as=Table;v=v1;g=meta.k8s.io"
	wholeRuns = 10
	partRuns  = 100
)

// lists measures lists of all pods in four forms and of one group in two ways.
func (b *Bench) lists(ctx context.Context, rows Rows) error {
	client := &http.Client{Transport: b.transport()}
	defer client.CloseIdleConnections()
	for _, list := range []struct {
		row, query, accept, encoding string
		runs                         int
	}{
		{"list_json_identity", "", asJSON, "identity", wholeRuns},
		{"list_json_gzip", "", asJSON, "gzip", wholeRuns},
		{"list_protobuf_identity", "", asProto, "identity", wholeRuns},
		{"list_table_identity", "", asTable, "identity", wholeRuns},
		{"list_by_label", "?labelSelector=group%3Dg7", asJSON, "identity", partRuns},
		{"list_by_node", "?fieldSelector=spec.nodeName%3Dnode-g7", asJSON, "identity", partRuns},
	} {
		var bytes int64
		once := func() error {
			request, err := b.request(ctx, pods+list.query, list.accept, list.encoding)
			if err != nil {
				return err
			}
			bytes, err = drain(client, request)
			return err
		}
		// The first is not counted: bodies are made in it.
		if err := once(); err != nil {
			return fmt.Errorf("%s: %w", list.row, err)
		}
		used, err := b.process.cost(func() error {
			for range list.runs {
				if err := once(); err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return fmt.Errorf("%s: %w", list.row, err)
		}
		rows[list.row+"_cpu_ms"] = used.Seconds() * 1e3 / float64(list.runs)
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
