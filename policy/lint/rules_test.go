package lint_test

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/lint"
	"github.com/credence-mesh/credence/policy/source/file"
)

// authorization writes an AuthorizationPolicy on one line of flow YAML, so that the tests can tell rules by field and need no lines.
func authorization(name, body string) string {
	return fmt.Sprintf("---\napiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: %s, namespace: shop}\nspec: {%s}\n", name, body)
}

const (
	cart = `---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: cart, namespace: shop, labels: {app: cart}}
spec: {address: 127.0.3.1, serviceAccount: cart, ports: {http: 8080}}
`
	tokens = `---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec: {jwtRules: [{issuer: a, jwksUri: "https://a.test/keys", outputClaimToHeaders: [{header: x-tenant, claim: tenant}], outputPayloadToHeader: x-claims}]}
`
)

// TestRules looks for one kind of finding each, as "object field", and tells nothing of the others.
func TestRules(t *testing.T) {
	t.Parallel()
	rule := func(source, operation string) string {
		return fmt.Sprintf("{from: [{source: {%s}}], to: [{operation: {%s}}]}", source, operation)
	}
	tests := []struct {
		name  string
		codes string
		mesh  func(*policy.Mesh)
		yaml  string
		want  []string
	}{
		{
			name: "a rule below a wider one", codes: lint.CodeRuleShadowed,
			yaml: authorization("p", "rules: ["+rule(`principals: ["cluster.local/ns/shop/*"]`, `paths: ["/a*"]`)+","+rule("principals: [cluster.local/ns/shop/sa/x]", "paths: [/a/b], methods: [GET]")+"]"),
			want: []string{"p spec.rules[1]"},
		},
		{
			name: "a rule above a wider one", codes: lint.CodeRuleShadowed,
			yaml: authorization("p", "rules: ["+rule("ipBlocks: [10.1.2.3]", "ports: ['80']")+",{from: [{source: {ipBlocks: [10.0.0.0/8]}}]}]"),
			want: []string{"p spec.rules[0]"},
		},
		{
			name: "the same rule twice is told once", codes: lint.CodeRuleShadowed,
			yaml: authorization("p", "rules: [{to: [{operation: {paths: [/a]}}]}]") + authorization("q", "rules: [{to: [{operation: {paths: [/a]}}]}]"),
			want: []string{"q spec.rules[0]"},
		},
		{
			name: "rules that only overlap", codes: lint.CodeRuleShadowed + lint.CodeRuleUnreachable,
			yaml: authorization("p", "rules: ["+rule("namespaces: [a]", "paths: [/a*]")+","+rule("namespaces: [a, b]", "paths: [/a/b]")+","+rule("namespaces: [a]", "paths: [/b]")+"]") +
				authorization("q", "action: DENY, rules: ["+rule("notNamespaces: [a]", "paths: [/a*]")+"]"),
		},
		{
			name: "an exclusion keeps a rule alive", codes: lint.CodeRuleShadowed,
			yaml: authorization("p", "rules: ["+rule("namespaces: [a], notPrincipals: [x]", "paths: [/a]")+","+rule("namespaces: [a]", "paths: [/a]")+"]"),
			want: []string{"p spec.rules[0]"},
		},
		{
			name: "request principals are no plain prefixes", codes: lint.CodeRuleShadowed,
			yaml: authorization("p", `rules: [{from: [{source: {requestPrincipals: ["https://a/*"]}}]}, {from: [{source: {requestPrincipals: ["https://a/b/c"]}}]}]`),
		},
		{
			name: "a wider policy of the root namespace", codes: lint.CodeRuleShadowed,
			yaml: strings.ReplaceAll(authorization("all", "rules: [{}]"), "shop", "istio-system") + authorization("p", "rules: [{to: [{operation: {paths: [/a]}}]}]"),
			want: []string{"p spec.rules[0]"},
		},
		{
			name: "other workloads", codes: lint.CodeRuleShadowed,
			yaml: authorization("p", "selector: {matchLabels: {app: a}}, rules: [{}]") + authorization("q", "rules: [{to: [{operation: {paths: [/a]}}]}]"),
		},
		{
			name: "a policy that is only tried shadows nothing", codes: lint.CodeRuleShadowed + lint.CodeRuleUnreachable,
			yaml: strings.Replace(authorization("p", "action: DENY, rules: [{}]"), "namespace: shop", `namespace: shop, annotations: {istio.io/dry-run: "true"}`, 1) + authorization("q", "rules: [{}]"),
		},
		{
			name: "conditions", codes: lint.CodeRuleShadowed,
			yaml: authorization("p", `rules: [{when: [{key: "request.auth.claims[role]", values: ["adm*"]}]}, {when: [{key: "request.auth.claims[role]", values: [admin]}, {key: source.ip, values: [10.0.0.1]}]}, {when: [{key: "request.auth.claims[role]", notValues: [admin]}]}]`),
			want: []string{"p spec.rules[1]"},
		},
		{
			name: "an ALLOW rule that a DENY rule refuses", codes: lint.CodeRuleUnreachable,
			yaml: authorization("no", "action: DENY, rules: [{to: [{operation: {paths: [/admin/*]}}]}]") + authorization("yes", "rules: [{to: [{operation: {paths: [/admin/users]}}]}, {to: [{operation: {paths: [/a]}}]}]"),
			want: []string{"yes spec.rules[0]"},
		},
		{
			name: "a DENY on paths", codes: lint.CodePathSpelling,
			yaml: authorization("p", `action: DENY, rules: [{to: [{operation: {paths: ["*", /admin/*, /x]}}]}, {to: [{operation: {paths: ["/*", "*.php"]}}]}]`),
			want: []string{"p spec.rules[0].to[0].operation.paths[1]"},
		},
		{
			name: "an ALLOW that excludes paths", codes: lint.CodePathSpelling,
			yaml: authorization("p", `rules: [{to: [{operation: {paths: ["/*"], notPaths: ["/tenants/{*}/keys"]}}]}]`),
			want: []string{"p spec.rules[0].to[0].operation.notPaths[0]"},
		},
		{
			name: "a DENY on paths beside a list of what may pass", codes: lint.CodePathSpelling,
			yaml: authorization("p", `action: DENY, rules: [{to: [{operation: {paths: [/api/admin]}}]}]`) + authorization("q", `rules: [{to: [{operation: {paths: [/api/orders, /api/admin]}}]}]`),
		},
		{
			name: "a DENY on paths beside a list that lets all of them pass", codes: lint.CodePathSpelling,
			yaml: authorization("p", `action: DENY, rules: [{to: [{operation: {paths: [/api/admin]}}]}]`) + authorization("q", `rules: [{to: [{operation: {paths: [/api/*]}}]}]`),
			want: []string{"p spec.rules[0].to[0].operation.paths[0]"},
		},
		{
			name: "a prefix, with paths as in Istio", codes: lint.CodePathPrefix,
			mesh: func(m *policy.Mesh) { m.PathNormalization.Normalization = policy.NormalizationBase },
			yaml: authorization("p", `rules: [{to: [{operation: {paths: [/a, /public/*, "/*"]}}]}]`) + authorization("q", `action: DENY, rules: [{to: [{operation: {notPaths: [/docs/*]}}]}]`),
			want: []string{"p spec.rules[0].to[0].operation.paths[1]", "q spec.rules[0].to[0].operation.notPaths[0]"},
		},
		{
			name: "a prefix, where ambiguous paths are refused", codes: lint.CodePathPrefix,
			yaml: authorization("p", `rules: [{to: [{operation: {paths: [/public/*]}}]}]`),
		},
		{
			name: "a header of clients", codes: lint.CodeHeaderFromClient,
			yaml: authorization("p", `rules: [{when: [{key: "request.headers[x-role]", values: [admin]}]}]`) + tokens,
			want: []string{"p spec.rules[0].when[0].key"},
		},
		{
			name: "headers that are written here", codes: lint.CodeHeaderFromClient,
			yaml: authorization("p", `rules: [{when: [{key: "request.headers[X-Tenant]", values: [a]}, {key: "request.headers[x-claims]", values: ["*"]}, {key: "request.headers[:method]", values: [GET]}]}]`) + tokens,
		},
		{
			name: "a workload without ports", codes: lint.CodeNoPort,
			yaml: strings.Replace(cart, ", ports: {http: 8080}", "", 1) + authorization("p", "selector: {matchLabels: {app: cart}}, rules: [{}]"),
			want: []string{"p spec.selector.matchLabels"},
		},
		{
			name: "a workload with ports", codes: lint.CodeNoPort,
			yaml: cart + authorization("p", "selector: {matchLabels: {app: cart}}, rules: [{}]"),
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			mesh := policy.DefaultMesh()
			if tt.mesh != nil {
				tt.mesh(&mesh)
			}
			var got []string
			for _, p := range linted(t, mesh, tt.yaml) {
				if p.Try == "" || p.At.Line == 0 {
					t.Errorf("incomplete: %s", p)
				}
				if strings.Contains(tt.codes, p.Code) {
					got = append(got, strings.TrimPrefix(p.Object, "AuthorizationPolicy shop/")+" "+p.Field)
				}
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

// linted lints a text, in which every object must be valid.
func linted(t *testing.T, mesh policy.Mesh, text string) []policy.Problem {
	t.Helper()
	name := filepath.Join(t.TempDir(), "in.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	set, problems, err := file.Load(mesh, name)
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if p.Severity == policy.Error {
			t.Fatal(p)
		}
	}
	return lint.Set(set)
}

func TestIgnored(t *testing.T) {
	t.Parallel()
	text := func(ignore string) string {
		return strings.Replace(authorization("p", `rules: [{when: [{key: "request.headers[x-role]", values: [admin]}]}]`),
			"namespace: shop", fmt.Sprintf("namespace: shop, annotations: {%s: %q}", lint.AnnotationIgnore, ignore), 1)
	}
	tests := []struct {
		name, ignore string
		want         []string
	}{
		{"with a reason", "HEADER_FROM_CLIENT: the edge sets it", nil},
		{"two", " NOT_USED: none ; HEADER_FROM_CLIENT: the edge sets it: always;", nil},
		{"another code", "RULE_SHADOWED: on purpose", []string{lint.CodeHeaderFromClient}},
		{"without a reason", "HEADER_FROM_CLIENT", []string{lint.CodeIgnoreNoReason, lint.CodeHeaderFromClient}},
		{"an empty reason", "HEADER_FROM_CLIENT: ", []string{lint.CodeIgnoreNoReason, lint.CodeHeaderFromClient}},
		{"an unknown code", "HEADER_FROM_CLIENTS: x", []string{lint.CodeIgnoreUnknown, lint.CodeHeaderFromClient}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, p := range linted(t, policy.DefaultMesh(), text(tt.ignore)) {
				got = append(got, p.Code)
			}
			if fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("got %v, want %v", got, tt.want)
			}
		})
	}
}

func TestErrorsAreNotIgnored(t *testing.T) {
	t.Parallel()
	text := "apiVersion: v1\nkind: ConfigMap\nmetadata:\n  name: c\n  namespace: shop\n  annotations: {credence.dev/ignore: \"RATELIMIT_UNIT: so it is\"}\ndata: {}\n"
	name := filepath.Join(t.TempDir(), "in.yaml")
	if err := os.WriteFile(name, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	set, _, err := file.Load(policy.DefaultMesh(), name)
	if err != nil {
		t.Fatal(err)
	}
	problem := policy.Problem{At: policy.Origin{File: name, Line: 7}, Object: "ConfigMap shop/c limits.yaml", Code: "RATELIMIT_UNIT", Says: "x"}
	got := lint.Ignored(set, []policy.Problem{problem})
	if len(got) != 2 || got[0].Code != lint.CodeIgnoreError || got[0].At.Line != 6 || got[1] != problem {
		t.Errorf("%v", got)
	}
	problem.Severity = policy.Info
	if got := lint.Ignored(set, []policy.Problem{problem}); len(got) != 0 {
		t.Errorf("%v", got)
	}
}
