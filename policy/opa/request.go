package opa

import (
	"net/url"
	"strings"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/credence-mesh/credence/identity"
)

// jwtNamespace and jwtPayload are where Envoy's jwt_authn filter puts the payload of a token that it has verified.
const (
	jwtNamespace = "envoy.filters.http.jwt_authn"
	jwtPayload   = "payload"
)

// request is a CheckRequest, made safe to decide on.
type request struct {
	check   *authv3.CheckRequest
	caller  identity.Proven // zero: this process
	headers map[string]string
	path    string // canonical, without the query
	query   string
	claims  *structpb.Struct // verified on this hop; nil: none
}

// newRequest makes the path canonical, finds the verified claims, and drops every token that is not the verified one.
func newRequest(check *authv3.CheckRequest) (*request, error) {
	a := check.GetAttributes()
	http := a.GetRequest().GetHttp()
	r := &request{check: check}
	var err error
	if r.path, r.query, err = canonical(http.GetPath()); err != nil {
		return nil, err
	}
	if http.GetQuery() != "" && r.query == "" {
		r.query = http.GetQuery()
	}
	r.claims = a.GetMetadataContext().GetFilterMetadata()[jwtNamespace].GetFields()[jwtPayload].GetStructValue()
	r.headers = make(map[string]string, len(http.GetHeaders()))
	for name, value := range allHeaders(http) {
		if r.trusted(name, value) {
			r.headers[name] = value
		}
	}
	if _, ok := r.headers[":path"]; ok {
		r.headers[":path"] = r.path
	}
	r.query = r.trustedQuery()
	return r, nil
}

// allHeaders are the headers in either of the two forms in which Envoy sends them; repeated ones are joined by commas in both.
func allHeaders(http *authv3.AttributeContext_HttpRequest) map[string]string {
	if len(http.GetHeaderMap().GetHeaders()) == 0 {
		return http.GetHeaders()
	}
	out := map[string]string{}
	for _, h := range http.GetHeaderMap().GetHeaders() {
		name, value := strings.ToLower(h.GetKey()), h.GetValue()
		if len(h.GetRawValue()) > 0 {
			value = string(h.GetRawValue())
		}
		if had, ok := out[name]; ok {
			value = had + "," + value
		}
		out[name] = value
	}
	return out
}

// trusted tells whether a policy may see a header: a token that was not verified on this hop must not be decoded and believed.
func (r *request) trusted(name, value string) bool {
	if name == "authorization" {
		scheme, token, _ := strings.Cut(value, " ")
		if strings.EqualFold(scheme, "bearer") {
			return r.verified(strings.TrimSpace(token))
		}
	}
	return r.noForeignToken(value)
}

// trustedQuery drops the pairs whose value is a token that was not verified.
func (r *request) trustedQuery() string {
	if !strings.Contains(r.query, ".") && !strings.Contains(r.query, "%2") {
		return r.query
	}
	var kept []string
	for pair := range strings.SplitSeq(r.query, "&") {
		plain, err := url.QueryUnescape(pair)
		if r.noForeignToken(pair) && (err != nil || r.noForeignToken(plain)) {
			kept = append(kept, pair)
		}
	}
	return strings.Join(kept, "&")
}

// input is the document that policies see: opa-envoy-plugin's, and beside it what policies written for other set-ups expect, from verified
// claims alone.
func (r *request) input() (ast.Value, error) {
	attributes, err := attributes(r)
	if err != nil {
		return nil, err
	}
	body, cut, err := parsedBody(r)
	if err != nil {
		return nil, err
	}
	o := make(object, 0, 12)
	o.put("attributes", attributes)
	o.put("parsed_path", pathTerm(r.path))
	o.put("parsed_query", queryTerm(r.query))
	o.put("parsed_body", body)
	o.put("truncated_body", ast.BooleanTerm(cut))
	o.put("version", ast.ObjectTerm(ast.Item(ast.StringTerm("encoding"), ast.StringTerm("protojson")), ast.Item(ast.StringTerm("ext_authz"), ast.StringTerm("v3"))))
	o.put("path", ast.StringTerm(r.path))
	if r.caller.Workload != (identity.Workload{}) {
		o.put("credence", callerTerm(r.caller))
	}
	o.text("method", r.check.GetAttributes().GetRequest().GetHttp().GetMethod())
	o.text("source_principal", r.check.GetAttributes().GetSource().GetPrincipal())
	if r.claims != nil {
		o.put("claims", structTerm(r.claims))
		o.text("tenant_id", r.claims.GetFields()["tenant_id"].GetStringValue())
		o.put("roles", rolesTerm(r.claims.GetFields()["roles"]))
	}
	return o.term().Value, nil
}

// rolesTerm is always a list, also of one role that is written as a string.
func rolesTerm(v *structpb.Value) *ast.Term {
	switch k := v.GetKind().(type) {
	case *structpb.Value_ListValue:
		return valueTerm(v)
	case *structpb.Value_StringValue:
		return ast.ArrayTerm(ast.StringTerm(k.StringValue))
	default:
		return nil
	}
}
