package compile

import (
	"cmp"
	"fmt"
	"regexp"
	"slices"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/xds/ir"
)

// InvalidBackend is a cluster that does not exist: the share of a backend that cannot be used is answered with 500, as the Gateway API demands.
const InvalidBackend = "invalid-backend"

// rankedRoute is a route with what decides its place.
type rankedRoute struct {
	route     ir.Route
	exactness int // of the path: exact 2, regular expression 1, prefix 0
	path      int // characters
	method    bool
	headers   int
	query     int
	object    *policy.HTTPRoute
	rule, nth int
}

// sortRoutes puts the most specific first, in the order that the Gateway API gives.
func sortRoutes(routes []rankedRoute) {
	slices.SortStableFunc(routes, func(a, b rankedRoute) int {
		return cmp.Or(
			cmp.Compare(b.exactness, a.exactness), cmp.Compare(b.path, a.path), compareBool(b.method, a.method),
			cmp.Compare(b.headers, a.headers), cmp.Compare(b.query, a.query),
			older(a.object, b.object), a.object.Key.Compare(b.object.Key), cmp.Compare(a.rule, b.rule), cmp.Compare(a.nth, b.nth),
		)
	})
}

// older compares creation times; an object without one is younger than any that has one.
func older(a, b *policy.HTTPRoute) int {
	if a.Created.IsZero() != b.Created.IsZero() {
		return compareBool(a.Created.IsZero(), b.Created.IsZero())
	}
	return a.Created.Compare(b.Created)
}

func compareBool(a, b bool) int {
	switch {
	case a == b:
		return 0
	case a:
		return 1
	default:
		return -1
	}
}

// rules is the routes of one HTTPRoute at a listener: one a match.
func (g *gatewayer) rules(l gatewayListener, r *policy.HTTPRoute) []rankedRoute {
	var out []rankedRoute
	for n := range r.Spec.Rules {
		rule := &r.Spec.Rules[n]
		matches := rule.Matches
		if len(matches) == 0 {
			matches = []gatewayv1.HTTPRouteMatch{{}}
		}
		for m := range matches {
			ranked := rank(&matches[m])
			ranked.object, ranked.rule, ranked.nth = r, n, m
			b := ruleBuilder{g: g, listener: l, object: r, field: fmt.Sprintf("spec.rules[%d]", n), rule: rule}
			b.out = &ranked.route
			b.out.Name = fmt.Sprintf("%s.%s.%d.%d", r.Key.Namespace, r.Key.Name, n, m)
			b.out.Sources = []ir.Source{sourceOf(&r.Object)}
			b.build()
			out = append(out, ranked)
		}
	}
	return out
}

func rank(m *gatewayv1.HTTPRouteMatch) rankedRoute {
	r := rankedRoute{headers: len(m.Headers), query: len(m.QueryParams)}
	kind, value := gatewayv1.PathMatchPathPrefix, "/"
	if m.Path != nil {
		if m.Path.Type != nil {
			kind = *m.Path.Type
		}
		if m.Path.Value != nil {
			value = *m.Path.Value
		}
	}
	r.path = len(value)
	match := &r.route.Match
	switch kind {
	case gatewayv1.PathMatchExact:
		r.exactness, match.Path = 2, authz.Match{Kind: authz.Exact, Value: value}
	case gatewayv1.PathMatchRegularExpression:
		r.exactness, match.Path = 1, authz.Match{Kind: authz.Regex, Value: value}
	default:
		match.Path = authz.Match{Kind: authz.Prefix, Value: value}
	}
	if m.Method != nil {
		r.method, match.Method = true, string(*m.Method)
	}
	for _, h := range m.Headers {
		regex := h.Type != nil && *h.Type == gatewayv1.HeaderMatchRegularExpression
		match.Headers = append(match.Headers, ir.HeaderMatch{Name: string(h.Name), Match: valueMatch(h.Value, regex)})
	}
	for _, q := range m.QueryParams {
		regex := q.Type != nil && *q.Type == gatewayv1.QueryParamMatchRegularExpression
		match.Query = append(match.Query, ir.HeaderMatch{Name: string(q.Name), Match: valueMatch(q.Value, regex)})
	}
	return r
}

func valueMatch(value string, regex bool) authz.Match {
	if regex {
		return authz.Match{Kind: authz.Regex, Value: value}
	}
	return authz.Match{Kind: authz.Exact, Value: value}
}

// ruleBuilder makes what a rule does once it matched.
type ruleBuilder struct {
	g        *gatewayer
	listener gatewayListener
	object   *policy.HTTPRoute
	field    string
	rule     *gatewayv1.HTTPRouteRule
	out      *ir.Route
	forward  ir.Forward
	redirect *ir.RedirectTo
	refused  bool // something in the rule cannot be obeyed: it answers 500
}

func (b *ruleBuilder) build() {
	if b.object.Void {
		b.out.Action = ir.Respond{Status: 503}
		return
	}
	b.check()
	for i := range b.rule.Filters {
		b.filter(fmt.Sprintf("%s.filters[%d]", b.field, i), &b.rule.Filters[i])
	}
	b.timeouts()
	if b.rule.Retry != nil {
		b.problem(b.field+".retry", "HTTPROUTE_NOT_IN_FORCE", "retry is not in force yet", "remove it", policy.Warning)
	}
	switch {
	case b.refused:
		b.out.Action = ir.Respond{Status: 500}
	case b.redirect != nil:
		b.out.Action = *b.redirect
	default:
		b.backends()
	}
}

// check refuses what Envoy would refuse, so that one bad rule takes down nothing but itself.
func (b *ruleBuilder) check() {
	m := &b.out.Match
	for _, v := range append([]ir.HeaderMatch{{Name: "path", Match: m.Path}}, append(slices.Clone(m.Headers), m.Query...)...) {
		if v.Match.Kind != authz.Regex {
			continue
		}
		if _, err := regexp.Compile(v.Match.Value); err != nil {
			b.problem(b.field+".matches", "BAD_REGEX", fmt.Sprintf("%s: %v; the rule answers 500 where the rest of it matches", v.Name, err), "RE2 syntax", policy.Error)
			b.refused = true
			*m = ir.RouteMatch{Path: m.Path, Method: m.Method}
			if m.Path.Kind == authz.Regex {
				m.Path = authz.Match{Kind: authz.Prefix, Value: "/"}
			}
			return
		}
	}
}

func (b *ruleBuilder) problem(field, code, says, try string, severity policy.Severity) {
	b.g.problems = append(b.g.problems, policy.Problem{
		At: b.object.Where(field), Object: b.object.Key.String(), Field: field, Code: code, Says: says, Try: try, Severity: severity,
	})
}

func (b *ruleBuilder) timeouts() {
	if t := b.rule.Timeouts; t != nil {
		b.out.Timeout.Request = b.duration(b.field+".timeouts.request", t.Request)
		b.out.Timeout.PerBackend = b.duration(b.field+".timeouts.backendRequest", t.BackendRequest)
	}
}

func (b *ruleBuilder) duration(field string, d *gatewayv1.Duration) *time.Duration {
	if d == nil {
		return nil
	}
	v, err := time.ParseDuration(string(*d))
	if err != nil || v < 0 {
		b.problem(field, "BAD_DURATION", fmt.Sprintf("%q is no duration; the rule answers 500", *d), "a number and a unit: 10s, 500ms", policy.Error)
		b.refused = true
		return nil
	}
	return &v
}

// backends forwards to the backends that can be used, and answers 500 for the share of the others.
func (b *ruleBuilder) backends() {
	valid := false
	for i := range b.rule.BackendRefs {
		ref := &b.rule.BackendRefs[i]
		field := fmt.Sprintf("%s.backendRefs[%d]", b.field, i)
		w := ir.Weighted{Weight: 1}
		if ref.Weight != nil {
			w.Weight = uint32(max(0, *ref.Weight))
		}
		if w.Weight == 0 {
			continue
		}
		cluster, ok := b.backend(field, &ref.BackendObjectReference)
		if ok {
			w.Cluster, valid = cluster, true
		} else {
			w.Cluster = InvalidBackend
		}
		for n := range ref.Filters {
			f := &ref.Filters[n]
			switch {
			case f.RequestHeaderModifier != nil:
				merge(&w.Headers, f.RequestHeaderModifier)
			case f.ResponseHeaderModifier != nil:
				merge(&w.ResponseHeaders, f.ResponseHeaderModifier)
			default:
				b.unsupported(fmt.Sprintf("%s.filters[%d]", field, n), f.Type)
				w.Cluster = InvalidBackend
			}
		}
		b.forward.To = append(b.forward.To, w)
	}
	if b.refused || !valid {
		b.out.Action = ir.Respond{Status: 500}
		return
	}
	b.out.Action = b.forward
}

// backend is the cluster of a backendRef.
func (b *ruleBuilder) backend(field string, ref *gatewayv1.BackendObjectReference) (string, bool) {
	group, kind, ns := "", "Service", b.object.Key.Namespace
	if ref.Group != nil {
		group = string(*ref.Group)
	}
	if ref.Kind != nil {
		kind = string(*ref.Kind)
	}
	if ref.Namespace != nil {
		ns = string(*ref.Namespace)
	}
	var s *service
	var ok bool
	switch {
	case group == "" && kind == "Service":
		s, ok = b.g.reg.serviceOf(ns, string(ref.Name))
	case group == "networking.istio.io" && kind == "Hostname":
		if s, ok = b.g.reg.named(b.g.object.Key.Namespace, ns, string(ref.Name)); ok {
			ns = s.namespace
			ok = s.visible(b.object.Key.Namespace)
		}
	default:
		b.problem(field, "BACKEND_KIND", fmt.Sprintf("a backend of kind %s/%s cannot be used; its share is answered with 500", group, kind), "kind: Service", policy.Error)
		return "", false
	}
	if kind == "Service" && !granted(b.g.set, reference{gatewayGroup, "HTTPRoute", b.object.Key.Namespace, "", "Service", ns, string(ref.Name)}) {
		b.problem(field, "REFERENCE_NOT_GRANTED", fmt.Sprintf("no ReferenceGrant in %s lets an HTTPRoute of %s use Service %s; its share is answered with 500", ns, b.object.Key.Namespace, ref.Name),
			"add a ReferenceGrant to the Service's namespace", policy.Error)
		return "", false
	}
	if !ok || s.void || ref.Port == nil {
		b.problem(field, "BACKEND_NOT_FOUND", fmt.Sprintf("there is no usable Service %s/%s with a port as asked; its share is answered with 500", ns, ref.Name), "check name, namespace and port", policy.Error)
		return "", false
	}
	p, ok := s.port(uint32(*ref.Port))
	if !ok {
		b.problem(field+".port", "BACKEND_NOT_FOUND", fmt.Sprintf("%s has no port %d; its share is answered with 500", s.host, *ref.Port), "one of the Service's ports", policy.Error)
		return "", false
	}
	addCluster(b.g.part, b.g.clusters, p)
	return p.cluster.Name, true
}
