package main

import (
	"sort"

	utilfeature "k8s.io/apiserver/pkg/util/feature"
)

// writeGates lists every feature gate of the servers with its default in this version.
func writeGates(path string) {
	var rows []object
	for name, spec := range utilfeature.DefaultMutableFeatureGate.GetAll() {
		row := object{{"name", string(name)}, {"stage", string(spec.PreRelease)}}
		if spec.Default {
			row.put("default", true)
		}
		if spec.LockToDefault {
			row.put("locked", true)
		}
		rows = append(rows, row)
	}
	sort.Slice(rows, func(i, j int) bool { return rows[i][0].value.(string) < rows[j][0].value.(string) })
	writeLines(path, rows)
}
