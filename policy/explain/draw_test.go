package explain_test

import (
	"fmt"
	"math/rand/v2"
	"strings"

	"google.golang.org/protobuf/proto"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	securityv1beta1 "istio.io/api/security/v1beta1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/explain"
)

// drawn is a random set of policies for one workload. It is made of protos alone, so that it can be shrunk by taking elements out.
type drawn struct {
	authz []*securityv1beta1.AuthorizationPolicy
	jwt   []*securityv1beta1.RequestAuthentication
	mode  securityv1beta1.PeerAuthentication_MutualTLS_Mode
	istio bool // profile
	paths policy.Normalization
	edge  bool   // a Gateway, not a sidecar
	hops  uint32 // trusted proxies in front of it
}

const appPort = 8080

// set is the policies as the sources would give them.
func (d drawn) set() *policy.Set {
	mesh := policy.DefaultMesh()
	mesh.PathNormalization.Normalization = d.paths
	if d.istio {
		mesh.Profile = policy.ProfileIstio
	}
	mesh.TrustDomainAliases = []string{"old.example"}
	object := func(kind policy.Kind, name string) policy.Object {
		return policy.Object{Key: policy.Key{Kind: kind, Namespace: "a", Name: name}, At: policy.Origin{File: name + ".yaml", Line: 1}}
	}
	mesh.DefaultConfig.GatewayTopology.NumTrustedProxies = d.hops
	all := []policy.Resource{
		&policy.WorkloadEntry{Object: object(policy.KindWorkloadEntry, "w"), Spec: &networkingv1alpha3.WorkloadEntry{
			Address: "127.0.0.2", ServiceAccount: "w", Ports: map[string]uint32{"http": appPort},
		}},
		&policy.PeerAuthentication{Object: object(policy.KindPeerAuthentication, "pa"), Spec: &securityv1beta1.PeerAuthentication{
			Mtls: &securityv1beta1.PeerAuthentication_MutualTLS{Mode: d.mode},
		}},
		&policy.Rego{Object: object(policy.KindRego, "rego"), Module: rego},
	}
	if d.edge {
		all[0] = &policy.Gateway{Object: object(policy.KindGateway, "w"), Spec: &gatewayv1.GatewaySpec{
			Listeners: []gatewayv1.Listener{{Name: "http", Port: appPort, Protocol: gatewayv1.HTTPProtocolType}},
		}}
	}
	for i, p := range d.authz {
		all = append(all, &policy.AuthorizationPolicy{Object: object(policy.KindAuthorizationPolicy, fmt.Sprintf("p%d", i)), Spec: p})
	}
	for i, p := range d.jwt {
		all = append(all, &policy.RequestAuthentication{Object: object(policy.KindRequestAuthentication, fmt.Sprintf("r%d", i)), Spec: p})
	}
	return policy.NewSet(mesh).Apply(all, nil)
}

// rego decides what CUSTOM policies ask about.
const rego = `package envoy.authz
default allow := false
allow if input.attributes.request.http.method == "GET"
allow if input.claims.role == "admin"
allow := {"allowed": false, "http_status": 418} if input.parsed_path[0] == "b"
`

// dice draws.
type dice struct{ *rand.Rand }

func (d dice) of(list ...string) string { return list[d.IntN(len(list))] }

func (d dice) chance(percent int) bool { return d.IntN(100) < percent }

// some draws one to three of a list.
func (d dice) some(list ...string) []string {
	var out []string
	for range 1 + d.IntN(3) {
		out = append(out, d.of(list...))
	}
	return out
}

var (
	paths = []string{
		"/", "/a", "/a/b", "/A", "/a/*", "*", "*.txt", "/a*", "*b", "/api/{*}/items", "/{**}", "/api/{**}/x", "/a.b/c", "/a/", "/a;x", "/a%20b",
		"/{*}", "/a/{*}/{**}", "//a", "/a?x", "/[a]", "/a*b", "/api/{**}/", "/a+b",
	}
	methods    = []string{"GET", "POST", "P*", "*", "*T", "get", "OPTIONS"}
	hosts      = []string{"example.com", "*.example.com", "Example.COM", "example.com:8080", "example*", "*", "x"}
	identities = []string{"cluster.local/ns/a/sa/x", "*", "cluster.local/*", "*/sa/x", "old.example/ns/a/sa/x", "other.example/ns/a/sa/x", "cluster.local/ns/b/sa/y", "*/ns/a/sa/x", "cluster*"}
	namespaces = []string{"a", "b", "a*", "*", "*b", "a-b", "a.b"}
	accounts   = []string{"x", "a/x", "b/y", "y"}
	domains    = []string{"cluster.local", "*", "old*", "*.local", "old.example", "other.example"}
	blocks     = []string{"127.0.0.1", "127.0.0.0/8", "10.0.0.0/8", "::1", "127.0.0.3", "10.1.2.0/24", "1.2.3.4", "0.0.0.0/0"}
	tokensOf   = []string{"*", one + "/alice", one + "/*", "*/alice", "https*", two + "/bob", two + "/*", "*bob", one + "/al*", "*example/alice", "https://two.example/bob"}
)

const (
	one = "https://one.example"
	two = "https://two.example/"
)

func (d dice) set() drawn {
	modes := []securityv1beta1.PeerAuthentication_MutualTLS_Mode{securityv1beta1.PeerAuthentication_MutualTLS_STRICT, securityv1beta1.PeerAuthentication_MutualTLS_PERMISSIVE, securityv1beta1.PeerAuthentication_MutualTLS_PERMISSIVE, securityv1beta1.PeerAuthentication_MutualTLS_DISABLE}
	out := drawn{mode: modes[d.IntN(len(modes))], istio: d.chance(40), paths: policy.Normalization(d.of("", "", "", "NONE", "BASE", "MERGE_SLASHES", "DECODE_AND_MERGE_SLASHES", "STRICT"))}
	if d.chance(20) {
		out.edge, out.hops = true, uint32(d.IntN(3))
	}
	for range d.IntN(5) {
		out.authz = append(out.authz, d.authorization())
	}
	for range d.IntN(3) {
		out.jwt = append(out.jwt, d.authentication())
	}
	return out
}

func (d dice) authorization() *securityv1beta1.AuthorizationPolicy {
	p := &securityv1beta1.AuthorizationPolicy{}
	switch n := d.IntN(20); {
	case n < 10:
		p.Action = securityv1beta1.AuthorizationPolicy_ALLOW
	case n < 17:
		p.Action = securityv1beta1.AuthorizationPolicy_DENY
	case n < 18:
		p.Action = securityv1beta1.AuthorizationPolicy_AUDIT
	default:
		p.Action = securityv1beta1.AuthorizationPolicy_CUSTOM
		p.ActionDetail = &securityv1beta1.AuthorizationPolicy_Provider{Provider: &securityv1beta1.AuthorizationPolicy_ExtensionProvider{Name: "opa"}}
	}
	for range 1 + d.IntN(3) {
		p.Rules = append(p.Rules, d.rule())
	}
	if p.Action == securityv1beta1.AuthorizationPolicy_ALLOW && d.chance(5) {
		p.Rules = nil
	}
	return p
}

func (d dice) rule() *securityv1beta1.Rule {
	r := &securityv1beta1.Rule{}
	for range d.IntN(3) {
		r.From = append(r.From, &securityv1beta1.Rule_From{Source: d.source()})
	}
	for range d.IntN(3) {
		r.To = append(r.To, &securityv1beta1.Rule_To{Operation: d.operation()})
	}
	if d.chance(50) {
		r.When = append(r.When, d.condition())
	}
	return r
}

func (d dice) source() *securityv1beta1.Source {
	s := &securityv1beta1.Source{}
	fields := []func(){
		func() { s.Principals = d.some(identities...) }, func() { s.NotPrincipals = d.some(identities...) },
		func() { s.RequestPrincipals = d.some(tokensOf...) }, func() { s.NotRequestPrincipals = d.some(tokensOf...) },
		func() { s.Namespaces = d.some(namespaces...) }, func() { s.NotNamespaces = d.some(namespaces...) },
		func() { s.ServiceAccounts = d.some(accounts...) }, func() { s.NotServiceAccounts = d.some(accounts...) },
		func() { s.TrustDomains = d.some(domains...) }, func() { s.NotTrustDomains = d.some(domains...) },
		func() { s.IpBlocks = d.some(blocks...) }, func() { s.NotIpBlocks = d.some(blocks...) },
		func() { s.RemoteIpBlocks = d.some(blocks...) }, func() { s.NotRemoteIpBlocks = d.some(blocks...) },
	}
	for range 1 + d.IntN(2) {
		fields[d.IntN(len(fields))]()
	}
	return s
}

func (d dice) operation() *securityv1beta1.Operation {
	o := &securityv1beta1.Operation{}
	fields := []func(){
		func() { o.Paths = d.some(paths...) }, func() { o.Paths = d.some(paths...) }, func() { o.NotPaths = d.some(paths...) },
		func() { o.Methods = d.some(methods...) }, func() { o.NotMethods = d.some(methods...) },
		func() { o.Hosts = d.some(hosts...) }, func() { o.NotHosts = d.some(hosts...) },
		func() { o.Ports = d.some("8080", "9090") }, func() { o.NotPorts = d.some("8080", "9090") },
	}
	for range 1 + d.IntN(2) {
		fields[d.IntN(len(fields))]()
	}
	return o
}

func (d dice) condition() *securityv1beta1.Condition {
	words := []string{"1", "*", "v*", "*z", "1,2", "admin", "alice", "a", "true"}
	all := map[string][]string{
		"request.headers[x-a]": words, "request.headers[X-User]": words, "request.headers[host]": hosts, "request.headers[x-forwarded-for]": append(blocks, "*"),
		"request.headers[x-forwarded-proto]": {"http", "https"}, "request.headers[:method]": methods, "request.headers[x-payload]": {"*"},
		"request.headers[x-forwarded-client-cert]": {"*", "*sa/x"}, "request.headers[x-request-id]": {"*"}, "request.headers[authorization]": {"*", "Bearer*"},
		"request.headers[cookie]": {"*"}, "request.headers[x-envoy-internal]": {"*"}, "request.headers[x-roles]": words, "request.headers[:path]": {"/a", "*?*", "/*"},
		"source.ip": blocks, "remote.ip": blocks, "source.namespace": namespaces, "source.principal": identities, "source.trustDomain": domains,
		"source.serviceAccount": accounts, "request.auth.principal": tokensOf, "request.auth.audiences": {"aud1", "aud*", "*", "https://aud2/"},
		"request.auth.presenter": words, "request.auth.claims[role]": words, "request.auth.claims[groups]": words, "request.auth.claims[nested][k]": words,
		"request.auth.claims[scope]": {"read", "read write", "*"}, "request.auth.claims[words]": {"x", "x y"}, "request.auth.claims[n]": {"1", "*"}, "request.auth.claims[ok]": words,
		"destination.ip": {"127.0.0.2", "10.0.0.0/8"}, "destination.port": {"8080", "1"}, "connection.sni": {"localhost", "*", "l*"},
		"experimental.envoy.filters.http.rbac[x]": words,
	}
	keys := make([]string, 0, len(all))
	for k := range all {
		keys = append(keys, k)
	}
	key := d.of(sorted(keys)...)
	c := &securityv1beta1.Condition{Key: key}
	if d.chance(60) {
		c.Values = d.some(all[key]...)
	}
	if len(c.Values) == 0 || d.chance(20) {
		c.NotValues = d.some(all[key]...)
	}
	return c
}

func (d dice) authentication() *securityv1beta1.RequestAuthentication {
	p := &securityv1beta1.RequestAuthentication{}
	for range 1 + d.IntN(2) {
		name := d.of(one, two)
		r := &securityv1beta1.JWTRule{Issuer: name, Jwks: signers()[name].jwks, ForwardOriginalToken: d.chance(40)}
		if d.chance(40) {
			r.Audiences = d.some("aud1", "aud2", "https://aud2")
		}
		switch d.IntN(6) {
		case 0:
			r.FromHeaders = []*securityv1beta1.JWTHeader{{Name: "x-token"}}
		case 1:
			r.FromHeaders = []*securityv1beta1.JWTHeader{{Name: "Authorization", Prefix: "Bearer "}, {Name: "x-token", Prefix: "T "}}
		case 2:
			r.FromParams = []string{"tok"}
		case 3:
			r.FromCookies = []string{"tok"}
		}
		if d.chance(30) {
			r.OutputPayloadToHeader = "x-payload"
		}
		if d.chance(40) {
			r.OutputClaimToHeaders = []*securityv1beta1.ClaimToHeader{{Header: "x-user", Claim: "sub"}, {Header: "x-roles", Claim: d.of("role", "nested.k", "n", "ok", "groups")}}
		}
		if d.chance(30) {
			r.SpaceDelimitedClaims = []string{"words"}
		}
		p.JwtRules = append(p.JwtRules, r)
	}
	return p
}

// request draws one request.
func (d dice) request() explain.Request {
	r := explain.Request{
		Port: appPort, Method: d.of("GET", "GET", "POST", "PUT", "OPTIONS", "DELETE"), Path: d.path(), Host: d.of("example.com", "EXAMPLE.com", "a.example.com", "example.com:8080", "x", "y:1"),
	}
	switch d.IntN(4) {
	case 0:
		r.Transport = explain.Plaintext
	default:
		r.Transport, r.ServerName = explain.MutualTLS, "localhost"
		r.Peer = d.of(peers...)
	}
	r.SourceIP = d.source4()
	for range d.IntN(3) {
		r.Headers = append(r.Headers, explain.Header{
			Name:  d.of("x-a", "x-a", "X-A", "x-user", "x-forwarded-for", "x-payload", "x_user", "x-forwarded-client-cert", "x-envoy-internal", "x-request-id", "x-roles"),
			Value: d.of("1", "v1", "az", "1,2", "10.1.2.3", "1.2.3.4, 10.1.2.3", "admin", "alice", "garbage,", " 127.0.0.3"),
		})
	}
	if d.chance(8) {
		r.Method = "OPTIONS"
		r.Headers = append(r.Headers, explain.Header{Name: "origin", Value: "http://x"}, explain.Header{Name: "access-control-request-method", Value: "GET"})
	}
	for d.chance(45) {
		d.token(&r)
	}
	return r
}

var peers = []string{
	"spiffe://cluster.local/ns/a/sa/x", "spiffe://cluster.local/ns/b/sa/y", "spiffe://old.example/ns/a/sa/x", "spiffe://other.example/ns/a/sa/x",
	"spiffe://cluster.local/ns/evil/sa/x/ns/a/sa/x", "spiffe://cluster.local/ns/a-b/sa/x",
}

// token puts a token somewhere.
func (d dice) token(r *explain.Request) {
	t := d.of(pool()...)
	switch d.IntN(8) {
	case 0:
		r.Headers = append(r.Headers, explain.Header{Name: "x-token", Value: d.of("", "T ") + t})
	case 1:
		sep := "?"
		if strings.Contains(r.Path, "?") {
			sep = "&"
		}
		r.Path += sep + d.of("tok", "access_token", "t%6fk") + "=" + t
	case 2:
		r.Headers = append(r.Headers, explain.Header{Name: "cookie", Value: "a=b; tok=" + t})
	default:
		r.Headers = append(r.Headers, explain.Header{Name: "authorization", Value: d.of("Bearer ", "Bearer ", "Bearer ", "Bearer ", "Bearer  ", "bearer ", "Basic ", "xBearer ") + t})
	}
}

// path draws a path, often one with a trick in it.
func (d dice) path() string {
	if d.chance(45) {
		return d.of("/", "/a", "/a/b", "/A", "/a/x.txt", "/ab", "/b", "/api/1/items", "/api/a/b/x", "/a.b/c", "/a/", "/a;x", "/a%20b", "/api/", "/api/x/", "/a?x=1", "/a?z=%20&b=%26&&b=2", "/a?b&a&", "/x/b?y", "/a+b", "/a=b")
	}
	var b strings.Builder
	b.WriteByte('/')
	for range 1 + d.IntN(6) {
		b.WriteString(d.of("a", "b", "api", "items", "/", "/", "/", "//", "%61", "%2e%2e", "..", ".", "%2f", "%5C", `\`, "#", "?q=1", "%00", "%zz", "%", "%4", "A", ".txt", ";x", "..;",
			".%2e", "%2E", "~", "%7e", "%20", "+", ":@", "[", "]", "^", "|", "`", `"`, "<", "{", "}", "%25", "%41", "*", "=", "%3d", "%c3%a9", "'", "!", "$", "&", "(", ")", ",", "_", "-"))
	}
	return b.String()
}

// clone copies deeply.
func (d drawn) clone() drawn {
	out := drawn{mode: d.mode, istio: d.istio, paths: d.paths, edge: d.edge, hops: d.hops}
	for _, p := range d.authz {
		out.authz = append(out.authz, proto.Clone(p).(*securityv1beta1.AuthorizationPolicy))
	}
	for _, p := range d.jwt {
		out.jwt = append(out.jwt, proto.Clone(p).(*securityv1beta1.RequestAuthentication))
	}
	return out
}
