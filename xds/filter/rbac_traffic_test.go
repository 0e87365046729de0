package filter

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/internal/issuer"
	"github.com/credence-mesh/credence/internal/policytest"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/ir"
)

// ap is an AuthorizationPolicy of namespace production.
func ap(name, spec string) string {
	return "\n---\nkind: AuthorizationPolicy\nmetadata: {name: " + name + ", namespace: production}\nspec: " + spec
}

// try is one request and the verdict on it.
type try struct {
	what string
	req  request
	want int
}

const sa = "spiffe://cluster.local/ns/"

// The rows of semantics.md 2.1 about the caller's certificate, over mutual TLS.
func TestRulesAboutPeers(t *testing.T) {
	t.Parallel()
	from := func(source string) string { return "{rules: [{from: [{source: " + source + "}]}]}" }
	is := func(id string, want int) try { return try{"as " + id, request{path: "/", as: id}, want} }
	for _, tc := range []struct {
		name, policies string
		aliases        []string
		tries          []try
	}{
		{"principal", ap("a", from(`{principals: ["cluster.local/ns/n/sa/s"]}`)), nil,
			[]try{is(sa+"n/sa/s", 200), is(sa+"n/sa/t", 403), is(sa+"n/sa/s/x", 403), is("spiffe://other/ns/n/sa/s", 403)}},
		{"principal by prefix", ap("a", from(`{principals: ["cluster.local/ns/n/*"]}`)), nil, []try{is(sa+"n/sa/s", 200), is(sa+"m/sa/s", 403)}},
		{"principal by suffix", ap("a", from(`{principals: ["*/sa/s"]}`)), nil, []try{is(sa+"n/sa/s", 200), is(sa+"n/sa/t", 403)}},
		{"any principal", ap("a", from(`{principals: ["*"]}`)), nil, []try{is(sa+"n/sa/s", 200)}},
		{"a star in the middle is a star", ap("a", from(`{principals: ["cluster.local/ns/*/sa/s"]}`)), nil, []try{is(sa+"n/sa/s", 403)}},
		{"notPrincipals", ap("a", from(`{notPrincipals: ["cluster.local/ns/n/sa/s"]}`)), nil, []try{is(sa+"n/sa/s", 403), is(sa+"n/sa/t", 200)}},
		{"cluster.local is every local domain", ap("a", from(`{principals: ["cluster.local/ns/n/sa/s"]}`)), []string{"old.example"},
			[]try{is("spiffe://mesh.example/ns/n/sa/s", 200), is("spiffe://old.example/ns/n/sa/s", 200), is(sa+"n/sa/s", 403)}},
		{"an alias is every local domain", ap("a", from(`{principals: ["old.example/ns/n/sa/s"]}`)), []string{"old.example"},
			[]try{is("spiffe://mesh.example/ns/n/sa/s", 200), is("spiffe://old.example/ns/n/sa/s", 200)}},
		{"a foreign domain is itself", ap("a", from(`{principals: ["foreign/ns/n/sa/s"]}`)), []string{"old.example"},
			[]try{is("spiffe://foreign/ns/n/sa/s", 200), is("spiffe://mesh.example/ns/n/sa/s", 403)}},
		{"namespaces", ap("a", from(`{namespaces: ["echo1", "team-*"]}`)), nil,
			[]try{is(sa+"echo1/sa/b", 200), is(sa+"team-x/sa/b", 200), is(sa+"echo2/sa/b", 403), is(sa+"echo11/sa/b", 403), is(sa+"evil/sa/x/ns/echo1/sa/b", 403), is(sa+"team-/x/sa/b", 200)}},
		{"notNamespaces", ap("a", from(`{notNamespaces: ["echo1"]}`)), nil, []try{is(sa+"echo1/sa/b", 403), is(sa+"n/sa/b", 200)}},
		{"serviceAccounts", ap("a", from(`{serviceAccounts: ["s", "n/t"]}`)), nil,
			[]try{is(sa+"production/sa/s", 200), is(sa+"n/sa/t", 200), is(sa+"n/sa/s", 403), is(sa+"n/sa/tt", 403), is(sa+"evil/sa/x/ns/n/sa/t", 403), is(sa+"n/sa/x/sa/t", 403), is(sa+"n/sa/t/pod/1", 200)}},
		{"trustDomains", ap("a", from(`{trustDomains: ["foreign", "*.example"]}`)), nil,
			[]try{is("spiffe://foreign/ns/n/sa/s", 200), is("spiffe://x.example/ns/n/sa/s", 200), is(sa+"n/sa/s", 403), is("spiffe://foreign.evil/ns/n/sa/s", 403), is(sa+"foreign/sa/x", 403)}},
		{"names as long as they may be", ap("a", from(fmt.Sprintf(`{serviceAccounts: ["%s/%s"]}`, strings.Repeat("n", 63), strings.Repeat("s", 253)))) + ap("b", from(fmt.Sprintf(`{namespaces: ["%s"]}`, strings.Repeat("m", 63)))), nil,
			[]try{is(sa+strings.Repeat("n", 63)+"/sa/"+strings.Repeat("s", 253), 200), is(sa+strings.Repeat("n", 63)+"/sa/"+strings.Repeat("s", 253)+"/x", 200), is(sa+strings.Repeat("n", 63)+"/sa/s", 403), is(sa+strings.Repeat("m", 63)+"/sa/s", 200)}},
		{"when source.principal", ap("a", `{rules: [{when: [{key: source.principal, values: ["cluster.local/ns/n/sa/s"]}]}]}`), nil, []try{is(sa+"n/sa/s", 200), is(sa+"n/sa/t", 403)}},
		{"when source.namespace not", ap("a", `{rules: [{when: [{key: source.namespace, notValues: ["n"]}]}]}`), nil, []try{is(sa+"n/sa/s", 403), is(sa+"m/sa/t", 200)}},
		{"when source.serviceAccount", ap("a", `{rules: [{when: [{key: source.serviceAccount, values: ["n/s"]}]}]}`), nil, []try{is(sa+"n/sa/s", 200), is(sa+"m/sa/s", 403)}},
		{"X-Forwarded-Client-Cert is only a claim", ap("a", from(`{principals: ["cluster.local/ns/n/sa/s"]}`)), nil,
			[]try{{"forged", request{path: "/", as: sa + "n/sa/t", headers: http.Header{"X-Forwarded-Client-Cert": {"URI=" + sa + "n/sa/s"}}}, 403}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			mesh := policy.DefaultMesh()
			if tc.aliases != nil {
				mesh.TrustDomain, mesh.TrustDomainAliases = "mesh.example", tc.aliases
			}
			set := policytest.In(t, mesh, gatewayWorkload+tc.policies)
			p := start(t, rig{mtls: true, http: &ir.HTTP{Name: "in", Guard: guard(t, set, "production", "gw", nil)}})
			verdicts(t, p, tc.tries)
		})
	}
}

func verdicts(t *testing.T, p *proxy, tries []try) {
	t.Helper()
	for _, r := range tries {
		if got, _ := p.send(t, r.req); got != r.want {
			t.Errorf("%s: got %d, want %d", r.what, got, r.want)
		}
	}
}

// The rows about the request.
func TestRulesAboutRequests(t *testing.T) {
	t.Parallel()
	to := func(op string) string { return "{rules: [{to: [{operation: " + op + "}]}]}" }
	get := func(path string, want int) try { return try{"GET " + path, request{path: path}, want} }
	head := func(name, value string, want int) try {
		return try{name + ": " + value, request{path: "/", headers: http.Header{name: {value}}}, want}
	}
	host := func(h string, want int) try { return try{"host " + h, request{path: "/", host: h}, want} }
	for _, tc := range []struct {
		name, policies string
		tries          []try
	}{
		{"no policy", "", []try{get("/", 200)}},
		{"spec {} allows nothing", ap("a", "{}"), []try{get("/", 403)}},
		{"rules [{}] allows everything", ap("a", "{rules: [{}]}"), []try{get("/", 200)}},
		{"paths", ap("a", to(`{paths: ["/exact", "/prefix/*", "*.suffix"]}`)),
			[]try{get("/exact", 200), get("/exact?x=/prefix/", 200), get("/exact/", 403), get("/prefix/", 200), get("/prefix/a/b", 200), get("/prefix", 403), get("/a/b.suffix", 200), get("/EXACT", 403)}},
		{"notPaths", ap("a", to(`{notPaths: ["/secret", "/admin/*"]}`)), []try{get("/", 200), get("/secret", 403), get("/admin/x", 403), get("//admin/x", 403), get("/x/../admin/y", 403)}},
		{"escaped slashes are refused", ap("a", to(`{notPaths: ["/admin/*"]}`)), []try{get("/x%2f..%2fadmin/y", 400)}},
		{"templates", ap("a", to(`{paths: ["/foo/{*}/bar", "/v/{**}", "/e/{**}/"]}`)),
			[]try{get("/foo/x/bar", 200), get("/foo/x/y/bar", 403), get("/foo//bar", 403), get("/v/a/b", 200), get("/v/", 200), get("/e/bar/baz.txt", 403), get("/foo/*/bar", 200), get("/foo/x/bar?q=1", 200)}},
		{"a template that would crash Envoy: an empty segment", ap("a", to(`{paths: ["/a//{*}"]}`)), []try{get("/", 503)}},
		{"and other characters", ap("a", to(`{paths: ["/a b/{*}"]}`)), []try{get("/", 503)}},
		{"every character that a template may hold", ap("a", to(`{paths: ["/az09AZ-._~%20!$&'()+,;=:@/{*}/"]}`)), []try{get("/az09AZ-._~%20!$&'()+,;=:@/x/", 200), get("/", 403)}},
		{"methods", ap("a", to(`{methods: ["GET"]}`)), []try{get("/", 200), {"POST", request{method: "POST", path: "/"}, 403}, {"override", request{method: "POST", path: "/", headers: http.Header{"X-Http-Method-Override": {"GET"}}}, 403}}},
		{"notMethods", ap("a", to(`{notMethods: ["DELETE"]}`)), []try{get("/", 200), {"DELETE", request{method: "DELETE", path: "/"}, 403}}},
		{"hosts without regard to case", ap("a", to(`{hosts: ["api.example.com", "*.Example.org"]}`)), []try{host("API.example.com", 200), host("x.example.org", 200), host("api.example.com:80", 403), host("example.org", 403)}},
		{"fields of an operation hold together", ap("a", to(`{methods: ["GET"], paths: ["/a"]}`)), []try{get("/a", 200), get("/b", 403), {"POST", request{method: "POST", path: "/a"}, 403}}},
		{"operations are alternatives", ap("a", `{rules: [{to: [{operation: {paths: ["/a"]}}, {operation: {paths: ["/b"]}}]}]}`), []try{get("/a", 200), get("/b", 200), get("/c", 403)}},
		{"the port of the workload", ap("a", to(`{ports: ["8080"]}`)), []try{get("/", 200)}},
		{"another port", ap("a", to(`{ports: ["9090"]}`)), []try{get("/", 403)}},
		{"notPorts", ap("a", to(`{notPorts: ["8080"]}`)), []try{get("/", 403)}},
		{"when destination.port", ap("a", `{rules: [{when: [{key: destination.port, values: ["8080"]}]}]}`), []try{get("/", 200)}},
		{"headers", ap("a", `{rules: [{when: [{key: "request.headers[X-Key]", values: ["v", "p*"]}]}]}`), []try{head("x-key", "v", 200), head("x-key", "pq", 200), head("x-key", "V", 403), get("/", 403)}},
		{"header present", ap("a", `{rules: [{when: [{key: "request.headers[x-key]", values: ["*"]}]}]}`), []try{head("x-key", "v", 200), get("/", 403)}},
		{"notValues on an absent header", ap("a", `{rules: [{when: [{key: "request.headers[x-key]", notValues: ["v"]}]}]}`), []try{get("/", 200), head("x-key", "v", 403), head("x-key", "w", 200)}},
		{"ipBlocks", ap("a", `{rules: [{from: [{source: {ipBlocks: ["127.0.0.0/8"]}}]}]}`), []try{get("/", 200)}},
		{"notIpBlocks", ap("a", `{rules: [{from: [{source: {notIpBlocks: ["127.0.0.1"]}}]}]}`), []try{get("/", 403)}},
		{"remoteIpBlocks see X-Forwarded-For", ap("a", `{rules: [{from: [{source: {remoteIpBlocks: ["203.0.113.7"]}}]}]}`), []try{head("X-Forwarded-For", "203.0.113.7", 200), get("/", 403)}},
		{"ipBlocks do not", ap("a", `{rules: [{from: [{source: {ipBlocks: ["203.0.113.7"]}}]}]}`), []try{head("X-Forwarded-For", "203.0.113.7", 403)}},
		{"destination.ip", ap("a", `{rules: [{when: [{key: destination.ip, values: ["127.0.0.1"]}]}]}`), []try{get("/", 200)}},
		{"DENY", ap("a", `{action: DENY, rules: [{to: [{operation: {paths: ["/x"]}}]}]}`), []try{get("/x", 403), get("/", 200)}},
		{"DENY wins over ALLOW", ap("a", `{action: DENY, rules: [{to: [{operation: {paths: ["/x"]}}]}]}`) + ap("b", "{rules: [{}]}"), []try{get("/x", 403), get("/", 200)}},
		{"ALLOW policies add up", ap("a", to(`{paths: ["/a"]}`)) + ap("b", to(`{paths: ["/b"]}`)), []try{get("/a", 200), get("/b", 200), get("/c", 403)}},
		{"AUDIT changes nothing", ap("a", `{action: AUDIT, rules: [{}]}`), []try{get("/", 200)}},
		{"dry-run alone is no default deny", strings.Replace(ap("a", to(`{paths: ["/a"]}`)), "production}", `production, annotations: {istio.io/dry-run: "true"}}`, 1), []try{get("/", 200)}},
		{"dry-run DENY denies nothing", strings.Replace(ap("a", `{action: DENY, rules: [{}]}`), "production}", `production, annotations: {istio.io/dry-run: "true"}}`, 1), []try{get("/", 200)}},
		{"dry-run: false is in force", strings.Replace(ap("a", to(`{paths: ["/a"]}`)), "production}", `production, annotations: {istio.io/dry-run: "no idea"}}`, 1), []try{get("/", 403)}},
		{"unknown provider", ap("a", `{action: CUSTOM, provider: {name: nobody}, rules: [{to: [{operation: {paths: ["/x"]}}]}]}`), []try{get("/x", 403), get("/", 200)}},
		{"two providers", ap("a", `{action: CUSTOM, provider: {name: opa}, rules: [{to: [{operation: {paths: ["/x"]}}]}]}`) + ap("b", `{action: CUSTOM, provider: {name: other}, rules: [{to: [{operation: {paths: ["/y"]}}]}]}`), []try{get("/y", 403), get("/", 200)}},
		{"the provider does not answer (C36)", ap("a", `{action: CUSTOM, provider: {name: opa}, rules: [{to: [{operation: {paths: ["/x"]}}]}]}`), []try{get("/x", 403), get("/", 200)}},
		{"void", strings.Replace(ap("a", "{}"), "production}", "production, annotations: {test/void: 'yes'}}", 1), []try{get("/", 503)}},
		{"invalid", ap("a", `{rules: [{from: [{source: {ipBlocks: ["nonsense"]}}]}]}`), []try{get("/", 503)}},
		{"an empty source would match everything", ap("a", `{rules: [{from: [{source: {}}]}]}`), []try{get("/", 503)}},
		{"DENY without rules is invalid", ap("a", `{action: DENY}`), []try{get("/", 503)}},
		{"SNI of none", ap("a", `{rules: [{when: [{key: connection.sni, notValues: ["x"]}]}]}`), []try{get("/", 200)}},
		{"metadata of a filter", ap("a", `{rules: [{when: [{key: "experimental.envoy.filters.a.b[c]", values: ["x", "[y]"]}]}]}`), []try{get("/", 403)}},
		{"root namespace covers everything", strings.Replace(ap("a", "{}"), "production", "istio-system", 1), []try{get("/", 403)}},
		{"selector misses", ap("a", "{selector: {matchLabels: {app: x}}}"), []try{get("/", 200)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			set := policytest.Set(t, gatewayWorkload+tc.policies)
			verdicts(t, start(t, rig{http: &ir.HTTP{Name: "in", Guard: guard(t, set, "production", "gw", nil), Lenient: true, Paths: ir.PathsMergeSlashes}}), tc.tries)
		})
	}
}

// The rows about verified claims.
func TestRulesAboutClaims(t *testing.T) {
	t.Parallel()
	a, b := envoytest.NewIssuer(t, "https://a.example/"), envoytest.NewIssuer(t, "https://b.example")
	const authentication = `
kind: RequestAuthentication
metadata: {name: ra, namespace: production}
spec: {jwtRules: [{issuer: "https://a.example/", jwksUri: "https://a"}, {issuer: "https://b.example", jwksUri: "https://b", spaceDelimitedClaims: [roles_text]}]}
`
	when := func(key string, values ...string) string {
		return fmt.Sprintf("{rules: [{when: [{key: %q, values: [%s]}]}]}", key, strings.Join(values, ", "))
	}
	principal := func(values string) string {
		return "{rules: [{from: [{source: {requestPrincipals: [" + values + "]}}]}]}"
	}
	by := func(i envoytest.Issuer, claims issuer.Claims, want int) try {
		return try{fmt.Sprint(i.Name(), claims), request{path: "/", token: i.Sign(t, claims)}, want}
	}
	alice := issuer.Claims{"sub": "alice"}
	for _, tc := range []struct {
		name, policies string
		tries          []try
	}{
		{"any principal", ap("a", principal(`"*"`)), []try{by(a, alice, 200), by(b, alice, 200), by(b, issuer.Claims{}, 403), {"none", request{path: "/"}, 403}}},
		{"exact", ap("a", principal(`"https://b.example/alice"`)), []try{by(b, alice, 200), by(b, issuer.Claims{"sub": "bob"}, 403), by(a, alice, 403)}},
		{"an issuer that ends in a slash: the trap", ap("a", principal(`"https://a.example/*"`)), []try{by(a, alice, 403)}},
		{"and its way out", ap("a", principal(`"https://a.example//*"`)), []try{by(a, alice, 200), by(b, alice, 403)}},
		{"subject by prefix", ap("a", principal(`"https://b.example/al*"`)), []try{by(b, alice, 200), by(b, issuer.Claims{"sub": "bob"}, 403)}},
		{"any issuer", ap("a", principal(`"*/alice"`)), []try{by(a, alice, 200), by(b, issuer.Claims{"sub": "bob"}, 403)}},
		{"subject by suffix", ap("a", principal(`"*ice"`)), []try{by(a, alice, 200), by(b, issuer.Claims{"sub": "bob"}, 403)}},
		{"notRequestPrincipals", ap("a", `{action: DENY, rules: [{from: [{source: {notRequestPrincipals: ["*"]}}]}]}`), []try{by(a, alice, 200), {"none", request{path: "/"}, 403}}},
		{"request.auth.principal", ap("a", when("request.auth.principal", `"https://b.example/alice"`)), []try{by(b, alice, 200), by(a, alice, 403)}},
		{"audiences", ap("a", when("request.auth.audiences", "x")), []try{by(a, issuer.Claims{"aud": "x"}, 200), by(a, issuer.Claims{"aud": []string{"y", "x"}}, 200), by(a, issuer.Claims{"aud": "y"}, 403)}},
		{"presenter", ap("a", when("request.auth.presenter", "x")), []try{by(a, issuer.Claims{"azp": "x"}, 200), by(a, alice, 403)}},
		{"a claim", ap("a", when("request.auth.claims[role]", "admin", `"op*"`)),
			[]try{by(a, issuer.Claims{"role": "admin"}, 200), by(a, issuer.Claims{"role": []string{"x", "admin"}}, 200), by(a, issuer.Claims{"role": "operator"}, 200),
				by(a, issuer.Claims{"role": "administrator"}, 403), by(a, issuer.Claims{"role": true}, 403), by(a, alice, 403)}},
		{"a number is no string", ap("a", when("request.auth.claims[level]", `"7"`)), []try{by(a, issuer.Claims{"level": 7}, 403), by(a, issuer.Claims{"level": "7"}, 200)}},
		{"nested", ap("a", when("request.auth.claims[realm][role]", "admin")), []try{by(a, issuer.Claims{"realm": issuer.Claims{"role": "admin"}}, 200), by(a, issuer.Claims{"role": "admin"}, 403)}},
		{"scope is split at spaces", ap("a", when("request.auth.claims[scope]", "write")), []try{by(a, issuer.Claims{"scope": "read write"}, 200), by(a, issuer.Claims{"scope": "read writes"}, 403)}},
		{"and what the policy says beside it", ap("a", when("request.auth.claims[roles_text]", "x")), []try{by(b, issuer.Claims{"roles_text": "y x"}, 200), by(a, issuer.Claims{"roles_text": "y x"}, 403)}},
		{"a claim that is absent is not the value", ap("a", `{rules: [{when: [{key: "request.auth.claims[role]", notValues: [admin]}]}]}`), []try{by(a, alice, 200), {"none", request{path: "/"}, 200}, by(a, issuer.Claims{"role": "admin"}, 403)}},
		{"present", ap("a", when("request.auth.claims[role]", `"*"`)), []try{by(a, issuer.Claims{"role": "x"}, 200), by(a, issuer.Claims{"role": ""}, 403), by(a, alice, 403)}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			set := policytest.Set(t, gatewayWorkload+authentication+tc.policies)
			keys := map[string]envoytest.Issuer{a.Name(): a, b.Name(): b}
			verdicts(t, start(t, rig{http: &ir.HTTP{Name: "in", Guard: guard(t, set, "production", "gw", keys)}}), tc.tries)
		})
	}
}
