package filter

import (
	"maps"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/xds/ir"
)

const (
	// RefusedPrefix begins the statistics of the slot that refuses ambiguous requests.
	RefusedPrefix = "credence_refused_"
	// RefusedPolicy begins the names of its rules, which RESPONSE_CODE_DETAILS shows.
	RefusedPolicy = "credence-ambiguous-"
	// RBACNamespace is where Envoy's HTTP RBAC filter leaves what its rules decided, whatever the filter is called.
	RBACNamespace = "envoy.filters.http.rbac"
)

// Envoy bounds the size of regular expressions, so that there are several small ones. Those that say what is good are negated, and so
// refuse what they cannot read; those that say what is bad read single bytes (\C), because a byte that is no UTF-8 would otherwise match nothing.
const (
	// goodHost is a name or IPv4 address, or a bracketed IPv6 address, with or without a port.
	goodHost = `([A-Za-z0-9._~-]+|\[[0-9A-Fa-f:.]+\])(:[0-9]+)?`
	// goodPath is the characters of a path that servers agree about.
	goodPath = `/([!$&-:=@-\[\]_a-z~]|%[2-9A-Fa-f][0-9A-Fa-f])*`
	// needless escapes are of characters that need none: policies compare the plain ones.
	needlessEscape = `\C*%(2[dDeE]|3[0-9]|[46][1-9a-fA-F]|[57][0-9aA]|5[fF]|7[eE])\C*`
	// overlong is what lax decoders of UTF-8 take for an ASCII character, and bytes that never occur in UTF-8.
	overlong = `\C*%([cC][01]|[eE]0%[89]|[fF]0%8|[fF][5-9a-fA-F])\C*`
)

// refuse answers requests that two servers could read differently with 400 (the connection manager makes it so of RBAC's 403). It looks at
// the path as normalized.
func refuse(h *ir.HTTP) (made, error) {
	rules := map[string]*rbacconfigv3.Permission{
		"method-connect": onHeader(":method", exactly("CONNECT")),
		"host":           permissionNot(onHeader(":authority", regex(goodHost, false))),
	}
	if !h.Lenient {
		maps.Copy(rules, methodOverrides(headersIn(h.Guard.Rules)))
	}
	if h.Paths == ir.PathsStrict {
		maps.Copy(rules, ambiguousPaths())
	}
	config := &rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_DENY, Policies: map[string]*rbacconfigv3.Policy{}}
	for name, p := range rules {
		config.Policies[RefusedPolicy+name] = &rbacconfigv3.Policy{
			Permissions: []*rbacconfigv3.Permission{p}, Principals: []*rbacconfigv3.Principal{principalAny()},
		}
	}
	return made{config: &rbacv3.RBAC{Rules: config, RulesStatPrefix: RefusedPrefix}}, nil
}

// ambiguousPaths is, by the reason, the paths that are refused.
func ambiguousPaths() map[string]*rbacconfigv3.Permission {
	return map[string]*rbacconfigv3.Permission{
		"path-double-escape":   onPath(contains("%25")),
		"path-control":         anyPermission(onPath(contains("%0")), onPath(contains("%1")), onPath(contains("%7f"))),
		"path-parameter":       anyPermission(onPath(contains(";")), onPath(contains("%3b"))),
		"path-backslash":       anyPermission(onPath(contains(`\`)), onPath(contains("%5c"))),
		"path-escaped-slash":   onPath(contains("%2f")),
		"path-needless-escape": onPath(regex(needlessEscape, false)),
		"path-overlong":        onPath(regex(overlong, false)),
		"path-unknown":         permissionNot(onPath(regex(goodPath, false))), // after all others by name: it says least
	}
}

// overriding is the headers by which backends let a client say another method than that of the request line, which rules about methods do
// not see.
func overriding() []string {
	return []string{"x-http-method", "x-http-method-override", "x-method-override"}
}

// methodOverrides refuses those that no AuthorizationPolicy of the port names: who names one has thought of it.
func methodOverrides(asked map[string]bool) map[string]*rbacconfigv3.Permission {
	out := map[string]*rbacconfigv3.Permission{}
	for _, name := range overriding() {
		if !asked[name] {
			out[name] = onHeader(name, nil)
		}
	}
	return out
}

// headersIn is the headers that rules ask about.
func headersIn(rules authz.Rules) map[string]bool {
	out := map[string]bool{}
	lists := [][]authz.Rule{rules.Deny, rules.Allow}
	for _, c := range rules.Custom {
		lists = append(lists, c.Rules)
	}
	for _, list := range lists {
		for _, r := range list {
			headersOf(r.Principal, out)
			headersOf(r.Permission, out)
		}
	}
	return out
}

func headersOf(e authz.Expr, into map[string]bool) {
	switch e := e.(type) {
	case authz.Header:
		into[e.Name] = true
	case authz.Not:
		headersOf(e.Of, into)
	case authz.All:
		for _, x := range e.Of {
			headersOf(x, into)
		}
	case authz.Any:
		for _, x := range e.Of {
			headersOf(x, into)
		}
	}
}

func exactly(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

// contains matches in any case: hexadecimal digits have two.
func contains(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Contains{Contains: s}, IgnoreCase: true}
}

func onPath(m *matcherv3.StringMatcher) *rbacconfigv3.Permission {
	return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{Rule: &matcherv3.PathMatcher_Path{Path: m}}}}
}

// onHeader matches a header; nil: one that is there.
func onHeader(name string, m *matcherv3.StringMatcher) *rbacconfigv3.Permission {
	h := &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}}
	if m != nil {
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: m}
	}
	return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_Header{Header: h}}
}

func anyPermission(of ...*rbacconfigv3.Permission) *rbacconfigv3.Permission {
	return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_OrRules{OrRules: &rbacconfigv3.Permission_Set{Rules: of}}}
}
