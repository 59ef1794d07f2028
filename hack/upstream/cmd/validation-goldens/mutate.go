package main

import (
	"sort"
	"strings"
)

// A change of one place of an object.
type mutation struct {
	path   []interface{}
	value  interface{}
	delete bool
}

// Values that are wrong in typical ways, by the kind of the value that stands there.
var (
	badTexts   = []interface{}{"", "Bad Value!", "../x", "a/b", strings.Repeat("x", 70)}
	badNumbers = []interface{}{int64(-1), int64(0), int64(70000)}
)

// Every place of an object, each with every wrong value.
func mutations(object map[string]interface{}) []mutation {
	var out []mutation
	walk(object, nil, &out)
	return out
}

func walk(v interface{}, path []interface{}, out *[]mutation) {
	add := func(value interface{}) {
		*out = append(*out, mutation{path: append([]interface{}{}, path...), value: value})
	}
	remove := func() {
		if len(path) > 0 {
			*out = append(*out, mutation{path: append([]interface{}{}, path...), delete: true})
		}
	}
	switch t := v.(type) {
	case map[string]interface{}:
		remove()
		keys := make([]string, 0, len(t))
		texts := len(t) > 0
		for k, item := range t {
			keys = append(keys, k)
			if _, ok := item.(string); !ok {
				texts = false
			}
		}
		sort.Strings(keys)
		for _, k := range keys {
			if len(path) == 0 && (k == "kind" || k == "apiVersion") {
				continue
			}
			walk(t[k], append(append([]interface{}{}, path...), k), out)
		}
		// A string map: a bad key. (On a struct this is an unknown field, which the decoder drops.)
		if texts && len(path) > 0 {
			for _, k := range []string{"Bad Key!", "example.com/a/b"} {
				*out = append(*out, mutation{path: append(append([]interface{}{}, path...), k), value: t[keys[0]]})
			}
		}
	case []interface{}:
		remove()
		add([]interface{}{})
		if len(t) > 0 {
			add(append(append([]interface{}{}, t...), t[0]))
			add(append([]interface{}{}, t[1:]...))
		}
		for i, item := range t {
			walk(item, append(append([]interface{}{}, path...), int64(i)), out)
		}
	case string:
		remove()
		for _, bad := range badTexts {
			if bad != v {
				add(bad)
			}
		}
	case bool:
		remove()
		add(!t)
	case float64, int64:
		remove()
		for _, bad := range badNumbers {
			add(bad)
		}
	}
}

func (m mutation) apply(object map[string]interface{}) map[string]interface{} {
	root := deepCopy(object)
	var parent interface{} = root
	for i, step := range m.path {
		last := i == len(m.path)-1
		switch s := step.(type) {
		case string:
			p := parent.(map[string]interface{})
			if last && m.delete {
				delete(p, s)
			} else if last {
				p[s] = deepCopy(m.value)
			} else {
				parent = p[s]
			}
		case int64:
			p := parent.([]interface{})
			if last && m.delete {
				// A list shorter by an element is another mutation; here the element is emptied.
				p[s] = nil
			} else if last {
				p[s] = deepCopy(m.value)
			} else {
				parent = p[s]
			}
		}
	}
	return root.(map[string]interface{})
}

func deepCopy(v interface{}) interface{} {
	switch t := v.(type) {
	case map[string]interface{}:
		out := make(map[string]interface{}, len(t))
		for k, item := range t {
			out[k] = deepCopy(item)
		}
		return out
	case []interface{}:
		out := make([]interface{}, len(t))
		for i, item := range t {
			out[i] = deepCopy(item)
		}
		return out
	default:
		return v
	}
}
