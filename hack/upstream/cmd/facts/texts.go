package main

import (
	"path/filepath"
	"sort"
	"strings"
)

const enumMark = "\n\nPossible enum values:"

// writeTexts writes the descriptions that the k8s-openapi crate lacks: it has no list kinds, no watch event, no query options and no text
// of enum values, because the document that it is made from has none.
func (g *graph) writeTexts(path string, modules map[string]string) {
	var swagger struct {
		Definitions map[string]any `json:"definitions"`
	}
	readJSON(filepath.Join(modules["k8s.io/kubernetes"], "api/openapi-spec/swagger.json"), &swagger)
	names := []string{"io.k8s.apimachinery.pkg.version.Info"}
	for name := range g.types {
		names = append(names, name)
	}
	sort.Strings(names)
	var rows []object
	for _, name := range names {
		definition, known := g.openapi[name]
		_, published := swagger.Definitions[name]
		switch {
		case !known:
			continue
		case strings.HasSuffix(name, "List") && published, strings.HasSuffix(name, "Options") && !published, strings.HasSuffix(name, "version.Info"), strings.HasSuffix(name, ".WatchEvent"):
			var fields object
			for _, json := range sortedKeys(definition.Schema.Properties) {
				if text := definition.Schema.Properties[json].Description; text != "" && json != "kind" && json != "apiVersion" {
					fields.put(json, text)
				}
			}
			rows = append(rows, object{{"type", name}, {"text", definition.Schema.Description}, {"fields", fields}})
		default:
			var fields object
			for _, json := range sortedKeys(definition.Schema.Properties) {
				text := definition.Schema.Properties[json].Description
				if before, _, ok := strings.Cut(text, enumMark); ok {
					// The published text has no line feeds at its end, the generated one keeps them.
					fields.put(json, text[len(strings.TrimRight(before, "\n")):])
				}
			}
			if len(fields) > 0 {
				rows = append(rows, object{{"type", name}, {"enums", fields}})
			}
		}
	}
	writeLines(path, rows)
}

func sortedKeys[V any](m map[string]V) []string {
	var keys []string
	for key := range m {
		keys = append(keys, key)
	}
	sort.Strings(keys)
	return keys
}
