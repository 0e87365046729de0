package strict

import (
	"encoding/base64"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/credence-mesh/credence/policy"
)

// message decodes as protobuf's JSON mapping says: names in camelCase or snake_case, enumerations by name or number, null for unset.
func (r *Reader) message(n *yaml.Node, m protoreflect.Message) {
	if Null(n) || r.wellKnown(n, m) {
		return
	}
	if n.Kind != yaml.MappingNode {
		r.wrongType(n, wantMapping)
		return
	}
	fields := m.Descriptor().Fields()
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		fd := fields.ByJSONName(k.Value)
		if fd == nil {
			fd = fields.ByName(protoreflect.Name(k.Value))
		}
		if fd == nil {
			r.unknown(k, jsonNames(fields))
			continue
		}
		r.path.push(fd.JSONName())
		r.field(k, v, m, fd)
		r.path.pop()
	}
}

func jsonNames(fields protoreflect.FieldDescriptors) []string {
	names := make([]string, fields.Len())
	for i := range names {
		names[i] = fields.Get(i).JSONName()
	}
	return names
}

func (r *Reader) field(k, v *yaml.Node, m protoreflect.Message, fd protoreflect.FieldDescriptor) {
	if Null(v) && !takesNull(fd) {
		return
	}
	if m.Has(fd) {
		if r.told(k) {
			return
		}
		r.fail(k, CodeDuplicateKey, "keep one of the two", "%s is written twice, in camelCase and in snake_case", fd.JSONName())
		return
	}
	if one := fd.ContainingOneof(); one != nil && !one.IsSynthetic() {
		if other := m.WhichOneof(one); other != nil {
			r.fail(k, CodeOneofConflict, "keep one of the two", "%s and %s exclude each other", other.JSONName(), fd.JSONName())
			return
		}
	}
	switch {
	case fd.IsMap():
		r.protoMap(v, m.Mutable(fd).Map(), fd)
	case fd.IsList():
		r.protoList(v, m.Mutable(fd).List(), fd)
	case fd.Message() != nil:
		r.message(v, m.Mutable(fd).Message())
	default:
		if value, ok := r.protoScalar(v, fd); ok {
			m.Set(fd, value)
		}
	}
}

// told tells whether the survey has reported the key as a duplicate.
func (r *Reader) told(k *yaml.Node) bool {
	return slices.ContainsFunc(r.Problems, func(p policy.Problem) bool { return p.Code == CodeDuplicateKey && p.At.Line == k.Line })
}

func takesNull(fd protoreflect.FieldDescriptor) bool {
	return fd.Message() != nil && fd.Message().FullName() == "google.protobuf.Value" && !fd.IsList() && !fd.IsMap()
}

func (r *Reader) protoList(n *yaml.Node, list protoreflect.List, fd protoreflect.FieldDescriptor) {
	if n.Kind != yaml.SequenceNode {
		r.wrongType(n, wantList)
		return
	}
	for i, c := range n.Content {
		r.path.pushIndex(i)
		switch {
		case fd.Message() != nil:
			if Null(c) && fd.Message().FullName() != "google.protobuf.Value" {
				r.fail(c, CodeWrongType, "remove the empty item", "an item of a list is empty")
			}
			item := list.NewElement()
			r.message(c, item.Message())
			list.Append(item)
		default:
			if value, ok := r.protoScalar(c, fd); ok {
				list.Append(value)
			}
		}
		r.path.pop()
	}
}

func (r *Reader) protoMap(n *yaml.Node, m protoreflect.Map, fd protoreflect.FieldDescriptor) {
	if n.Kind != yaml.MappingNode {
		r.wrongType(n, wantMapping)
		return
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		r.path.push(k.Value)
		r.protoEntry(k, v, m, fd)
		r.path.pop()
	}
}

func (r *Reader) protoEntry(k, v *yaml.Node, m protoreflect.Map, fd protoreflect.FieldDescriptor) {
	key, ok := r.protoKey(k, fd.MapKey())
	if !ok {
		return
	}
	if fd.MapValue().Message() != nil {
		item := m.NewValue()
		r.message(v, item.Message())
		m.Set(key, item)
		return
	}
	if value, ok := r.protoScalar(v, fd.MapValue()); ok {
		m.Set(key, value)
	}
}

func (r *Reader) protoKey(k *yaml.Node, fd protoreflect.FieldDescriptor) (protoreflect.MapKey, bool) {
	if k.Kind == yaml.ScalarNode && fd.Kind() == protoreflect.StringKind {
		return protoreflect.ValueOfString(k.Value).MapKey(), true
	}
	v, ok := r.protoScalar(k, fd)
	if !ok {
		return protoreflect.MapKey{}, false
	}
	return v.MapKey(), true
}

func (r *Reader) protoScalar(n *yaml.Node, fd protoreflect.FieldDescriptor) (protoreflect.Value, bool) {
	switch fd.Kind() {
	case protoreflect.StringKind:
		text, ok := r.text(n)
		return protoreflect.ValueOfString(text), ok
	case protoreflect.BoolKind:
		b, ok := boolean(n)
		if !ok {
			r.wrongType(n, wantBool)
		}
		return protoreflect.ValueOfBool(b), ok
	case protoreflect.EnumKind:
		return r.protoEnum(n, fd.Enum())
	case protoreflect.BytesKind:
		return r.protoBytes(n)
	default:
		return r.protoNumber(n, fd.Kind())
	}
}

func (r *Reader) protoEnum(n *yaml.Node, ed protoreflect.EnumDescriptor) (protoreflect.Value, bool) {
	if text, ok := number(n); ok {
		i, whole := signed(text, 32)
		if whole && ed.Values().ByNumber(protoreflect.EnumNumber(i)) != nil {
			return protoreflect.ValueOfEnum(protoreflect.EnumNumber(i)), true
		}
		r.badEnum(n, ed)
		return protoreflect.Value{}, false
	}
	text, ok := r.text(n)
	if !ok {
		return protoreflect.Value{}, false
	}
	if v := ed.Values().ByName(protoreflect.Name(text)); v != nil {
		return protoreflect.ValueOfEnum(v.Number()), true
	}
	r.badEnum(n, ed)
	return protoreflect.Value{}, false
}

func (r *Reader) badEnum(n *yaml.Node, ed protoreflect.EnumDescriptor) {
	names := make([]string, ed.Values().Len())
	for i := range names {
		names[i] = string(ed.Values().Get(i).Name())
	}
	try := "one of " + strings.Join(names, ", ")
	if near, ok := Nearest(n.Value, names); ok {
		try = "did you mean " + near + "?"
	}
	r.fail(n, CodeBadEnum, try, "%q is no valid value", n.Value)
}

func (r *Reader) protoBytes(n *yaml.Node) (protoreflect.Value, bool) {
	text, ok := r.text(n)
	if !ok {
		return protoreflect.Value{}, false
	}
	for _, enc := range []*base64.Encoding{base64.StdEncoding, base64.RawStdEncoding, base64.URLEncoding, base64.RawURLEncoding} {
		if b, err := enc.DecodeString(text); err == nil {
			return protoreflect.ValueOfBytes(b), true
		}
	}
	r.fail(n, CodeBadValue, "", "is no base64")
	return protoreflect.Value{}, false
}

// protoNumber also takes a number in quotes, as protobuf's JSON mapping does.
func (r *Reader) protoNumber(n *yaml.Node, kind protoreflect.Kind) (protoreflect.Value, bool) {
	text, ok := number(n)
	if !ok {
		if text, ok = Text(n); !ok || text == "" || strings.TrimSpace(text) != text {
			r.wrongType(n, wantNumber)
			return protoreflect.Value{}, false
		}
	}
	var v protoreflect.Value
	switch kind {
	case protoreflect.Int32Kind, protoreflect.Sint32Kind, protoreflect.Sfixed32Kind:
		var i int64
		i, ok = signed(text, 32)
		v = protoreflect.ValueOfInt32(int32(i))
	case protoreflect.Int64Kind, protoreflect.Sint64Kind, protoreflect.Sfixed64Kind:
		var i int64
		i, ok = signed(text, 64)
		v = protoreflect.ValueOfInt64(i)
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		var u uint64
		u, ok = unsigned(text, 32)
		v = protoreflect.ValueOfUint32(uint32(u))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		var u uint64
		u, ok = unsigned(text, 64)
		v = protoreflect.ValueOfUint64(u)
	case protoreflect.FloatKind:
		var f float64
		f, ok = floating(text)
		v = protoreflect.ValueOfFloat32(float32(f))
	default:
		var f float64
		f, ok = floating(text)
		v = protoreflect.ValueOfFloat64(f)
	}
	if !ok {
		_, isNumber := number(n)
		r.notNumber(n, isNumber, wantNumber)
	}
	return v, ok
}
