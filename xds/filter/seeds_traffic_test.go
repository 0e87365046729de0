package filter

import (
	"testing"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/internal/issuer"
	"github.com/credence-mesh/credence/internal/policytest"
	"github.com/credence-mesh/credence/xds/ir"
)

// The seeds' own policies, unchanged: verdicts are Istio's to the letter, traps included.
func TestSeeds(t *testing.T) {
	t.Parallel()
	seeds := gatewayWorkload + `
kind: WorkloadEntry
metadata: {name: pay, namespace: production, labels: {app: payment-service}}
spec: {address: 127.0.0.1}
---
kind: WorkloadEntry
metadata: {name: ingress, namespace: production, labels: {istio: ingressgateway}}
spec: {address: 127.0.0.1}
---
` + policytest.Seed(t, "../..", "istio/request-authentication.yaml") + "\n---\n" + policytest.Seed(t, "../..", "istio/authorization-policy.yaml")
	set := policytest.Set(t, seeds)
	auth, google := envoytest.NewIssuer(t, "https://auth.example.com/"), envoytest.NewIssuer(t, "https://accounts.google.com")
	platform := envoytest.NewIssuer(t, "https://auth.platform.example.com/")
	keys := map[string]envoytest.Issuer{auth.Name(): auth, google.Name(): google, platform.Name(): platform}
	alice := func(i envoytest.Issuer, changes issuer.Claims) string {
		c := issuer.Claims{"sub": "alice", "aud": "api.example.com", "role": "admin"}
		for k, v := range changes {
			c[k] = v
		}
		return i.Sign(t, c)
	}
	t.Run("gateway", func(t *testing.T) {
		t.Parallel()
		verdicts(t, start(t, rig{http: &ir.HTTP{Name: "in", Guard: guard(t, set, "production", "gw", keys)}}), []try{
			{"no token", request{path: "/admin/x"}, 403},
			{"no token on an exempt path is stopped by the only ALLOW", request{path: "/health"}, 403},
			{"an issuer that ends in a slash never matches https://auth.example.com/*", request{path: "/admin/x", token: alice(auth, nil)}, 403},
			{"nor does another issuer", request{path: "/admin/x", token: alice(google, nil)}, 403},
			{"wrong audience", request{path: "/admin/x", token: alice(auth, issuer.Claims{"aud": "other"})}, 403},
			{"bad token", request{path: "/admin/x", token: tamper(t, alice(auth, nil))}, 401},
			{"bad token on an exempt path", request{path: "/health", token: tamper(t, alice(auth, nil))}, 401},
			{"unknown issuer", request{path: "/admin/x", token: alice(platform, nil)}, 401},
		})
	})
	t.Run("payment", func(t *testing.T) {
		t.Parallel()
		pay := func(method, path, as string) request { return request{method: method, path: path, as: as} }
		verdicts(t, start(t, rig{mtls: true, http: &ir.HTTP{Name: "in", Guard: guard(t, set, "production", "pay", keys)}}), []try{
			{"order-service", pay("POST", "/api/v1/payments/1", sa+"production/sa/order-service"), 200},
			{"billing-service", pay("GET", "/api/v1/payments/1", sa+"production/sa/billing-service"), 200},
			{"another method", pay("DELETE", "/api/v1/payments/1", sa+"production/sa/order-service"), 403},
			{"another path", pay("GET", "/api/v1/refunds", sa+"production/sa/order-service"), 403},
			{"a dot segment out", pay("GET", "/api/v1/payments/../refunds", sa+"production/sa/order-service"), 403},
			{"intruder", pay("GET", "/api/v1/payments/1", sa+"production/sa/intruder"), 403},
			{"the same account elsewhere", pay("GET", "/api/v1/payments/1", sa+"staging/sa/order-service"), 403},
		})
	})
	t.Run("ingress", func(t *testing.T) {
		t.Parallel()
		p := start(t, rig{edge: true, http: &ir.HTTP{Name: "in", Edge: true, Guard: guard(t, set, "production", "ingress", keys)}})
		good := alice(platform, issuer.Claims{"aud": "api.platform.example.com", "tenant_id": "t1", "tier": "free", "roles": []string{"a"}})
		verdicts(t, p, []try{
			{"no token", request{path: "/api"}, 403},
			{"no token on an exempt path", request{path: "/health"}, 200},
			{"a good token", request{path: "/api", token: good}, 200},
			{"wrong audience", request{path: "/api", token: alice(platform, nil)}, 403},
		})
		_, seen := p.send(t, request{path: "/api", token: good})
		// A5: a list arrives as base64 of its JSON, as in Istio.
		for name, want := range map[string]string{"X-Tenant-Id": "t1", "X-Api-Tier": "free", "X-User-Roles": "WyJhIl0="} {
			if got := seen.Headers.Get(name); got != want {
				t.Errorf("%s = %q, want %q", name, got, want)
			}
		}
	})
}
