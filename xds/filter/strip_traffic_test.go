package filter

import (
	"fmt"
	"net/http"
	"strings"
	"testing"

	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/xds/ir"
)

// A2, A16, A18: whatever filters run after it.
func TestStrip(t *testing.T) {
	t.Parallel()
	names := []string{"x-seen-by-nobody-at-all-but-us", "x-tenant-id", "x-jwt-payload", "single"}
	for i := range 60 {
		names = append(names, fmt.Sprintf("x-some-rather-long-claim-%d", i))
	}
	open := ir.Guard{Enforce: true, Strip: names, Rules: authz.Rules{Open: true}}
	forged := http.Header{
		"x-tenant-id": {"a", "b"}, "X_Tenant_Id": {"a"}, "x_tenant-id": {"a"}, "X-JWT-Payload": {"a"}, "SINGLE": {"a"},
		"x-some-rather-long-claim-59": {"a"}, "x-tenant-id-of-another": {"kept"}, "x-tenant-idea": {"kept"}, "singles": {"kept"},
		"x-envoy-original-path": {"/admin"}, "X-Envoy-Internal": {"true"}, "x-envoy-decorator-operation": {"a"}, "x-forwarded-client-cert": {"URI=spiffe://cluster.local/ns/a/sa/b"},
	}
	for _, tc := range []struct {
		name string
		http ir.HTTP
		kept []string
	}{
		{"inside", ir.HTTP{Name: "in", Guard: open}, nil},
		{"edge", ir.HTTP{Name: "in", Guard: open, Edge: true}, []string{"x-envoy-"}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, rig{http: &tc.http, edge: tc.http.Edge})
			code, seen := p.send(t, request{path: "/", headers: forged})
			if code != 200 {
				t.Fatalf("got %d", code)
			}
			for name, values := range seen.Headers {
				canonical := strings.ToLower(strings.ReplaceAll(name, "_", "-"))
				if canonical == "x-tenant-id" || canonical == "x-jwt-payload" || canonical == "single" || canonical == "x-some-rather-long-claim-59" {
					t.Errorf("%s: %q reached the backend", name, values)
				}
				if tc.http.Edge && (canonical == "x-envoy-original-path" || canonical == "x-envoy-internal" || canonical == "x-envoy-decorator-operation" || strings.Contains(strings.Join(values, ""), "spiffe://")) {
					t.Errorf("%s: %q reached the backend", name, values)
				}
			}
			for _, kept := range []string{"X-Tenant-Id-Of-Another", "X-Tenant-Idea", "Singles"} {
				if seen.Headers.Get(kept) != "kept" {
					t.Errorf("%s was removed", kept)
				}
			}
		})
	}
}

// The zero value of a guard, and what cannot be understood, lets nothing pass.
func TestRefuseAll(t *testing.T) {
	t.Parallel()
	broken := []authz.Origin{{Object: "AuthorizationPolicy a/b", At: "f.yaml:1"}}
	for _, tc := range []struct {
		name  string
		guard ir.Guard
		want  int
	}{
		{"zero", ir.Guard{}, 503},
		{"not enforced, with open rules", ir.Guard{Rules: authz.Rules{Open: true}}, 503},
		{"broken guard", ir.Guard{Enforce: true, Broken: broken, Rules: authz.Rules{Open: true}}, 503},
		{"broken rules", ir.Guard{Enforce: true, Rules: authz.Rules{Open: true, Broken: broken}}, 503},
		{"no rules at all", ir.Guard{Enforce: true}, 403},
		{"open", ir.Guard{Enforce: true, Rules: authz.Rules{Open: true}}, 200},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			h := &ir.HTTP{Name: "in", Guard: tc.guard}
			if got, _ := start(t, rig{http: h}).send(t, request{path: "/"}); got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
			if tc.want == 503 { // and a second lock behind the first
				m, err := rbacDeny(h)
				if err != nil || !strings.Contains(fmt.Sprint(m.config), "credence-invalid-policy") {
					t.Errorf("%v, %v", m.config, err)
				}
			}
		})
	}
}
