package e2e

import (
	"crypto/tls"
	"fmt"
	"net/textproto"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/credence-mesh/credence/internal/envoytest"
)

// evil is in every value by which a vector pretends to be somebody: it must never arrive anywhere.
const evil = "evil-"

// arena is a mesh under attack: a gateway, and a sidecar that is reached in plaintext and by mutual TLS, before one backend that believes
// everything. All three have the same policies.
type arena struct {
	*world
	doors []door
	a     smith // of https://a.test
	b     envoytest.Issuer
	good  string // a token of a for tenant t1
}

// door is a way in.
type door struct {
	name, addr string
	tls        *tls.Config
	victim     *victim
	peer       bool // a workload of the mesh: some of what it says is believed
}

// vector is one attack.
type vector struct {
	name    string
	threat  string // of the list of threats: "A1"
	raw     string // what is sent; empty: h2
	h2      func(*frames)
	status  []int  // the answers that are right; 0 is a connection that was closed without one
	arrives string // the target that the backend must see; empty: nothing must arrive; "*": anything that policy permits
	outside bool   // only at doors that are no peer's
	check   func(t *testing.T, got []reached)
}

const attackPolicies = `apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens-%[1]s, namespace: shop}
spec:
  selector: {matchLabels: {app: %[1]s}}
  jwtRules:
  - issuer: https://a.test
    jwks: '%[2]s'
    audiences: [api]
    outputPayloadToHeader: x-jwt-payload
    outputClaimToHeaders: [{header: x-tenant-id, claim: tenant}, {header: x-user-roles, claim: roles}]
  - issuer: https://b.test
    jwks: '%[3]s'
    outputClaimToHeaders: [{header: x-b-tenant, claim: tenant}]
  - issuer: https://down.test
    jwksUri: http://127.0.0.1:1/jwks
  - issuer: https://metadata.test
    jwksUri: http://169.254.169.254/jwks
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: allow-%[1]s, namespace: shop}
spec:
  selector: {matchLabels: {app: %[1]s}}
  rules:
  - to: [{operation: {paths: ["/public", "/public/*", "/health"], methods: [GET, POST, HEAD]}}]
  - from: [{source: {requestPrincipals: ["https://a.test/*"]}}]
    to: [{operation: {paths: ["/tenants/t1", "/tenants/t1/*"]}}]
    when: [{key: "request.auth.claims[tenant]", values: [t1]}]
  - to: [{operation: {paths: ["/gold/*"]}}]
    when: [{key: "request.headers[x-tier]", values: [gold]}]
  - to: [{operation: {paths: ["/segment/{*}/end"]}}]
  - from: [{source: {remoteIpBlocks: [198.51.100.7]}}]
    to: [{operation: {paths: ["/internal/*"]}}]
  - from: [{source: {principals: [cluster.local/ns/shop/sa/admin]}}]
    to: [{operation: {paths: ["/admin/*"]}}]
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny-%[1]s, namespace: shop}
spec:
  selector: {matchLabels: {app: %[1]s}}
  action: DENY
  rules:
  - to: [{operation: {paths: ["/public/private", "/public/private/*"]}}]
  - to: [{operation: {hosts: [closed.test]}}]
`

// TestAttacks tries every vector at every door. docs/attacks.md says what is covered.
func TestAttacks(t *testing.T) {
	// Not beside other tests: an answer that is late because the machine is busy looks like one that was refused.
	x := startArena(t)
	vectors := slices.Concat(pathAttacks(), headerAttacks(x), framingAttacks(), methodAttacks(), hostAttacks(), tokenAttacks(t, x), http2Attacks(x))
	if n := len(vectors); n < 200 {
		t.Errorf("%d vectors, want at least 200", n)
	}
	covered(t, vectors)
	t.Run("doors", func(t *testing.T) {
		for _, d := range x.doors {
			t.Run(d.name, func(t *testing.T) {
				t.Parallel()
				for _, v := range vectors {
					if !v.outside || !d.peer {
						t.Run(v.threat+" "+v.name, func(t *testing.T) { x.attack(t, d, v) })
					}
				}
			})
		}
	})
	t.Run("steps", func(t *testing.T) { x.steps(t) })
}

func startArena(t *testing.T) *arena {
	t.Helper()
	v, v2, v3 := startVictim(t), startVictim(t), startVictim(t)
	a, b := newSmith(t), envoytest.NewIssuer(t, "https://b.test")
	keys, err := b.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	ca := envoytest.NewCA(t, "public")
	ports := []port{httpPort(8080, v2.addr), httpPort(8081, v3.addr)}
	w := start(t, "", map[string]string{
		"strict.yaml": strict,
		"plain.yaml": `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: levels, namespace: shop}
spec: {selector: {matchLabels: {app: called}}, portLevelMtls: {8081: {mode: PERMISSIVE}}}
`,
		"gateway.yaml": docs(gateway("127.0.81.5", "{name: http, port: 8080, protocol: HTTP}",
			"{name: one, port: 8443, hostname: one.test, protocol: HTTPS, tls: {certificateRefs: [{name: edge-tls}]}}",
			"{name: two, port: 8443, hostname: two.test, protocol: HTTPS, tls: {certificateRefs: [{name: edge-tls}]}}"),
			route("all", "http", "  rules: [{backendRefs: [{name: victim, port: 80}]}]\n"),
			route("one", "one", "  hostnames: [one.test]\n  rules: [{backendRefs: [{name: victim, port: 80}]}]\n")),
		"secret.yaml":        tlsSecret("shop", "edge-tls", ca.Issue(t, "")),
		"victim.yaml":        outside("shop", "victim", v.addr),
		"called.yaml":        workload("called", "127.0.81.2", envoytest.FreePort(t), ports...),
		"policy-edge.yaml":   fmt.Sprintf(attackPolicies, "edge", a.jwks(t), keys),
		"policy-called.yaml": fmt.Sprintf(attackPolicies, "called", a.jwks(t), keys),
	})
	w.proxy("shop/edge")
	w.proxy("shop/called")
	x := &arena{world: w, a: a, b: b, good: a.sign(t, usualHeader, claims(`,"roles":["user"]`+exp(time.Hour)))}
	peer := w.svid(callerID)
	x.doors = []door{
		{name: "gateway", addr: "127.0.81.5:8080", victim: v},
		{name: "sidecar, plaintext", addr: "127.0.81.2:8081", victim: v3},
		{name: "sidecar, mutual TLS", addr: "127.0.81.2:8080", victim: v2, tls: peer, peer: true},
	}
	for _, d := range x.doors {
		x.until(d.name+" to serve", func() (bool, error) {
			got := x.send(t, d, get("/public/ready"), attackPatience)
			return slices.Equal(got, []int{200}), nil
		})
		d.victim.take()
	}
	return x
}

// attack sends one vector, and looks at what arrived.
func (x *arena) attack(t *testing.T, d door, v vector) {
	t.Helper()
	var got []int
	patience := attackPatience
	if slices.Contains(v.status, 0) {
		patience = attackSilence
	}
	if v.h2 != nil {
		got = x.sendFrames(t, d, v.h2, patience)
	} else {
		got = x.send(t, d, v.raw, patience)
	}
	if len(got) == 0 {
		got = []int{0}
	}
	all := d.victim.take()
	if !slices.Contains(v.status, got[0]) {
		t.Errorf("answered %v, want one of %v", got, v.status)
	}
	if v.arrives == "" && len(all) > 0 {
		t.Errorf("%q arrived", all[0].head)
	}
	if v.arrives != "" && v.arrives != "*" && (len(all) != 1 || all[0].target != v.arrives) {
		t.Errorf("%v arrived, want %s", all, v.arrives)
	}
	for _, q := range all {
		permitted(t, q)
	}
	if v.check != nil {
		v.check(t, all)
	}
}

// permitted: no reading of a request that arrived is one that policy forbids, and nothing in it is made up.
func permitted(t *testing.T, q reached) {
	t.Helper()
	if strings.Contains(strings.ToLower(q.head), evil) {
		t.Errorf("something made up arrived: %q", q.head)
	}
	if v := q.header.Get("X-Tenant-Id"); v != "" && v != "t1" {
		t.Errorf("tenant %q arrived: %q", v, q.head)
	}
	for p := range readings(q.target) {
		if !open(p, q.header) {
			t.Errorf("%s arrived, which can be read as %s", q.target, p)
		}
		if lower := strings.ToLower(p); !strings.HasPrefix(lower, "/public/private") && !open(lower, q.header) {
			t.Errorf("%s arrived, which can be read as %s", q.target, lower)
		}
	}
}

// open is the policies, once more.
func open(p string, h textproto.MIMEHeader) bool {
	in := func(dir string) bool { return p == dir || strings.HasPrefix(p, dir+"/") }
	switch {
	case in("/public/private"):
		return false
	case in("/public"), p == "/health":
		return true
	case in("/tenants/t1"):
		return slices.Equal(h.Values("X-Tenant-Id"), []string{"t1"})
	case in("/gold"):
		return slices.Contains(h.Values("X-Tier"), "gold")
	case in("/segment"):
		return strings.Count(p, "/") == 3 && strings.HasSuffix(p, "/end")
	default:
		return false
	}
}

// covered: every threat of the areas A and B has a vector, or one of the steps.
func covered(t *testing.T, vectors []vector) {
	t.Helper()
	have := map[string]bool{"A13": true, "A14": true, "A15": true, "B31": true, "B32": true, "B34": true, "B35": true} // steps
	names := map[string]bool{}
	for _, v := range vectors {
		have[v.threat] = true
		if names[v.threat+v.name] {
			t.Errorf("two vectors are called %s %s", v.threat, v.name)
		}
		names[v.threat+v.name] = true
	}
	for n := 1; n <= 35; n++ {
		id := fmt.Sprintf("A%d", n)
		if n > 18 {
			id = fmt.Sprintf("B%d", n)
		}
		if !have[id] {
			t.Errorf("no vector for %s", id)
		}
	}
}

// get is a request of one line and some headers, on a connection of its own.
func get(target string, headers ...string) string { return line("GET "+target+" HTTP/1.1", headers...) }

func line(first string, headers ...string) string {
	out := first + "\r\nHost: app.test\r\nConnection: close\r\n"
	for _, h := range headers {
		out += h + "\r\n"
	}
	return out + "\r\n"
}

const (
	// attackPatience bounds the wait for an answer that must come.
	attackPatience = 10 * time.Second
	// attackSilence bounds the wait for one that need not.
	attackSilence = 500 * time.Millisecond
)
