package strict

import (
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/structpb"
)

// wellKnown decodes the messages that JSON writes in a form of their own.
func (r *Reader) wellKnown(n *yaml.Node, m protoreflect.Message) bool {
	d := m.Descriptor()
	if d.ParentFile().Package() != "google.protobuf" {
		return false
	}
	switch d.Name() {
	case "Duration":
		r.protoDuration(n, m)
	case "Timestamp":
		r.protoTimestamp(n, m)
	case "Struct":
		r.protoStruct(n, m)
	case "ListValue":
		r.protoListValue(n, m)
	case "Value":
		m.Set(d.Fields().ByName(valueField(n)), protoValue(n))
	case "Any", "FieldMask":
		r.fail(n, CodeWrongType, "", "is not supported here")
	case "Empty":
		return false
	default: // the wrappers: DoubleValue, BoolValue …
		fd := d.Fields().ByName("value")
		if fd == nil {
			return false
		}
		if v, ok := r.protoScalar(n, fd); ok {
			m.Set(fd, v)
		}
	}
	return true
}

func (r *Reader) protoDuration(n *yaml.Node, m protoreflect.Message) {
	text, ok := r.text(n)
	if !ok {
		return
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		r.fail(n, CodeBadValue, "a number and a unit, such as 0.2s, 5s or 1h", "is no duration")
		return
	}
	r.seconds(m, int64(d/time.Second), int32(d%time.Second))
}

func (r *Reader) protoTimestamp(n *yaml.Node, m protoreflect.Message) {
	text, ok := r.text(n)
	if !ok {
		return
	}
	t, err := time.Parse(time.RFC3339, text)
	if err != nil {
		r.fail(n, CodeBadValue, "a time such as 2026-01-31T12:00:00Z", "is no time")
		return
	}
	r.seconds(m, t.Unix(), int32(t.Nanosecond()))
}

func (r *Reader) seconds(m protoreflect.Message, s int64, nanos int32) {
	fields := m.Descriptor().Fields()
	m.Set(fields.ByName("seconds"), protoreflect.ValueOfInt64(s))
	m.Set(fields.ByName("nanos"), protoreflect.ValueOfInt32(nanos))
}

func (r *Reader) protoStruct(n *yaml.Node, m protoreflect.Message) {
	if n.Kind != yaml.MappingNode {
		r.wrongType(n, wantMapping)
		return
	}
	fields := m.Mutable(m.Descriptor().Fields().ByName("fields")).Map()
	for k, v := range structOf(n).GetFields() {
		fields.Set(protoreflect.ValueOfString(k).MapKey(), protoreflect.ValueOfMessage(v.ProtoReflect()))
	}
}

func (r *Reader) protoListValue(n *yaml.Node, m protoreflect.Message) {
	if n.Kind != yaml.SequenceNode {
		r.wrongType(n, wantList)
		return
	}
	list := m.Mutable(m.Descriptor().Fields().ByName("values")).List()
	for _, c := range n.Content {
		list.Append(protoreflect.ValueOfMessage(valueOf(c).ProtoReflect()))
	}
}

func structOf(n *yaml.Node) *structpb.Struct {
	s := &structpb.Struct{Fields: make(map[string]*structpb.Value, len(n.Content)/2)}
	for i := 0; i+1 < len(n.Content); i += 2 {
		s.Fields[n.Content[i].Value] = valueOf(n.Content[i+1])
	}
	return s
}

func valueOf(n *yaml.Node) *structpb.Value {
	v := &structpb.Value{}
	v.ProtoReflect().Set(v.ProtoReflect().Descriptor().Fields().ByName(valueField(n)), protoValue(n))
	return v
}

// valueField is the member of google.protobuf.Value's oneof that a node belongs in.
func valueField(n *yaml.Node) protoreflect.Name {
	switch Any(scalarOnly(n)).(type) {
	case nil:
		if n.Kind == yaml.MappingNode {
			return "struct_value"
		}
		if n.Kind == yaml.SequenceNode {
			return "list_value"
		}
		return "null_value"
	case bool:
		return "bool_value"
	case float64:
		return "number_value"
	default:
		return "string_value"
	}
}

var nullScalar = yaml.Node{Kind: yaml.ScalarNode, Tag: tagNull, Value: "null"}

func scalarOnly(n *yaml.Node) *yaml.Node {
	if n.Kind == yaml.ScalarNode {
		return n
	}
	return &nullScalar
}

func protoValue(n *yaml.Node) protoreflect.Value {
	switch n.Kind {
	case yaml.MappingNode:
		return protoreflect.ValueOfMessage(structOf(n).ProtoReflect())
	case yaml.SequenceNode:
		list := &structpb.ListValue{}
		for _, c := range n.Content {
			list.Values = append(list.Values, valueOf(c))
		}
		return protoreflect.ValueOfMessage(list.ProtoReflect())
	}
	switch v := Any(n).(type) {
	case nil:
		return protoreflect.ValueOfEnum(0)
	case bool:
		return protoreflect.ValueOfBool(v)
	case float64:
		return protoreflect.ValueOfFloat64(v)
	default:
		return protoreflect.ValueOfString(n.Value)
	}
}
