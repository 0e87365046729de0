// Package compare tells whose verdict changes between two sets of resources. It asks both about callers and requests that their own rules name,
// and about strangers whom no rule names.
package compare

import (
	"encoding/json"
	"net/netip"
	"slices"
	"strings"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	securityv1beta1 "istio.io/api/security/v1beta1"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/explain"
)

// sample stands for what a wildcard covers, and for what no rule names.
const sample = "probe"

// caller is who asks: an identity, a token, headers, an address.
type caller struct {
	transport explain.Transport
	peer      string
	claims    map[string]any
	headers   []explain.Header
	source    netip.Addr
}

// String is how the caller is shown: "spiffe://…/sa/web with iss=https://a sub=x".
func (c caller) String() string {
	out := c.peer
	switch c.transport {
	case explain.Plaintext:
		out = "plaintext"
	case explain.TLS:
		out = "tls"
	case explain.MutualTLS:
	}
	if c.claims != nil {
		b, err := json.Marshal(c.claims) // sorts its keys
		if err == nil {
			out += " token " + string(b)
		}
	}
	for _, h := range c.headers {
		out += " " + h.Name + "=" + h.Value
	}
	if c.source.IsValid() {
		out += " from " + c.source.String()
	}
	return out
}

// asked is what is asked for.
type asked struct{ method, host, path string }

// probes are the questions about one workload.
type probes struct {
	callers  []caller
	requests []asked
}

// gatherer derives probes from the rules of sets.
type gatherer struct {
	set     *policy.Set
	issuers []*securityv1beta1.JWTRule
	out     *probes
}

// probesOf derives questions from every rule of the sets that applies to a workload.
func probesOf(namespace, name string, sets ...*policy.Set) probes {
	out := &probes{requests: []asked{{"GET", "", "/" + sample}}}
	for _, set := range sets {
		w, ok := set.Workload(namespace, name)
		if !ok {
			continue
		}
		g := gatherer{set: set, out: out}
		g.strangers(w)
		for _, ns := range set.Namespaces(w) {
			for p := range policy.In[*policy.AuthorizationPolicy](set, ns) {
				if set.Attached(w, ns, policy.ScopeOf(p.Spec.GetSelector(), p.Spec.GetTargetRef(), p.Spec.GetTargetRefs())) {
					for _, r := range p.Spec.GetRules() {
						g.rule(ns, r)
					}
				}
			}
		}
	}
	out.tidy()
	return *out
}

// strangers are callers that no rule names: of the mesh, outside it, and with a token of each accepted issuer.
func (g *gatherer) strangers(w *policy.Workload) {
	for _, ns := range g.set.Namespaces(w) {
		for p := range policy.In[*policy.RequestAuthentication](g.set, ns) {
			if g.set.Attached(w, ns, policy.ScopeOf(p.Spec.GetSelector(), p.Spec.GetTargetRef(), p.Spec.GetTargetRefs())) {
				g.issuers = append(g.issuers, p.Spec.GetJwtRules()...)
			}
		}
	}
	g.add(caller{transport: explain.MutualTLS, peer: g.identity(sample, sample)})
	for _, i := range g.issuers {
		g.add(caller{transport: explain.MutualTLS, peer: g.identity(sample, sample), claims: g.token(i, nil)})
	}
}

// add adds a caller, and the same without what it shows: without its certificate, and without its token.
func (g *gatherer) add(c caller) {
	bare := c
	bare.transport, bare.peer = explain.Plaintext, ""
	nobody := c
	nobody.claims = nil
	g.out.callers = append(g.out.callers, c, bare, nobody, caller{transport: explain.Plaintext})
}

func (g *gatherer) identity(ns, account string) string {
	return "spiffe://" + g.set.Mesh().TrustDomain + "/ns/" + ns + "/sa/" + account
}

func (g *gatherer) token(i *securityv1beta1.JWTRule, claims map[string]any) map[string]any {
	out := map[string]any{"sub": sample}
	if i != nil {
		out["iss"] = i.GetIssuer()
		if len(i.GetAudiences()) > 0 {
			out["aud"] = i.GetAudiences()[0]
		}
	}
	for k, v := range claims {
		out[k] = v
	}
	return out
}

// rule adds callers that satisfy a rule, and the requests that it names.
func (g *gatherer) rule(ns string, r *securityv1beta1.Rule) {
	for _, base := range g.variants(r.GetWhen()) {
		if len(r.GetFrom()) == 0 {
			g.add(base)
		}
		for _, f := range r.GetFrom() {
			for _, c := range g.source(ns, base, f.GetSource()) {
				g.add(c)
			}
		}
	}
	for _, t := range r.GetTo() {
		g.operation(t.GetOperation())
	}
}

func (g *gatherer) operation(o *securityv1beta1.Operation) {
	methods := append(slices.Clone(o.GetMethods()), o.GetNotMethods()...)
	hosts := append(slices.Clone(o.GetHosts()), o.GetNotHosts()...)
	paths := append(slices.Clone(o.GetPaths()), o.GetNotPaths()...)
	for _, m := range orEmpty(methods) {
		for _, h := range orEmpty(hosts) {
			for _, p := range orEmpty(paths) {
				for _, path := range pathsLike(p) {
					g.out.requests = append(g.out.requests, asked{methodLike(m), like(h), path})
				}
			}
		}
	}
}

func orEmpty(list []string) []string {
	if len(list) == 0 {
		return []string{""}
	}
	return list
}

func methodLike(pattern string) string {
	if pattern == "" || strings.Contains(pattern, "*") {
		return "GET"
	}
	return pattern
}

// like is a value that a pattern covers.
func like(pattern string) string { return strings.ReplaceAll(pattern, "*", sample) }

// pathsLike are a path that a pattern covers and, of a prefix, what it is the prefix of.
func pathsLike(pattern string) []string {
	if pattern == "" {
		return []string{"/" + sample}
	}
	path := like(strings.NewReplacer("{**}", sample+"/"+sample, "{*}", sample).Replace(pattern))
	if !strings.HasPrefix(path, "/") {
		path = "/" + path
	}
	out := []string{path}
	if prefix, ok := strings.CutSuffix(pattern, "*"); ok && len(prefix) > 1 && !strings.Contains(prefix, "*") {
		out = append(out, prefix)
	}
	return out
}

// tidy takes out what is asked twice.
func (p *probes) tidy() {
	seen := map[string]bool{}
	p.callers = slices.DeleteFunc(p.callers, func(c caller) bool {
		if _, err := spiffeid.FromString(c.peer); c.peer != "" && err != nil {
			return true
		}
		twice := seen[c.String()]
		seen[c.String()] = true
		return twice
	})
	asks := map[asked]bool{}
	p.requests = slices.DeleteFunc(p.requests, func(r asked) bool {
		twice := asks[r]
		asks[r] = true
		return twice
	})
}
