package filter

import (
	"encoding/base64"
	"net/http"
	"strings"
	"testing"
	"time"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/internal/issuer"
	"github.com/credence-mesh/credence/internal/policytest"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/policy/jwt"
	"github.com/credence-mesh/credence/xds/ir"
)

const gatewayWorkload = `
kind: WorkloadEntry
metadata: {name: gw, namespace: production, labels: {app: api-gateway}}
spec: {address: 127.0.0.1}
---
`

// guard is what the policies of a set say about a workload, with the keys of issuers as the control plane would have fetched them.
func guard(t *testing.T, set *policy.Set, namespace, name string, keys map[string]envoytest.Issuer) ir.Guard {
	t.Helper()
	w := policytest.Workload(t, set, namespace, name)
	a, _ := jwt.For(set, w)
	rules, _ := authz.For(set, w, 8080, authz.HTTP)
	g := ir.Guard{Enforce: true, Rules: rules, Strip: jwt.HeadersOut(set)}
	for _, o := range a.Broken {
		g.Broken = append(g.Broken, authz.OriginOf(o))
	}
	for _, s := range a.Issuers {
		i := ir.Issuer{Issuer: s.Issuer, Source: authz.OriginOf(s.From)}
		if k, ok := keys[s.Issuer.Issuer]; ok {
			doc, err := k.JWKS()
			if err != nil {
				t.Fatal(err)
			}
			i.JWKS = string(doc)
		}
		g.Issuers = append(g.Issuers, i)
	}
	return g
}

func TestTokens(t *testing.T) {
	t.Parallel()
	a, b := envoytest.NewIssuer(t, "https://a.example/"), envoytest.NewIssuer(t, "https://b.example")
	stranger, impostor := envoytest.NewIssuer(t, "https://c.example"), envoytest.NewIssuer(t, "https://a.example/")
	keyless := envoytest.NewIssuer(t, "https://keyless.example")
	set := policytest.Set(t, gatewayWorkload+`
kind: RequestAuthentication
metadata: {name: ra, namespace: production}
spec:
  jwtRules:
  - issuer: https://a.example/
    audiences: [api.example.com]
    jwksUri: https://a.example/jwks
    outputPayloadToHeader: x-jwt-payload
    outputClaimToHeaders: [{header: x-tenant-id, claim: tenant_id}]
  - issuer: https://b.example
    jwksUri: https://b.example/jwks
    forwardOriginalToken: true
    outputClaimToHeaders: [{header: x-b-only, claim: tenant_id}]
  - issuer: https://keyless.example
    jwksUri: https://keyless.example/jwks
`)
	p := start(t, rig{http: &ir.HTTP{Name: "in", Guard: guard(t, set, "production", "gw", map[string]envoytest.Issuer{
		"https://a.example/": a, "https://b.example": b,
	})}})
	good := issuer.Claims{"sub": "alice", "aud": "api.example.com", "tenant_id": "tenant-1"}
	with := func(changes issuer.Claims) issuer.Claims {
		c := issuer.Claims{}
		for k, v := range good {
			c[k] = v
		}
		for k, v := range changes {
			c[k] = v
		}
		return c
	}
	none, err := a.Unsigned(good)
	if err != nil {
		t.Fatal(err)
	}
	ok := a.Sign(t, good)
	auth := func(values ...string) http.Header { return http.Header{"Authorization": values} }
	now := time.Now()
	for _, tc := range []struct {
		name string
		req  request
		want int
	}{
		{"good", request{token: ok}, 200},
		{"good of the other issuer", request{token: b.Sign(t, good)}, 200},
		{"none", request{}, 200},
		{"another scheme", request{headers: auth("Basic YTpi")}, 200},
		{"unknown issuer", request{token: stranger.Sign(t, good)}, 401},
		{"issuer without keys", request{token: keyless.Sign(t, good)}, 401},
		{"right name, wrong key", request{token: impostor.Sign(t, good)}, 401},
		{"alg none (A6)", request{token: none}, 401},
		{"changed claims", request{token: tamper(t, ok)}, 401},
		{"wrong audience is 403, as in Istio", request{token: a.Sign(t, with(issuer.Claims{"aud": "other"}))}, 403},
		{"query parameter (A7)", request{path: "/?access_token=" + stranger.Sign(t, good)}, 200}, // not looked at: counts as no token
		{"xxBearer (A8)", request{headers: auth("xxBearer " + ok)}, 401},
		{"Bearer twice in one header (A9)", request{headers: auth("Bearer " + ok + ",Bearer " + none)}, 401},
		{"two Authorization headers (A9)", request{headers: auth("Bearer "+ok, "Bearer "+none)}, 401},
		{"Bearer after another scheme", request{headers: auth("Basic YTpi, Bearer " + ok)}, 401},
		{"Bearer after bytes that are no UTF-8", request{headers: auth("\xff\xfeBearer " + ok)}, 401},
		{"good in query, forged in header (A9)", request{path: "/?access_token=" + ok, token: none}, 401},
		{"expired 30 s ago (A10)", request{token: a.Sign(t, with(issuer.Claims{"exp": now.Add(-30 * time.Second).Unix()}))}, 401},
		{"no exp (A11)", request{token: a.Sign(t, with(issuer.Claims{"exp": nil}))}, 401},
		{"exp is a string (A11)", request{token: a.Sign(t, with(issuer.Claims{"exp": "never"}))}, 401},
		{"exp is negative (A11)", request{token: a.Sign(t, with(issuer.Claims{"exp": -1}))}, 401},
		{"exp is huge (A11)", request{token: a.Sign(t, with(issuer.Claims{"exp": 1e300}))}, 401},
		{"nbf in the future (A11)", request{token: a.Sign(t, with(issuer.Claims{"nbf": now.Add(time.Hour).Unix()}))}, 401},
		{"exp is zero (A11)", request{token: a.Sign(t, with(issuer.Claims{"exp": 0}))}, 401},
	} {
		t.Run(tc.name, func(t *testing.T) {
			if tc.req.path == "" {
				tc.req.path = "/"
			}
			if got, _ := p.send(t, tc.req); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
		})
	}

	t.Run("claims replace what the client sent (A1, A3, A18)", func(t *testing.T) {
		forged := http.Header{"X-Tenant-Id": {"tenant-2", "tenant-3"}, "X-Jwt-Payload": {"forged"}, "X-B-Only": {"forged"}, "X_Tenant_Id": {"tenant-2"}, "X-TENANT_id": {"tenant-2"}}
		_, seen := p.send(t, request{path: "/", token: ok, headers: forged})
		if got := seen.Headers.Values("X-Tenant-Id"); len(got) != 1 || got[0] != "tenant-1" {
			t.Errorf("x-tenant-id = %q", got)
		}
		if got := seen.Headers.Get("X-Jwt-Payload"); got == "" || strings.Contains(got, "forged") || strings.Contains(got, "=") {
			t.Errorf("x-jwt-payload = %q", got)
		} else if raw, err := base64.RawURLEncoding.DecodeString(got); err != nil || !strings.Contains(string(raw), "alice") {
			t.Errorf("x-jwt-payload = %s, %v", raw, err)
		}
		for k, v := range seen.Headers {
			if k != "X-Tenant-Id" && k != "X-Jwt-Payload" && strings.Contains(strings.ReplaceAll(strings.ToLower(k), "_", "-"), "tenant") || k == "X-B-Only" {
				t.Errorf("%s: %q reached the backend", k, v)
			}
		}
		if seen.Headers.Get("Authorization") != "" {
			t.Error("the token was forwarded")
		}
	})
	t.Run("and without a token (A4)", func(t *testing.T) {
		_, seen := p.send(t, request{path: "/", headers: http.Header{"X-Tenant-Id": {"tenant-2"}, "X-Jwt-Payload": {"forged"}}})
		if seen.Headers.Get("X-Tenant-Id") != "" || seen.Headers.Get("X-Jwt-Payload") != "" {
			t.Errorf("forged headers reached the backend: %v", seen.Headers)
		}
	})
	t.Run("forwardOriginalToken", func(t *testing.T) {
		if _, seen := p.send(t, request{path: "/", token: b.Sign(t, good)}); !strings.HasPrefix(seen.Headers.Get("Authorization"), "Bearer ") {
			t.Error("the token was not forwarded")
		}
	})
}

// tamper changes a byte of the payload.
func tamper(t *testing.T, token string) string {
	t.Helper()
	parts := strings.Split(token, ".")
	raw, err := base64.RawURLEncoding.DecodeString(parts[1])
	if err != nil {
		t.Fatal(err)
	}
	parts[1] = base64.RawURLEncoding.EncodeToString([]byte(strings.Replace(string(raw), "alice", "alicf", 1)))
	return strings.Join(parts, ".")
}
