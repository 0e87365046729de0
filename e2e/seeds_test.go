package e2e

import (
	"fmt"
	"io/fs"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/internal/issuer"
)

// seedFiles are the resources of the two articles, untouched.
func seedFiles(t *testing.T) map[string]string {
	t.Helper()
	root := filepath.Join("..", "..", "shared", "seeds")
	if _, err := os.Stat(root); err != nil {
		t.Skip("the seeds are not beside this checkout (../shared/seeds): this test runs their own files; examples/demo has its equivalents")
	}
	files := map[string]string{}
	err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() || strings.HasSuffix(path, ".txt") {
			return err
		}
		text, err := os.ReadFile(path)
		rel, _ := filepath.Rel(root, path)
		files[filepath.Join("seeds", rel)] = string(text)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	workloads, err := os.ReadFile("testdata/seeds-workloads.yaml")
	if err != nil {
		t.Fatal(err)
	}
	files["workloads.yaml"] = string(workloads)
	return files
}

// TestSeeds serves the seeds' own files to real Envoys: a verdict of authorization is Istio's to the letter, and what in Istio would silently do nothing works.
func TestSeeds(t *testing.T) {
	files := seedFiles(t)
	mine := envoytest.NewIssuer(t, "https://auth.example.com/")
	platform := envoytest.NewIssuer(t, "https://auth.platform.example.com/")
	settings := "jwks:\n" + keysOf(t, "https://auth.example.com/.well-known/jwks.json", mine) +
		keysOf(t, "https://auth.platform.example.com/.well-known/jwks.json", platform)
	w := start(t, settings, files)
	envoytest.BackendAt(t, "127.0.71.101:8080", "api-gateway")
	envoytest.BackendAt(t, "127.0.71.102:8080", "payment")
	for _, name := range []string{"api-gateway-1", "payment-1", "order-1", "intruder-1", "ingress"} {
		w.proxy("production/" + name)
	}
	t.Run("mutual TLS", w.seedMTLS)
	t.Run("tokens at the sidecar", func(t *testing.T) { w.seedTokens(t, mine) })
	t.Run("tokens at the ingress gateway", func(t *testing.T) { w.seedIngress(t, platform) })
	t.Run("limits", func(t *testing.T) { w.seedLimits(t, mine) })
}

func keysOf(t *testing.T, uri string, i http.Handler) string {
	t.Helper()
	s := httptest.NewServer(i)
	t.Cleanup(s.Close)
	return fmt.Sprintf("- {uri: %q, url: %q}\n", uri, s.URL+"/jwks.json")
}

func (w *world) seedMTLS(t *testing.T) {
	w.t = t
	const host, path = "payment-service.production", "/api/v1/payments/1"
	order, intruder := dial("http://127.0.71.3:15080", nil), dial("http://127.0.71.4:15080", nil)
	w.expect(order, ask{host: host, path: path}, 200)
	w.expect(order, ask{method: "DELETE", host: host, path: path}, 403)
	w.expect(order, ask{host: host, path: "/api/v1/refunds/1"}, 403)
	w.expect(intruder, ask{host: host, path: path}, 403)
	if a := dial("http://127.0.71.2:8080", nil).do(w.ctx, ask{path: path}); a.err == nil {
		t.Errorf("plaintext to a STRICT port was answered: %d %s", a.status, a.body)
	}
	billing := dial("https://127.0.71.2:8080", w.svid("spiffe://cluster.local/ns/production/sa/billing-service"))
	w.expect(billing, ask{method: "POST", path: path, body: []byte("{}")}, 200)
}

func (w *world) seedTokens(t *testing.T, mine envoytest.Issuer) {
	w.t = t
	const audience = "api.example.com"
	c := dial("http://127.0.71.1:8080", nil) // PERMISSIVE: plaintext is served
	good := mine.Sign(t, issuer.Claims{"sub": "u", "aud": audience, "role": "admin"})
	w.expect(c, ask{path: "/api/v1/x"}, 403)                                                                                     // require-jwt
	w.expect(c, ask{path: "/health"}, 403)                                                                                       // trap 3: the only ALLOW closes the rest
	w.expect(c, ask{path: "/admin/users", token: good}, 403)                                                                     // trap 2: the issuer ends in a slash
	w.expect(c, ask{path: "/admin/users", token: mine.Sign(t, issuer.Claims{"sub": "u", "aud": "other", "role": "admin"})}, 403) // wrong audience
	w.expect(c, ask{path: "/admin/users", token: good[:len(good)-4] + "AAAA"}, 401)
	w.expect(c, ask{path: "/admin/users", token: mine.Sign(t, issuer.Claims{"sub": "u", "aud": audience, "exp": time.Now().Add(-time.Hour).Unix()})}, 401)
	if a := dial("http://127.0.71.1:8081", nil).do(w.ctx, ask{path: "/"}); a.err == nil {
		t.Errorf("plaintext to the STRICT port was answered: %d %s", a.status, a.body)
	}
	w.write("fix.yaml", slashFixed)
	w.until("the fix to hold", func() (bool, error) {
		a := c.do(w.ctx, ask{path: "/admin/users", token: good})
		return a.status == 200, a.err
	})
	a := w.expect(c, ask{path: "/admin/users", token: good, header: map[string]string{"x-jwt-payload": "spoofed"}}, 200)
	if got := a.seen.Headers.Get("X-Jwt-Payload"); got == "" || strings.Contains(got, "spoofed") {
		t.Errorf("x-jwt-payload is %q, want the verified payload", got)
	}
	if a.seen.Headers.Get("Authorization") == "" {
		t.Error("forwardOriginalToken, and the token was not forwarded")
	}
	w.expect(c, ask{path: "/admin/users", token: mine.Sign(t, issuer.Claims{"sub": "u", "aud": audience, "role": "user"})}, 403)
}

// slashFixed is what `credence validate` tells to try.
const slashFixed = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: admin-endpoints-fixed, namespace: production}
spec:
  selector: {matchLabels: {app: api-gateway}}
  action: ALLOW
  rules:
  - from: [{source: {requestPrincipals: ["https://auth.example.com//*"]}}]
    to: [{operation: {paths: ["/admin/*"]}}]
    when: [{key: "request.auth.claims[role]", values: ["admin"]}]
  - from: [{source: {requestPrincipals: ["https://auth.example.com//*"]}}]
    to: [{operation: {paths: ["/api/*"]}}]
`

func (w *world) seedIngress(t *testing.T, platform envoytest.Issuer) {
	w.t = t
	c := dial("http://127.0.71.5:8080", nil)
	w.expect(c, ask{path: "/api/v1/x"}, 403)
	token := platform.Sign(t, issuer.Claims{"sub": "u", "aud": "api.platform.example.com", "tenant_id": "acme", "tier": "free", "roles": []string{"admin"}})
	// The gateway lets it in; the sidecar behind it does not know this issuer.
	w.expect(c, ask{path: "/api/v1/x", token: token}, 401)
	w.expect(c, ask{path: "/api/v1/x", token: platform.Sign(t, issuer.Claims{"sub": "u", "aud": "other"})}, 403)
	// Without the sidecar's own demands, what the gateway sends on is seen.
	w.write("open.yaml", openAPIGateway)
	w.until("the back end to be reached", func() (bool, error) {
		a := c.do(w.ctx, ask{path: "/open/x", token: token})
		return a.status == 200, a.err
	})
	a := w.expect(c, ask{path: "/open/x", token: token, header: map[string]string{"x-tenant-id": "other", "x-user-roles": "root"}}, 200)
	if a.seen.Headers.Get("X-Tenant-Id") != "acme" || a.seen.Headers.Get("X-Api-Tier") != "free" {
		t.Errorf("claims did not reach the back end as headers (outputClaimsToHeaders): %v", a.seen.Headers)
	}
	if strings.Contains(strings.Join(a.seen.Headers.Values("X-User-Roles"), ","), "root") {
		t.Errorf("a spoofed x-user-roles came through: %v", a.seen.Headers)
	}
}

// openAPIGateway lets the sidecar take the platform's tokens too.
const openAPIGateway = `apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: platform-too, namespace: production}
spec:
  selector: {matchLabels: {app: api-gateway}}
  jwtRules:
  - issuer: "https://auth.platform.example.com/"
    jwksUri: "https://auth.platform.example.com/.well-known/jwks.json"
    forwardOriginalToken: true
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: open, namespace: production}
spec:
  selector: {matchLabels: {app: api-gateway}}
  action: ALLOW
  rules: [{to: [{operation: {paths: ["/open/*"]}}]}]
`

func (w *world) seedLimits(t *testing.T, mine envoytest.Issuer) {
	w.t = t
	c := dial("http://127.0.71.1:8080", nil)
	token := mine.Sign(t, issuer.Claims{"sub": "u", "aud": "api.example.com", "tier": "free", "tenant_id": "acme"})
	w.expect(c, ask{method: "POST", path: "/api/v1/x", token: token, body: make([]byte, 1<<20+1)}, 413)
	limited := answer{}
	for range 25 {
		if limited = c.do(w.ctx, ask{path: "/api/v1/search?q=x", token: token}); limited.status != 200 {
			break
		}
	}
	if limited.status != 429 || limited.header.Get("X-RateLimit-Remaining") != "0" {
		t.Errorf("free tier searches: %d %v (%v), want 429 with its headers", limited.status, limited.header, limited.err)
	}
	last := answer{}
	for range 220 { // the local bucket holds 100 and is filled once a minute
		if last = c.do(w.ctx, ask{path: "/admin/x"}); last.status == 429 {
			break
		}
	}
	if last.status != 429 || last.header.Get("X-Local-Rate-Limit") != "true" {
		t.Errorf("after the local bucket is empty: %d %v (%v), want 429 with x-local-rate-limit", last.status, last.header, last.err)
	}
}
