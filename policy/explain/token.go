package explain

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"slices"
	"strconv"
	"strings"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

// token is a JSON Web Token, read and not yet believed.
type token struct {
	alg, kid           string
	claims             *structpb.Struct
	issuer             string
	audiences          []string
	expires, notBefore float64 // seconds; 0: not said
	rawPayload         string
	signed             string // what the signature is of
	signature          []byte
}

// parse reads a token as Envoy does, which takes no notice of dots too many; says is what is wrong with it.
func parse(s string) (t token, says string) {
	parts := strings.FieldsFunc(s, func(c rune) bool { return c == '.' })
	if len(parts) != 3 {
		return t, "it has not three parts"
	}
	header, ok := fields(parts[0])
	if !ok {
		return t, "its header is not base64url of JSON"
	}
	if t.alg, ok = stringOf(header, "alg"); !ok || t.alg == "" {
		return t, "its header has no alg"
	}
	if t.kid, ok = stringOf(header, "kid"); !ok {
		return t, "its kid is no string"
	}
	if t.claims, ok = fields(parts[1]); !ok {
		return t, "its payload is not base64url of JSON"
	}
	if says := t.read(); says != "" {
		return t, says
	}
	t.rawPayload, t.signed = parts[1], parts[0]+"."+parts[1]
	var err error
	if t.signature, err = decode(parts[2]); err != nil || len(t.signature) == 0 {
		return t, "its signature is not base64url"
	}
	return t, ""
}

func (t *token) read() string {
	for _, name := range []string{"iss", "sub", "jti"} {
		if _, ok := stringOf(t.claims, name); !ok {
			return name + " is no string"
		}
	}
	t.issuer, _ = stringOf(t.claims, "iss")
	for name, to := range map[string]*float64{"iat": new(float64), "nbf": &t.notBefore, "exp": &t.expires} {
		v, has := t.claims.GetFields()[name]
		if !has {
			continue
		}
		n, ok := v.GetKind().(*structpb.Value_NumberValue)
		if !ok || n.NumberValue < 0 {
			return name + " is no time"
		}
		*to = math.Floor(n.NumberValue)
	}
	switch aud := t.claims.GetFields()["aud"]; k := aud.GetKind().(type) {
	case nil:
	case *structpb.Value_StringValue:
		t.audiences = []string{k.StringValue}
	case *structpb.Value_ListValue:
		for _, v := range k.ListValue.GetValues() {
			s, ok := v.GetKind().(*structpb.Value_StringValue)
			if !ok {
				return "aud is no list of strings"
			}
			t.audiences = append(t.audiences, s.StringValue)
		}
	default:
		return "aud is neither a string nor a list"
	}
	return ""
}

// isFor compares audiences as Envoy does: without the scheme, and without a slash at the end.
func (t *token) isFor(accepted []string) bool {
	plain := func(s string) string {
		for _, scheme := range []string{"https://", "http://"} {
			s = strings.TrimPrefix(s, scheme)
		}
		return strings.TrimSuffix(s, "/")
	}
	return slices.ContainsFunc(t.audiences, func(a string) bool {
		return slices.ContainsFunc(accepted, func(b string) bool { return plain(a) == plain(b) })
	})
}

func decode(s string) ([]byte, error) {
	return base64.RawURLEncoding.DecodeString(strings.TrimRight(s, "="))
}

func fields(part string) (*structpb.Struct, bool) {
	b, err := decode(part)
	if err != nil || !json.Valid(b) {
		return nil, false
	}
	out := &structpb.Struct{}
	return out, protojson.Unmarshal(b, out) == nil
}

// stringOf is a string; false where the field is something else. One that is not there is empty.
func stringOf(s *structpb.Struct, name string) (string, bool) {
	v, has := s.GetFields()[name]
	if !has {
		return "", true
	}
	_, ok := v.GetKind().(*structpb.Value_StringValue)
	return v.GetStringValue(), ok
}

// claimText is a claim as it is copied into a header: only strings, numbers and booleans are text; lists and objects are their JSON in base64.
func claimText(claims *structpb.Struct, name string) (string, bool) {
	v := nested(claims, name)
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return k.StringValue, k.StringValue != ""
	case *structpb.Value_BoolValue:
		return strconv.FormatBool(k.BoolValue), true
	case *structpb.Value_NumberValue:
		if n := k.NumberValue; n >= 0 && n == math.Trunc(n) && n < math.MaxUint64 {
			return strconv.FormatUint(uint64(n), 10), true
		}
		return strconv.FormatFloat(k.NumberValue, 'f', 6, 64), true
	case *structpb.Value_ListValue, *structpb.Value_StructValue:
		b, err := protojson.Marshal(v)
		return base64.StdEncoding.EncodeToString(b), err == nil
	default:
		return "", false
	}
}

// nested descends by dots.
func nested(s *structpb.Struct, name string) *structpb.Value {
	head, rest, more := strings.Cut(name, ".")
	v := s.GetFields()[head]
	if !more {
		return v
	}
	return nested(v.GetStructValue(), rest)
}
