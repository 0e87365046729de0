package opa

import (
	"testing"

	"github.com/open-policy-agent/opa/v1/rego"
)

// BenchmarkDecision compares a whole decision with the evaluation alone, on an input that is ready.
func BenchmarkDecision(b *testing.B) {
	for _, c := range []struct{ name, text string }{{"own", ""}, {"seeds", "seeds"}} {
		b.Run(c.name, func(b *testing.B) {
			text := c.text
			if text == "" {
				text = local(b, "tenant.rego")
			} else {
				text = seed(b, "opa/tenant_isolation.rego")
			}
			s, problems := newService(b, Options{}, module1("x.rego", text))
			if len(problems) != 0 {
				b.Fatal(problems)
			}
			req := ask(b, "/api/v1/tenants/A/orders", map[string]string{"authorization": "Bearer " + signed(b, tenantA)}, tenantA)
			b.Run("check", func(b *testing.B) {
				b.ReportAllocs()
				for b.Loop() {
					if code(b, s, req) != 200 {
						b.Fatal("denied")
					}
				}
			})
			b.Run("rego", func(b *testing.B) {
				r, err := newRequest(req)
				if err != nil {
					b.Fatal(err)
				}
				input, err := r.input()
				if err != nil {
					b.Fatal(err)
				}
				q, err := s.policies.Load().query(b.Context(), "data.envoy.authz.allow")
				if err != nil {
					b.Fatal(err)
				}
				b.ReportAllocs()
				for b.Loop() {
					if found, err := q.Eval(b.Context(), rego.EvalParsedInput(input)); err != nil || !found.Allowed() {
						b.Fatal(err)
					}
				}
			})
		})
	}
}
