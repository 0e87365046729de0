package translate

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// eachPacked calls visit for every message that is packed in an Any somewhere in m, however deep.
func eachPacked(m protoreflect.Message, visit func(proto.Message)) error {
	if packed, ok := m.Interface().(*anypb.Any); ok {
		inner, err := packed.UnmarshalNew()
		if err != nil {
			return fmt.Errorf("%s: %w", packed.TypeUrl, err)
		}
		visit(inner)
		return eachPacked(inner.ProtoReflect(), visit)
	}
	var err error
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() && f.MapValue().Message() != nil:
			v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool {
				err = eachPacked(v.Message(), visit)
				return err == nil
			})
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			for i := 0; i < v.List().Len() && err == nil; i++ {
				err = eachPacked(v.List().Get(i).Message(), visit)
			}
		default:
			err = eachPacked(v.Message(), visit)
		}
		return err == nil
	})
	return err
}
