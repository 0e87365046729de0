package strict

import (
	"reflect"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
)

// Into decodes a node into a pointer to a Go value or into a proto message. at is the path of the node in its object ("" for the whole
// object); it starts the fields of the problems that are met, and every one of them is gathered in r.Problems.
func (r *Reader) Into(n *yaml.Node, at string, into any) {
	if at != "" {
		r.path = append(r.path[:0], step{name: at})
	}
	defer func() { r.path = r.path[:0] }()
	if m, ok := into.(proto.Message); ok {
		r.message(n, m.ProtoReflect())
		return
	}
	r.value(n, reflect.ValueOf(into).Elem())
}
