package jwt

import (
	"slices"
	"strings"
	"testing"

	"github.com/credence-mesh/credence/internal/policytest"
	"github.com/credence-mesh/credence/policy"
)

const workloads = `
kind: WorkloadEntry
metadata: {name: gw, namespace: production, labels: {app: api-gateway}}
spec: {address: 127.0.0.1}
---
kind: Gateway
metadata: {name: edge, namespace: production, labels: {istio: ingressgateway}}
spec: {gatewayClassName: credence, listeners: []}
---
`

func ra(namespace, name, spec string) string {
	return "\n---\nkind: RequestAuthentication\nmetadata: {name: " + name + ", namespace: " + namespace + "}\nspec: {" + spec + "}"
}

// issuers is "name=issuer" of each.
func issuers(a Authentication) string {
	var out []string
	for _, i := range a.Issuers {
		out = append(out, i.Name+"="+i.Issuer.Issuer)
	}
	return strings.Join(out, " ")
}

func TestWhichPoliciesApply(t *testing.T) {
	t.Parallel()
	const gw = "selector: {matchLabels: {app: api-gateway}}, "
	const rule = "jwtRules: [{issuer: "
	target := func(kind, ns string) string {
		return "targetRefs: [{group: gateway.networking.k8s.io, kind: " + kind + ", name: edge" + ns + "}], "
	}
	for _, tc := range []struct {
		name, policies, workload, want string
		broken                         int
		code                           string
	}{
		{name: "none", want: ""},
		{name: "sorted by issuer over all policies", policies: ra("production", "a", gw+rule+"z}, {issuer: m}]") + ra("istio-system", "b", rule+"a}]"), want: "origins-0=a origins-1=m origins-2=z"},
		{name: "root namespace with a selector", policies: ra("istio-system", "a", gw+rule+"a}]"), want: "origins-0=a"},
		{name: "selector misses", policies: ra("production", "a", "selector: {matchLabels: {app: other}}, "+rule+"a}]"), want: ""},
		{name: "another namespace", policies: ra("other", "a", rule+"a}]"), want: ""},
		{name: "targetRef on a gateway", policies: ra("production", "a", target("Gateway", "")+rule+"a}]"), workload: "edge", want: "origins-0=a"},
		{name: "targetRef of its own namespace", policies: ra("production", "a", target("Gateway", ", namespace: production")+rule+"a}]"), workload: "edge", want: "origins-0=a"},
		{name: "targetRef of another namespace", policies: ra("production", "a", target("Gateway", ", namespace: other")+rule+"a}]"), workload: "edge", want: ""},
		{name: "targetRef from the root namespace", policies: ra("istio-system", "a", target("Gateway", "")+rule+"a}]"), workload: "edge", want: ""},
		{name: "targetRef of another kind", policies: ra("production", "a", target("Service", "")+rule+"a}]"), workload: "edge", want: ""},
		{name: "targetRef is nothing to a sidecar", policies: ra("production", "a", target("Gateway", "")+rule+"a}]"), want: ""},
		{name: "a selector reaches a gateway", policies: ra("production", "a", "selector: {matchLabels: {istio: ingressgateway}}, "+rule+"a}]"), workload: "edge", want: "origins-0=a"},
		{name: "an issuer twice", policies: ra("production", "a", rule+"i}]") + ra("production", "b", rule+"i}]"), want: "origins-0=i origins-1=i", code: "JWT_ISSUER_TWICE"},
		{name: "inline keys that verify nothing", policies: ra("production", "a", rule+"i, jwks: '{}'}]"), want: "origins-0=i", code: "JWKS_UNUSABLE"},
		{name: "void", policies: strings.Replace(ra("production", "a", gw+rule+"a}]"), "production}", "production, annotations: {test/void: 'yes'}}", 1), want: "", broken: 1},
		{name: "void and unreadable", policies: "\n---\nkind: RequestAuthentication\nmetadata: {name: a, namespace: production, annotations: {test/void: 'yes'}}", want: "", broken: 1},
		{name: "void elsewhere", policies: strings.Replace(ra("production", "a", "selector: {matchLabels: {app: x}}, "+rule+"a}]"), "production}", "production, annotations: {test/void: 'yes'}}", 1), want: ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			set := policytest.Set(t, workloads+tc.policies)
			name := "gw"
			if tc.workload != "" {
				name = tc.workload
			}
			got, problems := For(set, policytest.Workload(t, set, "production", name))
			if issuers(got) != tc.want || len(got.Broken) != tc.broken {
				t.Errorf("got %q and %d broken", issuers(got), len(got.Broken))
			}
			if code := ""; len(problems) > 0 || tc.code != "" {
				if len(problems) == 1 {
					code = problems[0].Code
				}
				if code != tc.code {
					t.Errorf("problems %v, want %q", problems, tc.code)
				}
			}
		})
	}
}

func TestSeeds(t *testing.T) {
	t.Parallel()
	set := policytest.Set(t, workloads+policytest.Seed(t, "../..", "istio/request-authentication.yaml"))
	gw, _ := For(set, policytest.Workload(t, set, "production", "gw"))
	if got := issuers(gw); got != "origins-0=https://accounts.google.com origins-1=https://auth.example.com/" {
		t.Errorf("gw: %s", got)
	}
	if i := gw.Issuers[1]; !i.Forward || i.PayloadTo != "x-jwt-payload" || !slices.Equal(i.Audiences, []string{"api.example.com"}) || i.At() != "https://auth.example.com/.well-known/jwks.json" {
		t.Errorf("got %+v", i)
	}
	edge, _ := For(set, policytest.Workload(t, set, "production", "edge"))
	if got := edge.Headers(); !slices.Equal(got, []string{"x-api-tier", "x-tenant-id", "x-user-roles"}) {
		t.Errorf("edge sets %v", got)
	}
	if got := HeadersOut(set); !slices.Equal(got, []string{"x-api-tier", "x-jwt-payload", "x-tenant-id", "x-user-roles"}) {
		t.Errorf("the mesh sets %v", got)
	}
}

func TestWhereKeysComeFrom(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name       string
		issuer     Issuer
		at         string
		discovered bool
	}{
		{"inline", Issuer{Issuer: "https://a", Keys: KeySource{Inline: "{}"}}, "", false},
		{"jwksUri", Issuer{Issuer: "https://a", Keys: KeySource{URI: "https://k"}}, "https://k", false},
		{"discovery", Issuer{Issuer: "https://a/x"}, "https://a/x/.well-known/openid-configuration", true},
		{"discovery of an issuer with a slash", Issuer{Issuer: "https://a/"}, "https://a/.well-known/openid-configuration", true},
		{"nothing", Issuer{}, "", false},
	} {
		if got := tc.issuer.At(); got != tc.at || tc.issuer.Discovered() != tc.discovered {
			t.Errorf("%s: %q, %v", tc.name, got, tc.issuer.Discovered())
		}
	}
	set := policytest.Set(t, workloads+ra("a", "a", "jwtRules: [{issuer: 'https://a', jwksUri: 'https://k'}, {issuer: 'https://b'}]")+ra("b", "b", "jwtRules: [{issuer: 'https://c', jwksUri: 'https://k'}]"))
	var at []string
	for _, w := range Wanted(set) {
		at = append(at, w.At())
	}
	if !slices.Equal(at, []string{"https://b/.well-known/openid-configuration", "https://k"}) {
		t.Errorf("wanted %v", at)
	}
	keyed := set.Apply([]policy.Resource{&policy.JWKS{Object: policy.Object{Key: policy.Key{Kind: policy.KindJWKS, Name: "https://k"}}, Document: "doc"}}, nil)
	if got := Document(keyed, Issuer{Keys: KeySource{URI: "https://k"}}); got != "doc" {
		t.Errorf("got %q", got)
	}
	if got := Document(keyed, Issuer{Issuer: "https://b"}); got != "" {
		t.Errorf("got %q", got)
	}
}
