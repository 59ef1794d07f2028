package main

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
)

// record writes what the server answers into a folder, for a floor that plays the same bytes back. Writes are answered with
// the object that a read returns, which is what the server answers them with, too.
func (b *Bench) record(ctx context.Context, _ Rows) error {
	client := &http.Client{Transport: b.transport()}
	defer client.CloseIdleConnections()
	type answer struct{ file, path, accept, encoding string }
	answers := []answer{
		{"pod.json", pods + "/" + podName(0), asJSON, "identity"},
		{"pod.protobuf", pods + "/" + podName(0), asProto, "identity"},
		{"configmap.json", "/api/v1/namespaces/" + namespace + "/configmaps/c0", asJSON, "identity"},
		{"lease.protobuf", "/apis/coordination.k8s.io/v1/namespaces/" + namespace + "/leases/" + nodeName(0), asProto, "identity"},
		{"namespace.json", "/api/v1/namespaces/" + namespace, asJSON, "identity"},
		{"account.json", "/api/v1/namespaces/" + namespace + "/serviceaccounts/default", asJSON, "identity"},
		{"one.json", pods + "?limit=1", asJSON, "identity"},
	}
	for _, list := range allLists {
		answers = append(answers, answer{list.row, pods + list.query, list.accept, list.encoding})
	}
	for _, a := range answers {
		request, err := b.request(ctx, a.path, a.accept, a.encoding)
		if err != nil {
			return err
		}
		if err := save(client, request, filepath.Join(b.Record, a.file)); err != nil {
			return fmt.Errorf("%s: %w", a.file, err)
		}
	}
	return nil
}

// save writes the body to a file, and its type beside it.
func save(client *http.Client, request *http.Request, path string) error {
	answer, err := client.Do(request)
	if err != nil {
		return err
	}
	defer answer.Body.Close()
	body, err := io.ReadAll(answer.Body)
	if err != nil {
		return err
	}
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", answer.Status, strings.TrimSpace(string(body)))
	}
	if err := os.WriteFile(path+".type", []byte(answer.Header.Get("Content-Type")), 0o600); err != nil {
		return err
	}
	return os.WriteFile(path, body, 0o600)
}
