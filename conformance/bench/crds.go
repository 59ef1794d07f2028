package main

import (
	"context"
	"fmt"
	"time"

	apierrors "k8s.io/apimachinery/pkg/api/errors"
)

const (
	crdCount    = 100
	crdPatience = 20 * time.Second
)

// crds makes a hundred custom resources, each with a schema of some size, and waits until the server serves them.
func (b *Bench) crds(ctx context.Context, result *Result) error {
	client := b.json.CoreV1().RESTClient()
	post := func(i int) error {
		const path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
		return client.Post().AbsPath(path).SetHeader("Content-Type", asJSON).Body(crd(i)).Do(ctx).Error()
	}
	served := func(i int) error {
		return client.Get().AbsPath(fmt.Sprintf("/apis/bench%d.example.com/v1/widgets", i)).Do(ctx).Error()
	}
	const rowMemory, rowCPU = "memory_100_crds_mib", "crd_until_served_cpu_ms"
	used, err := b.process.cost(func() error {
		if err := each(parallel, 0, crdCount, post); err != nil {
			return err
		}
		deadline := time.Now().Add(crdPatience)
		return each(parallel, 0, crdCount, func(i int) error {
			for {
				err := served(i)
				if err == nil || time.Now().After(deadline) {
					return err
				}
				time.Sleep(100 * time.Millisecond)
			}
		})
	})
	if apierrors.IsNotFound(err) || apierrors.IsMethodNotSupported(err) {
		why := fmt.Sprintf("custom resources are not served: %v", err)
		result.NotSupported[rowMemory], result.NotSupported[rowCPU] = why, why
		return nil
	}
	if err != nil {
		return err
	}
	result.Rows[rowCPU] = used.Seconds() * 1e3 / crdCount
	result.Rows[rowMemory], err = b.process.residentMiB()
	return err
}

// crd has a schema such as generators write: two levels of objects, lists and maps.
func crd(i int) []byte {
	const leaf = `{"type":"object","properties":{"name":{"type":"string","maxLength":63},"count":{"type":"integer","minimum":0},` +
		`"labels":{"type":"object","additionalProperties":{"type":"string"}},"ready":{"type":"boolean"}},"required":["name"]}`
	properties := ""
	for p := range 20 {
		if p > 0 {
			properties += ","
		}
		properties += fmt.Sprintf(`"part%d":{"type":"array","description":"The parts of kind %d.","items":%s}`, p, p, leaf)
	}
	return fmt.Appendf(nil, `{"apiVersion":"apiextensions.k8s.io/v1","kind":"CustomResourceDefinition",`+
		`"metadata":{"name":"widgets.bench%d.example.com"},"spec":{"group":"bench%d.example.com","scope":"Namespaced",`+
		`"names":{"plural":"widgets","singular":"widget","kind":"Widget","listKind":"WidgetList"},"versions":[{"name":"v1","served":true,`+
		`"storage":true,"subresources":{"status":{}},"schema":{"openAPIV3Schema":{"type":"object","properties":{`+
		`"spec":{"type":"object","properties":{%s}},"status":{"type":"object","x-kubernetes-preserve-unknown-fields":true}}}}}]}}`, i, i, properties)
}
