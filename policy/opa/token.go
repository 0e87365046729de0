package opa

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
)

// verified tells whether a token says exactly what was verified on this hop. Nothing was verified: no token is.
func (r *request) verified(token string) bool {
	parts := strings.Split(token, ".")
	if len(parts) != 3 || r.claims == nil {
		return false
	}
	header, ok := decodeSegment(parts[0])
	if !ok {
		return false
	}
	var h struct {
		Nested any `json:"cty"` // a token in a token: what a policy decodes is the inner one, which nobody compared
	}
	if json.Unmarshal(header, &h) != nil || h.Nested != nil {
		return false
	}
	payload, ok := decodeSegment(parts[1])
	if !ok {
		return false
	}
	d := json.NewDecoder(bytes.NewReader(payload))
	var claims map[string]any
	if d.Decode(&claims) != nil || d.More() {
		return false
	}
	return sameObject(claims, r.claims)
}

// noForeignToken tells that a text holds no token but verified ones. It looks at every run of three parts that begins with a JSON object, as
// nobody knows how a policy cuts the text.
func (r *request) noForeignToken(text string) bool {
	if strings.Count(text, ".") < 2 {
		return true
	}
	for _, run := range strings.FieldsFunc(text, func(c rune) bool { return !tokenRune(c) }) {
		parts := strings.Split(run, ".")
		for i := 0; i+2 < len(parts); i++ {
			if isObject(parts[i]) && !r.verified(strings.Join(parts[i:i+3], ".")) {
				return false
			}
		}
	}
	return true
}

func tokenRune(c rune) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || strings.ContainsRune("-_.=+/\r\n", c)
}

// isObject tells whether the end of a segment decodes to a JSON object: what stands before it may belong to something else, as in "jwt=ey…".
func isObject(segment string) bool {
	for _, part := range strings.FieldsFunc(segment, func(c rune) bool { return c == '=' || c == '/' || c == '+' }) {
		for cut := range min(len(part), maxTokenPrefix) {
			if b, ok := decodeSegment(part[cut:]); ok && json.Valid(b) && bytes.HasPrefix(bytes.TrimSpace(b), []byte("{")) {
				return true
			}
		}
	}
	return false
}

// maxTokenPrefix is how many characters that could belong to a token may stand before it, as in "Bearer-ey…".
const maxTokenPrefix = 16

// decodeSegment decodes base64url with or without padding, as OPA does.
func decodeSegment(s string) ([]byte, bool) {
	b, err := base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
	return b, err == nil
}

func sameObject(a map[string]any, b *structpb.Struct) bool {
	if len(a) != len(b.GetFields()) {
		return false
	}
	for k, v := range a {
		w, ok := b.GetFields()[k]
		if !ok || !sameValue(v, w) {
			return false
		}
	}
	return true
}

// sameText also takes a list for a string: Envoy splits claims such as scope on spaces where it is told to (space_delimited_claims).
func sameText(a string, b *structpb.Value) bool {
	switch k := b.GetKind().(type) {
	case *structpb.Value_StringValue:
		return a == k.StringValue
	case *structpb.Value_ListValue:
		words := strings.Fields(a)
		return slices.EqualFunc(words, k.ListValue.GetValues(), func(w string, v *structpb.Value) bool { return w == v.GetStringValue() })
	default:
		return false
	}
}

func sameValue(a any, b *structpb.Value) bool {
	switch x := a.(type) {
	case nil:
		_, ok := b.GetKind().(*structpb.Value_NullValue)
		return ok
	case bool:
		y, ok := b.GetKind().(*structpb.Value_BoolValue)
		return ok && x == y.BoolValue
	case float64:
		y, ok := b.GetKind().(*structpb.Value_NumberValue)
		return ok && x == y.NumberValue
	case string:
		return sameText(x, b)
	case map[string]any:
		y, ok := b.GetKind().(*structpb.Value_StructValue)
		return ok && sameObject(x, y.StructValue)
	case []any:
		y, ok := b.GetKind().(*structpb.Value_ListValue)
		if !ok || len(x) != len(y.ListValue.GetValues()) {
			return false
		}
		for i := range x {
			if !sameValue(x[i], y.ListValue.GetValues()[i]) {
				return false
			}
		}
		return true
	default:
		return false
	}
}
