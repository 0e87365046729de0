package compare

import (
	"maps"
	"net/netip"
	"slices"
	"strings"

	securityv1beta1 "istio.io/api/security/v1beta1"

	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/policy/explain"
)

// source is callers that a source names, one for each of its identities; what it excludes is named too.
func (g *gatherer) source(ns string, base caller, s *securityv1beta1.Source) []caller {
	peers := g.peers(ns, s)
	var out []caller
	for _, principal := range orEmpty(append(slices.Clone(s.GetRequestPrincipals()), s.GetNotRequestPrincipals()...)) {
		for _, peer := range peers {
			for _, address := range orEmpty(append(slices.Clone(s.GetIpBlocks()), s.GetNotIpBlocks()...)) {
				c := base
				c.transport, c.peer = explain.MutualTLS, peer
				c.headers = slices.Clone(base.headers)
				if principal != "" {
					c.claims = g.principal(principal, base.claims)
				}
				if address != "" {
					c.source = addressIn(address)
				}
				for _, remote := range append(slices.Clone(s.GetRemoteIpBlocks()), s.GetNotRemoteIpBlocks()...) {
					c.headers = append(c.headers, explain.Header{Name: "x-forwarded-for", Value: addressIn(remote).String()})
					break
				}
				out = append(out, c)
			}
		}
	}
	return out
}

func (g *gatherer) peers(ns string, s *securityv1beta1.Source) []string {
	var out []string
	for _, p := range append(slices.Clone(s.GetPrincipals()), s.GetNotPrincipals()...) {
		out = append(out, g.peerLike(p))
	}
	for _, n := range append(slices.Clone(s.GetNamespaces()), s.GetNotNamespaces()...) {
		out = append(out, g.identity(like(n), sample))
	}
	for _, a := range append(slices.Clone(s.GetServiceAccounts()), s.GetNotServiceAccounts()...) {
		in, account, ok := strings.Cut(a, "/")
		if !ok {
			in, account = ns, a
		}
		out = append(out, g.identity(in, account))
	}
	for _, d := range append(slices.Clone(s.GetTrustDomains()), s.GetNotTrustDomains()...) {
		out = append(out, "spiffe://"+like(d)+"/ns/"+sample+"/sa/"+sample)
	}
	if len(out) == 0 {
		out = []string{g.identity(sample, sample)}
	}
	return out
}

// peerLike is an identity that a principal covers.
func (g *gatherer) peerLike(principal string) string {
	td := g.set.Mesh().TrustDomain
	switch {
	case principal == "*":
		return g.identity(sample, sample)
	case strings.HasPrefix(principal, "*/sa/"):
		return "spiffe://" + td + "/ns/" + sample + principal[1:]
	case strings.HasPrefix(principal, "*"):
		return "spiffe://" + td + "/" + strings.TrimLeft(principal[1:], "/")
	}
	if rest, ok := strings.CutPrefix(principal, "cluster.local/"); ok {
		principal = td + "/" + rest
	}
	prefix, wild := strings.CutSuffix(principal, "*")
	if !wild {
		return "spiffe://" + principal
	}
	switch parts := strings.Split(prefix, "/"); len(parts) { // td / ns / <ns> / sa / <sa>
	case 2, 1:
		return "spiffe://" + parts[0] + "/ns/" + sample + "/sa/" + sample
	case 3:
		return "spiffe://" + prefix + sample + "/sa/" + sample
	case 4:
		return "spiffe://" + strings.Join(parts[:3], "/") + "/sa/" + sample
	default:
		return "spiffe://" + prefix + sample
	}
}

// principal is claims that a request principal covers.
func (g *gatherer) principal(p string, claims map[string]any) map[string]any {
	var i *securityv1beta1.JWTRule
	if len(g.issuers) > 0 {
		i = g.issuers[0]
	}
	iss, sub := "", sample
	if n := strings.LastIndexByte(p, '/'); n >= 0 {
		iss, sub = p[:n], like(p[n+1:])
	}
	for _, known := range g.issuers {
		if known.GetIssuer() == iss {
			i = known
		}
	}
	out := g.token(i, claims)
	if iss != "" && !strings.Contains(iss, "*") {
		out["iss"] = iss
	}
	out["sub"] = sub
	return out
}

// variants are callers that satisfy the conditions of a rule: with the first value of each, and then with each further value of one of them.
func (g *gatherer) variants(when []*securityv1beta1.Condition) []caller {
	out := []caller{g.conditions(when, -1, 0)}
	for i, w := range when {
		for n := 1; n < len(w.GetValues())+len(w.GetNotValues()); n++ {
			out = append(out, g.conditions(when, i, n))
		}
	}
	return out
}

// conditions is a caller that satisfies the conditions of a rule, as far as it is the caller that they are about; of condition i by its nth value.
func (g *gatherer) conditions(when []*securityv1beta1.Condition, i, n int) caller {
	c := caller{transport: explain.MutualTLS, peer: g.identity(sample, sample)}
	claims := map[string]any{}
	for at, w := range when {
		values := append(slices.Clone(w.GetValues()), w.GetNotValues()...)
		if len(values) == 0 {
			continue
		}
		v := values[0]
		if at == i {
			v = values[n]
		}
		switch key := w.GetKey(); {
		case key == "source.principal":
			c.peer = g.peerLike(v)
		case key == "source.namespace":
			c.peer = g.identity(like(v), sample)
		case key == "source.ip":
			c.source = addressIn(v)
		case key == "remote.ip":
			c.headers = append(c.headers, explain.Header{Name: "x-forwarded-for", Value: addressIn(v).String()})
		case key == "request.auth.principal":
			maps.Copy(claims, g.principal(v, nil))
		case key == "request.auth.audiences":
			claims["aud"] = like(v)
		case key == "request.auth.presenter":
			claims["azp"] = like(v)
		case strings.HasPrefix(key, "request.auth.claims"):
			if path, err := authz.Brackets(strings.TrimPrefix(key, "request.auth.claims")); err == nil {
				nest(claims, path, like(v))
			}
		case strings.HasPrefix(key, "request.headers"):
			if path, err := authz.Brackets(strings.TrimPrefix(key, "request.headers")); err == nil {
				c.headers = append(c.headers, explain.Header{Name: path[0], Value: like(v)})
			}
		}
	}
	if len(claims) > 0 {
		var issuer *securityv1beta1.JWTRule
		if len(g.issuers) > 0 {
			issuer = g.issuers[0]
		}
		c.claims = g.token(issuer, claims)
	}
	return c
}

// nest puts a value at the end of a path of claims.
func nest(claims map[string]any, path []string, value string) {
	for _, p := range path[:len(path)-1] {
		inner, ok := claims[p].(map[string]any)
		if !ok {
			inner = map[string]any{}
			claims[p] = inner
		}
		claims = inner
	}
	claims[path[len(path)-1]] = value
}

// addressIn is the first address of a block.
func addressIn(block string) netip.Addr {
	if p, err := netip.ParsePrefix(block); err == nil {
		return p.Masked().Addr()
	}
	a, err := netip.ParseAddr(block)
	if err != nil {
		return netip.Addr{}
	}
	return a
}
