package opa

import (
	"bytes"
	"errors"
	"io"
	"mime"
	"mime/multipart"
	"net/url"
	"strconv"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
)

var errCutBody = errors.New("the body was cut, and a policy must not take what is missing for absent")

// bodyError is a body that does not parse as what its content type says.
type bodyError struct{ cause error }

func (e *bodyError) Error() string { return "body: " + e.cause.Error() }
func (e *bodyError) Unwrap() error { return e.cause }

// parsedBody is parsed_body: JSON, forms and multipart forms; null for anything else and where Envoy sent no body. A body that Envoy cut is an
// error, and so a denial, as is one that does not parse.
func parsedBody(r *request) (body *ast.Term, cut bool, err error) {
	http := r.check.GetAttributes().GetRequest().GetHttp()
	raw := http.GetRawBody()
	if len(raw) == 0 {
		raw = []byte(http.GetBody())
	}
	if len(raw) == 0 {
		return ast.NullTerm(), false, nil
	}
	if isCut(r.headers, len(raw)) {
		return nil, true, errCutBody
	}
	kind := r.headers["content-type"]
	switch {
	case strings.Contains(kind, "application/json"):
		body, err = fromJSON(raw)
	case strings.Contains(kind, "application/x-www-form-urlencoded"):
		var values url.Values
		if values, err = url.ParseQuery(string(raw)); err == nil {
			body = valuesTerm(values)
		}
	case strings.Contains(kind, "multipart/form-data"):
		body, err = multipartTerm(kind, raw)
	default:
		return ast.NullTerm(), false, nil
	}
	if err != nil {
		return nil, false, &bodyError{err}
	}
	return body, false, nil
}

func isCut(headers map[string]string, size int) bool {
	if headers["x-envoy-auth-partial-body"] == "true" {
		return true
	}
	length, ok := headers["content-length"]
	if !ok {
		return false
	}
	n, err := strconv.ParseInt(length, 10, 64)
	return err != nil || n > int64(size)
}

func multipartTerm(kind string, raw []byte) (*ast.Term, error) {
	_, params, err := mime.ParseMediaType(kind)
	if err != nil {
		return nil, err
	}
	reader := multipart.NewReader(bytes.NewReader(raw), params["boundary"])
	fields := map[string][]*ast.Term{}
	for {
		part, err := reader.NextPart()
		if errors.Is(err, io.EOF) {
			break
		} else if err != nil {
			return nil, err
		}
		if part.FormName() == "" {
			continue
		}
		content, err := io.ReadAll(part)
		if err != nil {
			return nil, err
		}
		term := ast.StringTerm(string(content))
		if strings.Contains(part.Header.Get("Content-Type"), "application/json") {
			if term, err = fromJSON(content); err != nil {
				return nil, err
			}
		}
		fields[part.FormName()] = append(fields[part.FormName()], term)
	}
	var o object
	for name, terms := range fields {
		o.put(name, ast.ArrayTerm(terms...))
	}
	return o.term(), nil
}
