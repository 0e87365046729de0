package compile

import (
	"slices"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/policy/jwt"
	"github.com/credence-mesh/credence/xds/ir"
)

// forged is the request headers by which a client could give orders to Envoy, or claim to be where it is not. Envoy removes some of them,
// and only from requests that it takes as external.
func forged() []string {
	return []string{
		"http2-settings", "x-envoy-attempt-count", "x-envoy-decorator-operation", "x-envoy-expected-rq-timeout-ms", "x-envoy-external-address", "x-envoy-force-trace",
		"x-envoy-hedge-on-per-try-timeout", "x-envoy-internal", "x-envoy-ip-tags", "x-envoy-is-timeout-retry", "x-envoy-max-retries",
		"x-envoy-original-host", "x-envoy-original-method", "x-envoy-original-path", "x-envoy-original-url", "x-envoy-peer-metadata",
		"x-envoy-peer-metadata-id", "x-envoy-retriable-header-names", "x-envoy-retriable-status-codes", "x-envoy-retry-grpc-on", "x-envoy-retry-on",
		"x-envoy-upstream-alt-stat-name", "x-envoy-upstream-canary", "x-envoy-upstream-rq-per-try-timeout-ms",
		"x-envoy-upstream-rq-timeout-alt-response", "x-envoy-upstream-rq-timeout-ms", "x-envoy-upstream-stream-duration-ms",
	}
}

// impersonating is the headers by which proxies and authenticators of other makes tell a backend who the client is, or which path it asked
// for. At a listener for anyone, with no trusted proxy in front, they are a client's own invention.
func impersonating() []string {
	return []string{
		"x-forwarded-user", "x-forwarded-email", "x-forwarded-groups", "x-forwarded-preferred-username", "x-forwarded-access-token",
		"x-auth-request-user", "x-auth-request-email", "x-auth-request-groups", "x-auth-request-preferred-username", "x-auth-request-access-token",
		"remote-user", "x-remote-user", "x-remote-group", "x-webauth-user", "x-authenticated-user", "x-authenticated-userid",
		"x-ssl-client-cert", "x-ssl-client-dn", "x-ssl-client-verify", "ssl-client-cert", "ssl-client-subject-dn", "x-client-cert", "x-client-dn",
		"x-forwarded-tls-client-cert", "x-forwarded-tls-client-cert-info", "x-original-url", "x-rewrite-url", "x-original-uri", "x-original-host",
	}
}

// guards makes what every request to a port of a workload must pass.
type guards struct {
	set      *policy.Set
	workload *policy.Workload
	auth     jwt.Authentication
	broken   []*policy.Object // beside those of the policies: refused EnvoyFilters and Sidecars
	problems []policy.Problem
}

func newGuards(set *policy.Set, w *policy.Workload) *guards {
	g := &guards{set: set, workload: w, broken: voidPatches(Patches(set, w))}
	g.auth, g.problems = jwt.For(set, w)
	return g
}

// http is the guard of an HTTP port. A trusted peer may forward verified headers of other issuers than ours; nobody else may.
func (g *guards) http(port uint32, trusted trust) ir.Guard {
	rules, problems := authz.For(g.set, g.workload, port, authz.HTTP)
	g.problems = append(g.problems, problems...)
	guard := ir.Guard{Enforce: true, Rules: rules, Strip: g.auth.Headers()}
	if trusted == anyone {
		guard.Strip = jwt.HeadersOut(g.set)
		if mesh := g.set.Mesh(); !mesh.Profile.Istio() && mesh.DefaultConfig.GatewayTopology.NumTrustedProxies == 0 {
			guard.Strip = append(guard.Strip, impersonating()...)
		}
	}
	guard.Strip = append(guard.Strip, forged()...)
	slices.Sort(guard.Strip)
	guard.Strip = slices.Compact(guard.Strip)
	for _, i := range g.auth.Issuers {
		guard.Issuers = append(guard.Issuers, ir.Issuer{Issuer: i.Issuer, JWKS: jwt.Document(g.set, i.Issuer), Source: sourceOf(i.From)})
	}
	for _, o := range append(slices.Clone(g.auth.Broken), g.broken...) {
		guard.Enforce = false
		guard.Broken = append(guard.Broken, sourceOf(o))
	}
	return guard
}

// tcp is the rules of a TCP port. What is broken lets nothing pass.
func (g *guards) tcp(port uint32) authz.Rules {
	rules, problems := authz.For(g.set, g.workload, port, authz.TCP)
	g.problems = append(g.problems, problems...)
	for _, o := range append(slices.Clone(g.auth.Broken), g.broken...) {
		rules.Broken = append(rules.Broken, sourceOf(o))
	}
	return rules
}

// trust is who sends the requests of a chain.
type trust uint8

const (
	anyone trust = iota
	peers        // of the mesh, by certificate
)

// accepted is the peers that may open a connection at all: those of the own trust domain and of its aliases.
func accepted(set *policy.Set) []identity.Matcher {
	var out []identity.Matcher
	for _, name := range append([]string{set.Mesh().TrustDomain}, set.Mesh().TrustDomainAliases...) {
		if td, err := trustDomain(name); err == nil {
			out = append(out, identity.MatchTrustDomain(td))
		}
	}
	return out
}
