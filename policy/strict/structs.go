package strict

import (
	"encoding"
	"encoding/base64"
	"encoding/json"
	"reflect"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/proto"
)

type structType = reflect.Type

// structFields are the json names of a struct, those of inlined structs included.
type structFields struct {
	index map[string][]int
	names []string
}

func (r *Reader) fields(t reflect.Type) structFields {
	if f, ok := r.structs[t]; ok {
		return f
	}
	f := structFields{index: map[string][]int{}}
	f.gather(t, nil)
	r.structs[t] = f
	return f
}

func (f *structFields) gather(t reflect.Type, at []int) {
	for i := range t.NumField() {
		field := t.Field(i)
		here := append(append([]int(nil), at...), i)
		name, options, _ := strings.Cut(field.Tag.Get("json"), ",")
		inline := field.Anonymous && name == "" || strings.Contains(options, "inline")
		switch {
		case name == "-":
		case inline && field.Type.Kind() == reflect.Struct:
			f.gather(field.Type, here)
		case field.IsExported():
			if name == "" {
				name = field.Name
			}
			f.index[name] = here
			f.names = append(f.names, name)
		}
	}
}

var durationType = reflect.TypeFor[time.Duration]()

func (r *Reader) value(n *yaml.Node, v reflect.Value) {
	if Null(n) {
		return
	}
	if r.custom(n, v) {
		return
	}
	switch v.Kind() {
	case reflect.Pointer:
		p := reflect.New(v.Type().Elem())
		r.value(n, p.Elem())
		v.Set(p)
	case reflect.Struct:
		r.structure(n, v)
	case reflect.Map:
		r.mapping(n, v)
	case reflect.Slice:
		r.slice(n, v)
	case reflect.Interface:
		v.Set(reflect.ValueOf(Any(n)))
	default:
		r.scalar(n, v)
	}
}

// custom decodes the types that read themselves: quantities, times, int-or-string and the like.
func (r *Reader) custom(n *yaml.Node, v reflect.Value) bool {
	if v.Type() == durationType {
		r.duration(n, v)
		return true
	}
	if !v.CanAddr() || v.Kind() == reflect.Pointer {
		return false
	}
	switch u := v.Addr().Interface().(type) {
	case proto.Message: // before json.Unmarshaler, which Istio's messages also are
		r.message(n, u.ProtoReflect())
		return true
	case json.Unmarshaler:
		text, err := JSON(n)
		if err == nil {
			err = u.UnmarshalJSON(text)
		}
		if err != nil {
			r.fail(n, CodeBadValue, "", "is no valid %s", typeName(v.Type()))
		}
		return true
	case encoding.TextUnmarshaler:
		if text, ok := r.text(n); ok && u.UnmarshalText([]byte(text)) != nil {
			r.fail(n, CodeBadValue, "", "is no valid %s", typeName(v.Type()))
		}
		return true
	}
	return false
}

func typeName(t reflect.Type) string {
	switch t.Name() {
	case "IntOrString":
		return "number or name"
	case "Time", "MicroTime":
		return "time, such as 2026-01-31T12:00:00Z"
	default:
		return strings.ToLower(t.Name())
	}
}

func (r *Reader) duration(n *yaml.Node, v reflect.Value) {
	text, ok := r.text(n)
	if !ok {
		return
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		r.fail(n, CodeBadValue, "a number and a unit, such as 200ms, 5s or 1h", "is no duration")
		return
	}
	v.SetInt(int64(d))
}

func (r *Reader) structure(n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		r.wrongType(n, wantMapping)
		return
	}
	fields := r.fields(v.Type())
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		at, ok := fields.index[k.Value]
		if !ok {
			r.unknown(k, fields.names)
			continue
		}
		r.path.push(k.Value)
		r.value(n.Content[i+1], v.FieldByIndex(at))
		r.path.pop()
	}
}

func (r *Reader) mapping(n *yaml.Node, v reflect.Value) {
	if n.Kind != yaml.MappingNode {
		r.wrongType(n, wantMapping)
		return
	}
	t := v.Type()
	m := reflect.MakeMapWithSize(t, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k := n.Content[i]
		key, item := reflect.New(t.Key()).Elem(), reflect.New(t.Elem()).Elem()
		r.path.push(k.Value)
		if key.Kind() == reflect.String && k.Kind == yaml.ScalarNode {
			key.SetString(k.Value) // as YAML to JSON converters do: a key is a string, quoted or not
		} else {
			r.value(k, key)
		}
		r.value(n.Content[i+1], item)
		m.SetMapIndex(key, item)
		r.path.pop()
	}
	v.Set(m)
}

func (r *Reader) slice(n *yaml.Node, v reflect.Value) {
	if v.Type().Elem().Kind() == reflect.Uint8 {
		if text, ok := r.text(n); ok {
			r.bytes(n, text, v)
		}
		return
	}
	if n.Kind != yaml.SequenceNode {
		r.wrongType(n, wantList)
		return
	}
	s := reflect.MakeSlice(v.Type(), len(n.Content), len(n.Content))
	for i, c := range n.Content {
		r.path.pushIndex(i)
		if Null(c) {
			r.fail(c, CodeWrongType, "remove the empty item", "an item of a list is empty")
		}
		r.value(c, s.Index(i))
		r.path.pop()
	}
	v.Set(s)
}

func (r *Reader) bytes(n *yaml.Node, text string, v reflect.Value) {
	b, err := base64.StdEncoding.DecodeString(text)
	if err != nil {
		r.fail(n, CodeBadValue, "encode the value (base64 -w0), or use stringData", "is no base64")
		return
	}
	v.SetBytes(b)
}

func (r *Reader) text(n *yaml.Node) (string, bool) {
	text, ok := Text(n)
	if !ok {
		r.wrongType(n, wantString)
	}
	return text, ok
}

func (r *Reader) scalar(n *yaml.Node, v reflect.Value) {
	switch v.Kind() {
	case reflect.String:
		if text, ok := r.text(n); ok {
			v.SetString(text)
		}
	case reflect.Bool:
		b, ok := boolean(n)
		if !ok {
			r.wrongType(n, wantBool)
		}
		v.SetBool(b)
	case reflect.Int, reflect.Int8, reflect.Int16, reflect.Int32, reflect.Int64:
		text, ok := number(n)
		i, whole := signed(text, v.Type().Bits())
		if !ok || !whole {
			r.notNumber(n, ok, wantInteger)
		}
		v.SetInt(i)
	case reflect.Uint, reflect.Uint8, reflect.Uint16, reflect.Uint32, reflect.Uint64:
		text, ok := number(n)
		u, whole := unsigned(text, v.Type().Bits())
		if !ok || !whole {
			r.notNumber(n, ok, wantInteger)
		}
		v.SetUint(u)
	case reflect.Float32, reflect.Float64:
		text, ok := number(n)
		f, finite := floating(text)
		if !ok || !finite {
			r.notNumber(n, ok, wantNumber)
		}
		v.SetFloat(f)
	default:
		r.fail(n, CodeWrongType, "", "is not supported here")
	}
}

// notNumber tells a number of the wrong size or shape from what is no number at all.
func (r *Reader) notNumber(n *yaml.Node, isNumber bool, want string) {
	if isNumber {
		r.fail(n, CodeBadValue, "", "is no whole number in the range of this field")
		return
	}
	r.wrongType(n, want)
}
