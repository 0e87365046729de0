package opa

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"net/http"
	"slices"
	"strings"

	"google.golang.org/protobuf/types/known/structpb"
)

// result is what a policy said, in the forms of opa-envoy-plugin: a boolean, or an object.
type result struct {
	allowed     bool
	status      int
	body        string
	headers     []pair // of the request if allowed, of the response if not
	response    []pair // of the response if allowed
	remove      []string
	setQuery    []pair
	removeQuery []string
	metadata    *structpb.Struct
}

type pair struct{ name, value string }

var (
	errUndefined = errors.New("the decision is undefined")
	errNoVerdict = errors.New("the decision is neither a boolean nor an object with a boolean `allowed`")
	errHeader    = errors.New("the decision has an invalid header")
	errField     = errors.New("the decision has a field of the wrong type")
)

// parseResult reads a decision. Everything that is not understood is an error, and so a denial.
func parseResult(v any) (result, error) {
	switch x := v.(type) {
	case bool:
		return result{allowed: x, status: http.StatusForbidden}, nil
	case map[string]any:
		return parseObject(x)
	default:
		return result{}, errNoVerdict
	}
}

func parseObject(m map[string]any) (result, error) {
	allowed, ok := m["allowed"].(bool)
	if !ok {
		return result{}, errNoVerdict
	}
	r := result{allowed: allowed, status: http.StatusForbidden}
	var errs [8]error
	r.headers, errs[0] = headerPairs(m["headers"])
	r.response, errs[1] = headerPairs(m["response_headers_to_add"])
	r.remove, errs[2] = headerNames(m["request_headers_to_remove"])
	r.setQuery, errs[3] = pairs(m["query_parameters_to_set"])
	r.removeQuery, errs[4] = texts(m["query_parameters_to_remove"])
	r.metadata, errs[5] = object2struct(m["dynamic_metadata"])
	r.status, errs[6] = statusCode(m["http_status"])
	if body, said := m["body"]; said {
		if r.body, ok = body.(string); !ok {
			errs[7] = fmt.Errorf("body: %w", errField)
		}
	}
	return r, errors.Join(errs[:]...)
}

// pairs reads an object of strings or lists of strings, also one inside a list.
func pairs(v any) ([]pair, error) {
	var out []pair
	switch x := v.(type) {
	case nil:
		return nil, nil
	case []any:
		for _, item := range x {
			p, err := pairs(item)
			if err != nil {
				return nil, err
			}
			out = append(out, p...)
		}
		return out, nil
	case map[string]any:
		for _, name := range slices.Sorted(maps.Keys(x)) {
			values, err := texts(x[name])
			if err != nil {
				return nil, fmt.Errorf("%s: %w", name, err)
			}
			for _, value := range values {
				out = append(out, pair{name, value})
			}
		}
		return out, nil
	default:
		return nil, errField
	}
}

func texts(v any) ([]string, error) {
	switch x := v.(type) {
	case nil:
		return nil, nil
	case string:
		return []string{x}, nil
	case []any:
		out := make([]string, len(x))
		for i, item := range x {
			s, ok := item.(string)
			if !ok {
				return nil, errField
			}
			out[i] = s
		}
		return out, nil
	default:
		return nil, errField
	}
}

func headerPairs(v any) ([]pair, error) {
	out, err := pairs(v)
	for _, p := range out {
		if !validName(p.name) || strings.ContainsAny(p.value, "\r\n\x00") {
			return nil, fmt.Errorf("%q: %w", p.name, errHeader)
		}
	}
	return out, err
}

func headerNames(v any) ([]string, error) {
	out, err := texts(v)
	for _, name := range out {
		if !validName(name) {
			return nil, fmt.Errorf("%q: %w", name, errHeader)
		}
	}
	return out, err
}

// validName refuses pseudo headers (":path"), the host, which routing has already used, and what is no token.
func validName(name string) bool {
	if name == "" || strings.EqualFold(name, "host") {
		return false
	}
	for _, c := range []byte(name) {
		letter := 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9'
		if !letter && !strings.ContainsRune("!#$%&'*+-.^_`|~", rune(c)) {
			return false
		}
	}
	return true
}

func object2struct(v any) (*structpb.Struct, error) {
	m, ok := v.(map[string]any)
	if v == nil {
		return nil, nil
	} else if !ok {
		return nil, fmt.Errorf("dynamic_metadata: %w", errField)
	}
	b, err := json.Marshal(m)
	if err != nil {
		return nil, err
	}
	s := &structpb.Struct{}
	return s, s.UnmarshalJSON(b)
}

// statusCode is the status of a denial; one that Envoy could not send, or that means success, is an error.
func statusCode(v any) (int, error) {
	if v == nil {
		return http.StatusForbidden, nil
	}
	n, ok := v.(json.Number)
	if !ok {
		return 0, fmt.Errorf("http_status: %w", errField)
	}
	code, err := n.Int64()
	if err != nil || code < 300 || code > 599 {
		return 0, fmt.Errorf("http_status: %w", errField)
	}
	return int(code), nil
}
