package strict

import (
	"encoding/json"
	"strconv"

	"go.yaml.in/yaml/v3"
)

// Any is the node as encoding/json would decode it: map[string]any, []any, string, float64, bool, nil.
func Any(n *yaml.Node) any {
	switch n.Kind {
	case yaml.MappingNode:
		m := make(map[string]any, len(n.Content)/2)
		for i := 0; i+1 < len(n.Content); i += 2 {
			m[n.Content[i].Value] = Any(n.Content[i+1])
		}
		return m
	case yaml.SequenceNode:
		l := make([]any, len(n.Content))
		for i, c := range n.Content {
			l[i] = Any(c)
		}
		return l
	}
	switch tagOf(n) {
	case tagNull:
		return nil
	case tagBool:
		b, _ := boolean(n)
		return b
	case tagInt, tagFloat:
		if text, _ := number(n); text != "" {
			if f, ok := floating(text); ok {
				return f
			}
		}
	}
	return n.Value
}

// JSON is the node as JSON. Whole numbers keep all their digits.
func JSON(n *yaml.Node) ([]byte, error) {
	if text, ok := number(n); ok {
		if i, ok := signed(text, 64); ok {
			return strconv.AppendInt(nil, i, 10), nil
		}
	}
	return json.Marshal(Any(n))
}
