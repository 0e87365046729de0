package kinds

import (
	"fmt"
	"regexp"
	"strings"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/credence-mesh/credence/policy"
)

// The limits of the Gateway API's own schema.
const (
	maxRules   = 16 // rules, hostnames, filters and backends
	maxMatches = 64
	maxParents = 32
)

func httpRoute(o *object) policy.Resource {
	spec := specOf[gatewayv1.HTTPRouteSpec](o)
	if len(spec.ParentRefs) == 0 {
		o.warn("spec", CodeNoParent, "parentRefs: [{name: GATEWAY}]", "the route belongs to no Gateway and has no effect")
	}
	for i, h := range spec.Hostnames {
		if !hostname(string(h)) || address(string(h)) {
			o.refuse(fmt.Sprintf("spec.hostnames[%d]", i), CodeBadValue, "a DNS name: shop.example.com, or *.example.com where a wildcard is meant", "%q is no host name", h)
		}
	}
	o.atMost("spec.rules", len(spec.Rules), maxRules)
	o.atMost("spec.parentRefs", len(spec.ParentRefs), maxParents)
	o.atMost("spec.hostnames", len(spec.Hostnames), maxRules)
	for i, r := range spec.Rules {
		o.routeRule(fmt.Sprintf("spec.rules[%d]", i), r)
	}
	return &policy.HTTPRoute{Spec: spec}
}

func (o *object) routeRule(at string, r gatewayv1.HTTPRouteRule) {
	o.atMost(at+".matches", len(r.Matches), maxMatches)
	o.atMost(at+".filters", len(r.Filters), maxRules)
	o.atMost(at+".backendRefs", len(r.BackendRefs), maxRules)
	for i, m := range r.Matches {
		o.routeMatch(fmt.Sprintf("%s.matches[%d]", at, i), m)
	}
	types := map[gatewayv1.HTTPRouteFilterType]bool{}
	for i, f := range r.Filters {
		field := fmt.Sprintf("%s.filters[%d]", at, i)
		o.routeFilter(field, f)
		o.filterSettings(field, f)
		if types[f.Type] && f.Type != gatewayv1.HTTPRouteFilterRequestMirror && f.Type != gatewayv1.HTTPRouteFilterExtensionRef {
			o.refuse(field, CodeDuplicateName, "one filter with both settings", "a second filter of type %s in one rule", f.Type)
		}
		types[f.Type] = true
	}
	redirects := types[gatewayv1.HTTPRouteFilterRequestRedirect]
	if redirects && types[gatewayv1.HTTPRouteFilterURLRewrite] {
		o.refuse(at+".filters", CodeConflict, "keep one of them", "a rule redirects or rewrites, not both")
	}
	if redirects && len(r.BackendRefs) > 0 {
		o.refuse(at+".backendRefs", CodeConflict, "remove backendRefs", "a redirect has no backends")
	}
	for i, b := range r.BackendRefs {
		field := fmt.Sprintf("%s.backendRefs[%d]", at, i)
		service := (b.Group == nil || *b.Group == "") && (b.Kind == nil || *b.Kind == "Service")
		if service && b.Port == nil {
			o.refuse(field, CodeMissingField, "port: the Service's port", "a Service as backend needs a port")
		}
		if b.Port != nil {
			o.port(field+".port", int32(*b.Port))
		}
		if b.Weight != nil && *b.Weight < 0 {
			o.refuse(field+".weight", CodeBadValue, "0 or more", "%d is no weight", *b.Weight)
		}
	}
	if t := r.Timeouts; t != nil {
		o.routeTimeout(at+".timeouts.request", t.Request)
		o.routeTimeout(at+".timeouts.backendRequest", t.BackendRequest)
		if whole, one := durationOf(t.Request), durationOf(t.BackendRequest); whole > 0 && one > whole {
			o.refuse(at+".timeouts.backendRequest", CodeConflict, "at most "+string(*t.Request), "one attempt may take longer than the request")
		}
	}
}

// gatewayDuration is the Gateway API's form of a duration.
var gatewayDuration = regexp.MustCompile(`^([0-9]{1,5}(h|m|s|ms)){1,4}$`)

func durationOf(d *gatewayv1.Duration) time.Duration {
	if d == nil || !gatewayDuration.MatchString(string(*d)) {
		return 0
	}
	v, err := time.ParseDuration(string(*d))
	if err != nil {
		return 0
	}
	return v
}

func (o *object) routeTimeout(field string, d *gatewayv1.Duration) {
	if d == nil {
		return
	}
	if !gatewayDuration.MatchString(string(*d)) {
		o.refuse(field, CodeBadValue, "10s, 500ms, 1h30m", "%q is no duration", *d)
	}
}

func (o *object) routeMatch(at string, m gatewayv1.HTTPRouteMatch) {
	if p := m.Path; p != nil && p.Value != nil {
		switch t := p.Type; {
		case t != nil && *t == gatewayv1.PathMatchRegularExpression:
			o.regexp(at+".path.value", *p.Value)
		case t != nil && *t != gatewayv1.PathMatchExact && *t != gatewayv1.PathMatchPathPrefix:
			o.refuse(at+".path.type", CodeBadValue, "Exact, PathPrefix or RegularExpression", "unknown type %q", *t)
		case !strings.HasPrefix(*p.Value, "/"):
			o.refuse(at+".path.value", CodeBadValue, "/"+*p.Value, "a path starts with /")
		case strings.ContainsAny(*p.Value, "?#"):
			o.refuse(at+".path.value", CodeBadValue, "queryParams, for the query", "%q: a path has no query and no fragment", *p.Value)
		case strings.HasSuffix(*p.Value, "/..") || strings.HasSuffix(*p.Value, "/.") || strings.Contains(*p.Value, "/./") || strings.Contains(*p.Value, "//") || strings.Contains(*p.Value, "/../") || strings.Contains(strings.ToLower(*p.Value), "%2f"):
			o.refuse(at+".path.value", CodeBadValue, "the path as it is after //, /./ and /../ are resolved", "%q never arrives: paths are normalised before they are matched", *p.Value)
		}
	}
	o.atMost(at+".headers", len(m.Headers), maxRules)
	o.atMost(at+".queryParams", len(m.QueryParams), maxRules)
	headers, queries := map[string]bool{}, map[string]bool{}
	for i, h := range m.Headers {
		field := fmt.Sprintf("%s.headers[%d]", at, i)
		o.unique(field+".name", "header", strings.ToLower(string(h.Name)), headers)
		o.headerToken(field+".name", string(h.Name))
		if h.Type != nil && *h.Type == gatewayv1.HeaderMatchRegularExpression {
			o.regexp(field+".value", h.Value)
		}
	}
	for i, q := range m.QueryParams {
		o.unique(fmt.Sprintf("%s.queryParams[%d].name", at, i), "parameter", string(q.Name), queries)
		if q.Type != nil && *q.Type == gatewayv1.QueryParamMatchRegularExpression {
			o.regexp(fmt.Sprintf("%s.queryParams[%d].value", at, i), q.Value)
		}
	}
	if m.Method != nil {
		switch *m.Method {
		case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH":
		default:
			o.refuse(at+".method", CodeBadValue, "GET, POST …, in capitals", "unknown method %q", *m.Method)
		}
	}
}

var token = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+\\-.^_`|~]+$")

func (o *object) headerToken(field, name string) {
	if !token.MatchString(name) {
		o.refuse(field, CodeBadValue, "letters, digits and -, as x-tenant-id", "%q is no header name", name)
	}
}
