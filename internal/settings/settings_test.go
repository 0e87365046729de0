package settings

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/credence-mesh/credence/policy"
)

func TestLoad(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		problem    string // "line field code", of the only problem; empty: none
		check      func(*testing.T, Settings)
	}{
		{name: "empty file", check: func(t *testing.T, s Settings) {
			if s.Mesh.TrustDomain != "cluster.local" || s.Identity.SVIDTTL != time.Hour {
				t.Errorf("defaults are %+v", s)
			}
		}},
		{name: "what is said wins", text: "mesh: {trustDomain: example.org}\nidentity: {svidTTL: 20s}\n", check: func(t *testing.T, s Settings) {
			if s.Mesh.TrustDomain != "example.org" || s.Mesh.RootNamespace != "istio-system" || s.Identity.SVIDTTL != 20*time.Second {
				t.Errorf("got %+v", s)
			}
		}},
		{name: "files are beside it", text: "jwks: [{uri: https://a/jwks, file: keys.json}, {uri: https://b/jwks, url: https://c/jwks, caFile: /etc/ca.pem}]\n",
			check: func(t *testing.T, s Settings) {
				if filepath.Base(s.JWKS[0].File) != "keys.json" || !filepath.IsAbs(s.JWKS[0].File) || s.JWKS[1].CAFile != "/etc/ca.pem" {
					t.Errorf("got %+v", s.JWKS)
				}
			}},
		{name: "an authorizer", text: "mesh:\n  extensionProviders:\n  - name: ours\n    envoyExtAuthzGrpc: {service: authz.default, port: 9000, timeout: 300ms}\n",
			check: func(t *testing.T, s Settings) {
				if p := s.Mesh.ExtensionProviders; len(p) != 1 || p[0].EnvoyExtAuthzGRPC.Timeout != 300*time.Millisecond {
					t.Errorf("got %+v", p)
				}
			}},
		{name: "profile and paths", text: "profile: istio\nmesh: {pathNormalization: {normalization: MERGE_SLASHES}}\n", check: func(t *testing.T, s Settings) {
			if !s.Mesh.Profile.Istio() || s.Mesh.Paths() != policy.NormalizationMergeSlashes {
				t.Errorf("got %+v", s.Mesh)
			}
		}},
		{name: "the profile is strict", check: func(t *testing.T, s Settings) {
			if s.Mesh.Profile.Istio() || s.Mesh.Paths() != policy.NormalizationStrict {
				t.Errorf("got %+v", s.Mesh)
			}
		}},
		{name: "proxies in front", text: "mesh: {defaultConfig: {gatewayTopology: {numTrustedProxies: 2, proxyProtocol: {}}}}\n", check: func(t *testing.T, s Settings) {
			if g := s.Mesh.DefaultConfig.GatewayTopology; g.NumTrustedProxies != 2 || g.ProxyProtocol == nil {
				t.Errorf("got %+v", g)
			}
		}},
		{name: "unknown profile", text: "profile: lax\n", problem: "0 profile SETTING_INVALID"},
		{name: "unknown normalization", text: "mesh: {pathNormalization: {normalization: SOME}}\n", problem: "0 mesh.pathNormalization.normalization SETTING_INVALID"},
		{name: "unknown field", text: "mesh:\n  trustDomian: example.org\n", problem: "2 mesh.trustDomian UNKNOWN_FIELD"},
		{name: "bad trust domain", text: "mesh: {trustDomain: Example.ORG}\n", problem: "0 mesh.trustDomain SETTING_INVALID"},
		{name: "mapping to nowhere", text: "jwks: [{uri: https://a/jwks}]\n", problem: "0 jwks[0] SETTING_INVALID"},
		{name: "mapping to two places", text: "jwks: [{uri: https://a/jwks, file: a, url: https://b}]\n", problem: "0 jwks[0] SETTING_INVALID"},
		{name: "mapping of nothing", text: "jwks: [{file: a}]\n", problem: "0 jwks[0].uri SETTING_INVALID"},
		{name: "too short a life", text: "identity: {svidTTL: 1s}\n", problem: "0 identity.svidTTL SETTING_INVALID"},
		{name: "too long a credential", text: "identity: {credentialTTL: 99999h}\n", problem: "0 identity.credentialTTL SETTING_INVALID"},
		{name: "not a duration", text: "identity: {svidTTL: soon}\n", problem: "1 identity.svidTTL BAD_VALUE"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "credence.yaml")
			if err := os.WriteFile(path, []byte(tt.text), 0o600); err != nil {
				t.Fatal(err)
			}
			s, problems, err := Load(path)
			if err != nil {
				t.Fatal(err)
			}
			if got := brief(problems); got != tt.problem {
				t.Errorf("problems %q, want %q\n%v", got, tt.problem, problems)
			}
			if tt.check != nil {
				tt.check(t, s)
			}
		})
	}
}

func brief(ps []policy.Problem) string {
	var out []string
	for _, p := range ps {
		out = append(out, strings.Join([]string{strconv.Itoa(p.At.Line), p.Field, p.Code}, " "))
	}
	return strings.Join(out, "; ")
}

func TestNoFileIsDefaults(t *testing.T) {
	t.Parallel()
	s, problems, err := Load("")
	if err != nil || len(problems) > 0 || s.Mesh.RootNamespace != "istio-system" {
		t.Errorf("%+v %v %v", s, problems, err)
	}
	if _, _, err := Load(filepath.Join(t.TempDir(), "absent.yaml")); err == nil {
		t.Error("a named file that is absent is no error")
	}
}
