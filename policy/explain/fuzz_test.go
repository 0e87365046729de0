package explain_test

import (
	"testing"

	securityv1beta1 "istio.io/api/security/v1beta1"

	"github.com/credence-mesh/credence/internal/offline"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/explain"
)

// fuzzed is a workload that accepts one issuer's tokens over plaintext.
func fuzzed(t testing.TB) (*explain.Config, *policy.Set) {
	t.Helper()
	d := drawn{mode: securityv1beta1.PeerAuthentication_MutualTLS_DISABLE, jwt: []*securityv1beta1.RequestAuthentication{{
		JwtRules: []*securityv1beta1.JWTRule{{Issuer: one, Jwks: signers()[one].jwks}},
	}}}
	m, _, err := offline.New(d.set(), "")
	if err != nil {
		t.Fatal(err)
	}
	w, _ := m.Set().Workload("a", "w")
	c, err := m.Config(w)
	if err != nil {
		t.Fatal(err)
	}
	return c, m.Set()
}
