package patch

import (
	"encoding/json"
	"errors"
	"fmt"
	"regexp"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/credence-mesh/credence/xds/resource"
)

// decode reads the value of a patch into a message, strictly: a field that the message does not have is an error.
func decode(value *structpb.Struct, into proto.Message) error {
	if value == nil {
		return errors.New("the patch has no value")
	}
	plain, err := untype(value.AsMap(), 0)
	if err != nil {
		return err
	}
	text, err := json.Marshal(plain)
	if err != nil {
		return err
	}
	if err := protojson.Unmarshal(text, into); err != nil {
		return errors.New(position.ReplaceAllString(strings.ReplaceAll(err.Error(), "\u00a0", " "), ""))
	}
	return nil
}

// position is the place in JSON that nobody wrote.
var position = regexp.MustCompile(`^proto: *|\(line \d+:\d+\): *`)

const maxDepth = 100

// untype turns a TypedStruct, in either of its packages, into the message that it stands for.
func untype(v any, depth int) (any, error) {
	if depth > maxDepth {
		return nil, errors.New("nested too deep")
	}
	switch v := v.(type) {
	case map[string]any:
		if url, _ := v["@type"].(string); strings.HasSuffix(url, "/udpa.type.v1.TypedStruct") || strings.HasSuffix(url, "/xds.type.v3.TypedStruct") {
			return typed(v, depth)
		}
		for k, inner := range v {
			plain, err := untype(inner, depth+1)
			if err != nil {
				return nil, err
			}
			v[k] = plain
		}
	case []any:
		for i, inner := range v {
			plain, err := untype(inner, depth+1)
			if err != nil {
				return nil, err
			}
			v[i] = plain
		}
	}
	return v, nil
}

func typed(v map[string]any, depth int) (any, error) {
	url, _ := v["type_url"].(string)
	if camel, ok := v["typeUrl"].(string); ok {
		url = camel
	}
	if url == "" {
		return nil, errors.New("a TypedStruct without type_url")
	}
	if !strings.Contains(url, "/") {
		url = "type.googleapis.com/" + url
	}
	inner, ok := v["value"].(map[string]any)
	if !ok {
		inner = map[string]any{}
	}
	inner["@type"] = url
	for k := range v {
		switch k {
		case "@type", "type_url", "typeUrl", "value":
		default:
			return nil, fmt.Errorf("a TypedStruct has no field %q", k)
		}
	}
	return untype(inner, depth+1)
}

// repack makes the bytes of a message packed in an Any the same whatever the input's order.
func repack(packed *anypb.Any) (*anypb.Any, error) {
	if packed == nil {
		return nil, errors.New("the value has no typed_config")
	}
	m, err := packed.UnmarshalNew()
	if err != nil {
		return nil, fmt.Errorf("%s: %w", packed.TypeUrl, err)
	}
	return resource.Pack(m)
}

// merge adds what from says to into. Two packed messages of one type are merged too.
func merge(into, from *anypb.Any) (*anypb.Any, error) {
	if from == nil {
		return into, nil
	}
	if into == nil {
		return repack(from)
	}
	if into.TypeUrl != from.TypeUrl {
		return nil, fmt.Errorf("cannot merge %s into %s", from.TypeUrl, into.TypeUrl)
	}
	a, err := into.UnmarshalNew()
	if err != nil {
		return nil, err
	}
	b, err := from.UnmarshalNew()
	if err != nil {
		return nil, err
	}
	proto.Merge(a, b)
	return resource.Pack(a)
}
