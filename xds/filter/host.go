package filter

import (
	"regexp"
	"slices"
	"strings"

	"github.com/credence-mesh/credence/policy/authz"
)

// anyPort makes conditions on hosts that name no port hold for every port: routing does not look at the port in a Host header, so that
// "closed.example.com:1" would pass a rule that denies closed.example.com. Istio compares the whole.
func anyPort(r authz.Rules) authz.Rules {
	r.Deny, r.Allow, r.Audit = hostRules(r.Deny), hostRules(r.Allow), hostRules(r.Audit)
	r.Custom = slices.Clone(r.Custom)
	for i := range r.Custom {
		r.Custom[i].Rules = hostRules(r.Custom[i].Rules)
	}
	return r
}

func hostRules(rules []authz.Rule) []authz.Rule {
	out := slices.Clone(rules)
	for i := range out {
		out[i].Permission = hostExpr(out[i].Permission)
	}
	return out
}

func hostExpr(e authz.Expr) authz.Expr {
	switch e := e.(type) {
	case authz.Host:
		return hostAnyPort(e)
	case authz.Not:
		return authz.Not{Of: hostExpr(e.Of)}
	case authz.All:
		return authz.All{Of: hostExprs(e.Of)}
	case authz.Any:
		return authz.Any{Of: hostExprs(e.Of)}
	default:
		return e
	}
}

func hostExprs(of []authz.Expr) []authz.Expr {
	out := make([]authz.Expr, len(of))
	for i, e := range of {
		out[i] = hostExpr(e)
	}
	return out
}

func hostAnyPort(h authz.Host) authz.Expr {
	if strings.Contains(h.Match.Value, ":") {
		return h // a port, or an IPv6 address: as written
	}
	with := h.Match
	switch h.Match.Kind {
	case authz.Exact:
		with.Kind, with.Value = authz.Prefix, h.Match.Value+":"
	case authz.Suffix:
		with.Kind, with.Value = authz.Regex, `\C*`+regexp.QuoteMeta(h.Match.Value)+`:[0-9]*`
	default:
		return h
	}
	return authz.Any{Of: []authz.Expr{h, authz.Host{Match: with}}}
}
