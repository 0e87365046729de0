package explain_test

import (
	"context"
	"encoding/json"
	"slices"
	"strings"
	"testing"

	"go.uber.org/goleak"

	"github.com/credence-mesh/credence/internal/offline"
	"github.com/credence-mesh/credence/internal/settings"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/explain"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func mesh(t *testing.T) *offline.Mesh {
	t.Helper()
	m, problems, err := offline.Open(settings.Defaults(), "testdata/mesh")
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if p.Severity == policy.Error {
			t.Error(p)
		}
	}
	return m
}

const web = "spiffe://cluster.local/ns/shop/sa/web"

func by(peer string) explain.Request {
	return explain.Request{Port: 8080, Transport: explain.MutualTLS, Peer: peer}
}

func with(r explain.Request, change func(*explain.Request)) explain.Request {
	change(&r)
	return r
}

func TestVerdicts(t *testing.T) {
	t.Parallel()
	m := mesh(t)
	admin := map[string]any{"iss": "https://auth.example.com/", "sub": "ann", "aud": "orders", "role": "admin"}
	for _, tt := range []struct {
		name     string
		workload string // default shop/orders
		request  explain.Request
		code     int
		decision string
		policy   string
		rule     int
		at       string
		step     string // of the last step or of any that is named "step: …"
	}{
		{name: "an ALLOW rule", request: with(by(web), func(r *explain.Request) { r.Path = "/orders/1" }), code: 200, decision: explain.Allow, policy: "shop/orders", rule: 0, at: "shop.yaml:27"},
		{name: "no ALLOW rule", request: with(by(web), func(r *explain.Request) { r.Path = "/" }), code: 403, decision: explain.Deny, policy: "shop/orders", rule: -1, at: "shop.yaml:27", step: "allow: ALLOW policies select"},
		{name: "a DENY rule", request: with(by(web), func(r *explain.Request) { r.Path = "/x/../debug" }), code: 403, decision: explain.Deny, policy: "shop/no-debug", rule: 0, at: "shop.yaml:51", step: "path: /x/../debug is read as /debug"},
		{name: "plaintext under STRICT", request: explain.Request{Port: 8080}, decision: explain.Deny, rule: -1, step: "tls: the port demands TLS"},
		{name: "TLS without a certificate", request: explain.Request{Port: 8080, Transport: explain.TLS}, decision: explain.Deny, rule: -1, step: "tls: the port demands a client certificate"},
		{name: "a foreign trust domain", request: by("spiffe://other.example/ns/shop/sa/web"), decision: explain.Deny, rule: -1, step: "tls: the caller is spiffe://other.example"},
		{name: "a port that nobody serves", request: with(by(web), func(r *explain.Request) { r.Port = 1 }), decision: explain.Deny, rule: -1, step: "listener: the proxy has no listener for port 1"},
		{name: "a gateway without its certificate", workload: "edge/gate", request: explain.Request{Port: 443, Transport: explain.TLS}, decision: explain.Deny, rule: -1, step: "listener: the port is closed"},
		{name: "verified claims", request: with(by(web), func(r *explain.Request) { r.Method, r.Path, r.Claims = "PUT", "/orders/7/items", admin }), code: 200, decision: explain.Allow, policy: "shop/orders", rule: 1, at: "shop.yaml:34", step: "jwt: the claims are taken"},
		{name: "claims of an unknown issuer", request: with(by(web), func(r *explain.Request) { r.Claims = map[string]any{"iss": "x"} }), code: 401, decision: explain.Deny, policy: "shop/jwt", rule: -1, at: "shop.yaml:11", step: "jwt: the token's issuer"},
		{name: "claims for another audience", request: with(by(web), func(r *explain.Request) {
			r.Claims = map[string]any{"iss": "https://auth.example.com/", "aud": "billing"}
		}), code: 403, decision: explain.Deny, policy: "shop/jwt", rule: -1, at: "shop.yaml:11", step: "jwt: the token is for audience"},
		{name: "a token whose issuer's keys are not known", request: with(by(web), func(r *explain.Request) {
			r.Token = signers()[one].sign(0, map[string]any{"iss": "https://auth.example.com/", "aud": "orders"})
		}), code: 401, decision: explain.Deny, policy: "shop/jwt", rule: -1, at: "shop.yaml:11", step: "jwt: the keys of issuer https://auth.example.com/ are not known here"},
		{name: "an escaped slash", request: with(by(web), func(r *explain.Request) { r.Path = "/orders%2f1" }), code: 400, decision: explain.Deny, rule: -1, step: "path: the path has an escaped slash"},
		{name: "HTTP rules on a TCP port", request: with(by(web), func(r *explain.Request) { r.Port = 9000 }), decision: explain.Deny, policy: "shop/no-debug", rule: 0, at: "shop.yaml:51", step: "deny: a DENY rule matches"},
		{name: "limits are told, not counted", workload: "find/search", request: by(web), code: 200, decision: explain.Allow, rule: -1, step: "envoy.filters.http.local_ratelimit: would take 1 of 10 tokens"},
		{name: "a body that is too large", workload: "find/search", request: with(by(web), func(r *explain.Request) { r.Body = 1001 }), code: 413, decision: explain.Deny, rule: -1, step: "envoy.filters.http.buffer: the body of 1001 bytes"},
		{name: "an unknown filter is no yes", workload: "odd/scripted", request: by(web), decision: explain.Unknown, rule: -1, step: "envoy.filters.http.lua: not evaluated"},
		{name: "a denial after an unknown filter stands", workload: "odd/scripted", request: with(by(web), func(r *explain.Request) { r.Path = "/admin" }), code: 403, decision: explain.Deny, policy: "odd/no-admin", rule: 0, at: "more.yaml:65", step: "deny: a DENY rule matches"},
		{name: "OPA allows", workload: "opa/vault", request: with(by(web), func(r *explain.Request) { r.Path = "/secrets/1" }), code: 200, decision: explain.Allow, rule: -1, step: "opa: OPA allows"},
		{name: "OPA denies", workload: "opa/vault", request: with(by(web), func(r *explain.Request) { r.Path, r.Method = "/secrets/1", "POST" }), code: 403, decision: explain.Deny, policy: "opa/ask", rule: 0, at: "more.yaml:80", step: "opa: OPA denies (reason: policy)"},
		{name: "OPA is not asked", workload: "opa/vault", request: with(by(web), func(r *explain.Request) { r.Method = "DELETE" }), code: 200, decision: explain.Allow, rule: -1, step: "custom: is audited by opa/soon rule 0"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if tt.workload == "" {
				tt.workload = "shop/orders"
			}
			namespace, name, _ := strings.Cut(tt.workload, "/")
			v, err := m.Explain(context.Background(), namespace, name, tt.request)
			if err != nil {
				t.Fatal(err)
			}
			at := v.At[strings.LastIndexByte(v.At, '/')+1:]
			if v.Code != tt.code || v.Decision != tt.decision || v.Policy != tt.policy || v.Rule != tt.rule || at != tt.at {
				t.Errorf("got %d %s %q rule %d at %q, want %d %s %q rule %d at %q", v.Code, v.Decision, v.Policy, v.Rule, at, tt.code, tt.decision, tt.policy, tt.rule, tt.at)
			}
			if !slices.ContainsFunc(v.Steps, func(s explain.Step) bool { return strings.HasPrefix(s.Name+": "+s.Detail, tt.step) }) {
				t.Errorf("no step %q in %+v", tt.step, v.Steps)
			}
		})
	}
}

func TestNearestMiss(t *testing.T) {
	t.Parallel()
	m := mesh(t)
	user := map[string]any{"iss": "https://auth.example.com/", "sub": "uma", "aud": "orders", "role": "user"}
	for _, tt := range []struct {
		name    string
		request explain.Request
		want    string
	}{
		{"a method", with(by(web), func(r *explain.Request) { r.Method, r.Path = "POST", "/orders/1" }), `rule 0: methods wants GET, got POST at shop.yaml:32`},
		{"a path", with(by(web), func(r *explain.Request) { r.Path = "/order" }), `rule 0: paths wants /orders/*, got /order at shop.yaml:33`},
		{"an identity", with(by("spiffe://cluster.local/ns/shop/sa/job"), func(r *explain.Request) { r.Path = "/orders/1" }), `rule 0: principals wants cluster.local/ns/shop/sa/web, got cluster.local/ns/shop/sa/job at shop.yaml:29`},
		{"a claim", with(by(web), func(r *explain.Request) { r.Method, r.Path, r.Claims = "PUT", "/orders/7/items", user }), `rule 1: request.auth.claims[role] wants admin, got user at shop.yaml:42`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			v, err := m.Explain(context.Background(), "shop", "orders", tt.request)
			if err != nil {
				t.Fatal(err)
			}
			if v.Nearest == nil || len(v.Nearest.Failed) != 1 {
				t.Fatalf("nearest: %+v", v.Nearest)
			}
			f := v.Nearest.Failed[0]
			got := "rule " + string(rune('0'+v.Nearest.Rule)) + ": " + f.Field + " wants " + f.Want + ", got " + f.Got + " at " + f.At[strings.LastIndexByte(f.At, '/')+1:]
			if got != tt.want {
				t.Errorf("got  %s\nwant %s", got, tt.want)
			}
		})
	}
}

// The keys of the JSON form are what scripts read.
func TestVerdictJSON(t *testing.T) {
	t.Parallel()
	b, err := json.Marshal(explain.Verdict{Code: 403, Decision: explain.Deny, Policy: "ns/name", Steps: []explain.Step{}})
	if err != nil {
		t.Fatal(err)
	}
	if want := `{"code":403,"decision":"deny","policy":"ns/name","rule":0,"at":"","because":"","steps":[]}`; string(b) != want {
		t.Errorf("got %s", b)
	}
}

func TestCanonical(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct{ name, path, want string }{
		{"plain", "/a/b", "/a/b"}, {"dots", "/a/../b/./c", "/b/c"}, {"above the root", "/../../a", "/a"}, {"escaped dots", "/a/%2e%2e/b", "/b"},
		{"dots with parameters", "/a/..;x/b", "/b"}, {"slashes", "//a///b//", "/a/b/"}, {"nothing but slashes", "///", "//"}, {"a backslash", `/a\b`, "/a/b"},
		{"needless escapes", "/%61%7E", "/a~"}, {"needed escapes", "/a b", "/a%20b"}, {"no escape", "/%zz", "/%zz"}, {"an escape that unescaping would make", "/%4%61", "/%254a"},
		{"the query is left", "/a/../b?x=/../%61//", "/b?x=/../%61//"},
	} {
		if got, ok := explain.Canonical(tt.path); !ok || got != tt.want {
			t.Errorf("%s: %q is %q, %v; want %q", tt.name, tt.path, got, ok, tt.want)
		}
	}
	if _, ok := explain.Canonical("/%00"); ok {
		t.Error("a zero byte is accepted")
	}
}

// FuzzCanonical: what is canonical stays as it is, and nothing panics.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"/", "/a/../b", "/%2e%2e;/x", `/\..\a`, "/%4%61", "/..;/..", "?", "/%"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		once, ok := explain.Canonical(s)
		if !ok {
			return
		}
		path, _, _ := strings.Cut(once, "?")
		if !strings.HasPrefix(path, "/") || slices.Contains(strings.Split(path, "/"), "..") {
			t.Errorf("%q is %q", s, once)
		}
	})
}

// FuzzToken: no token makes the reader panic, and only a signed one is believed.
func FuzzToken(f *testing.F) {
	for _, s := range []string{"", "a.b.c", "..", pool()[0]} {
		f.Add(s)
	}
	config, set := fuzzed(f)
	f.Fuzz(func(t *testing.T, token string) {
		r := explain.Request{Port: appPort, Headers: []explain.Header{{Name: "authorization", Value: "Bearer " + token}}}
		v := config.Explain(context.Background(), set, nil, r)
		verified := slices.ContainsFunc(v.Steps, func(s explain.Step) bool { return strings.Contains(s.Detail, "is verified") })
		if verified && !slices.ContainsFunc(pool(), func(good string) bool { return strings.Trim(token, ".=") == strings.Trim(good, ".") }) {
			t.Errorf("%q is believed", token)
		}
	})
}
