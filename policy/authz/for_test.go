package authz

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/credence-mesh/credence/internal/policytest"
	"github.com/credence-mesh/credence/policy"
)

const workloads = `
kind: WorkloadEntry
metadata: {name: gw, namespace: production, labels: {app: api-gateway}}
spec: {address: 127.0.0.1}
---
kind: Gateway
metadata: {name: edge, namespace: production}
spec: {gatewayClassName: credence, listeners: []}
---
kind: ServiceEntry
metadata: {name: authz, namespace: infra}
spec: {hosts: [authz.example], ports: [{number: 9000, name: grpc, protocol: GRPC}], resolution: DNS}
`

func ap(name, spec string) string {
	return "\n---\nkind: AuthorizationPolicy\nmetadata: {name: " + name + ", namespace: production}\nspec: " + spec
}

// annotated adds an annotation to the one policy.
func annotated(document, annotation string) string {
	return strings.Replace(document, "production}", "production, annotations: {"+annotation+"}}", 1)
}

func ids(rules []Rule) string {
	var out []string
	for _, r := range rules {
		id := strings.TrimPrefix(r.ID, "ns[production]-policy")
		if r.DryRun {
			id += "?"
		}
		out = append(out, id)
	}
	return strings.Join(out, " ")
}

// What becomes of whole policies. What the conditions mean is told by real Envoys, in xds/filter.
func TestFor(t *testing.T) {
	t.Parallel()
	const dry, void = "istio.io/dry-run: 'true'", "test/void: 'yes'"
	for _, tc := range []struct {
		name, policies           string
		proto                    Protocol
		port                     uint32
		workload                 string
		allow, deny, audit, cust string
		closed                   bool
		broken                   int
		codes                    []string
	}{
		{name: "none"},
		{name: "an id a rule", policies: ap("a", "{rules: [{}, {to: [{operation: {methods: [GET]}}]}]}"), allow: "[a]-rule[0] [a]-rule[1]", closed: true},
		{name: "allow nothing", policies: ap("a", "{}"), closed: true},
		{name: "every action", policies: ap("a", "{rules: [{}]}") + ap("b", "{action: DENY, rules: [{}]}") + ap("c", "{action: AUDIT, rules: [{}]}") + ap("d", "{action: CUSTOM, provider: {name: opa}, rules: [{}]}"),
			allow: "[a]-rule[0]", deny: "[b]-rule[0]", audit: "[c]-rule[0]", cust: "opa:[d]-rule[0]", closed: true},
		{name: "dry-run", policies: annotated(ap("a", "{rules: [{}]}"), dry), allow: "[a]-rule[0]?"},
		{name: "dry-run of AUDIT", policies: annotated(ap("a", "{action: AUDIT, rules: [{}]}"), dry), broken: 1, closed: true, codes: []string{"AUTHZ_INVALID"}},
		{name: "dry-run of CUSTOM", policies: annotated(ap("a", "{action: CUSTOM, provider: {name: opa}, rules: [{}]}"), dry), broken: 1, closed: true, codes: []string{"AUTHZ_INVALID"}},
		{name: "rules of other ports are left out, the policy still closes", policies: ap("a", "{rules: [{to: [{operation: {ports: ['1']}}]}]}"), port: 8080, closed: true},
		{name: "but not where the port is not known", policies: ap("a", "{rules: [{to: [{operation: {ports: ['1']}}]}]}"), allow: "[a]-rule[0]", closed: true},
		{name: "CUSTOM of one provider twice", policies: ap("a", "{action: CUSTOM, provider: {name: opa}, rules: [{}]}") + ap("b", "{action: CUSTOM, provider: {name: opa}, rules: [{}]}"), cust: "opa:[a]-rule[0] [b]-rule[0]"},
		{name: "CUSTOM of two providers", policies: ap("a", "{action: CUSTOM, provider: {name: opa}, rules: [{}]}") + ap("b", "{action: CUSTOM, provider: {name: remote}, rules: [{}]}"), deny: "[a]-rule[0]-deny-due-to-bad-CUSTOM-action [b]-rule[0]-deny-due-to-bad-CUSTOM-action", codes: []string{"AUTHZ_MANY_PROVIDERS"}},
		{name: "CUSTOM of a provider that decides nothing", policies: ap("a", "{action: CUSTOM, provider: {name: traces}, rules: [{}]}"), deny: "[a]-rule[0]-deny-due-to-bad-CUSTOM-action", codes: []string{"AUTHZ_UNKNOWN_PROVIDER"}},
		{name: "CUSTOM of nobody", policies: ap("a", "{action: CUSTOM, rules: [{}]}"), deny: "[a]-rule[0]-deny-due-to-bad-CUSTOM-action", codes: []string{"AUTHZ_UNKNOWN_PROVIDER"}},
		{name: "CUSTOM of a provider that may fail open", policies: ap("a", "{action: CUSTOM, provider: {name: remote}, rules: [{}]}"), cust: "remote:[a]-rule[0]", codes: []string{"AUTHZ_FAIL_OPEN"}},
		{name: "TCP drops ALLOW rules that ask about HTTP", policies: ap("a", "{rules: [{to: [{operation: {hosts: [x]}}]}, {from: [{source: {requestPrincipals: ['*']}}]}, {when: [{key: 'request.headers[x]', values: ['z']}]}, {}]}"),
			proto: TCP, allow: "[a]-rule[3]", closed: true, codes: []string{"AUTHZ_HTTP_ONLY_ON_TCP", "AUTHZ_HTTP_ONLY_ON_TCP", "AUTHZ_HTTP_ONLY_ON_TCP"}},
		{name: "TCP widens DENY rules", policies: ap("a", "{action: DENY, rules: [{to: [{operation: {notPaths: [/x]}}]}]}"), proto: TCP, deny: "[a]-rule[0]", codes: []string{"AUTHZ_HTTP_ONLY_ON_TCP"}},
		{name: "void", policies: annotated(ap("a", "{rules: [{}]}"), void), broken: 1, closed: true},
		{name: "void elsewhere", policies: annotated(ap("a", "{selector: {matchLabels: {app: x}}}"), void)},
		{name: "unknown key", policies: ap("a", "{rules: [{when: [{key: destination.user, values: [x]}]}]}"), broken: 1, closed: true, codes: []string{"AUTHZ_INVALID"}},
		{name: "key without a name", policies: ap("a", "{rules: [{when: [{key: request.headers, values: [x]}]}]}"), broken: 1, closed: true, codes: []string{"AUTHZ_INVALID"}},
		{name: "condition without values", policies: ap("a", "{rules: [{when: [{key: source.ip}]}]}"), broken: 1, closed: true, codes: []string{"AUTHZ_INVALID"}},
		{name: "template with half an operator", policies: ap("a", "{rules: [{to: [{operation: {paths: ['/a{*}/b']}}]}]}"), broken: 1, closed: true, codes: []string{"AUTHZ_INVALID"}},
		{name: "template with {**} first", policies: ap("a", "{rules: [{to: [{operation: {paths: ['/{**}/{*}']}}]}]}"), broken: 1, closed: true, codes: []string{"AUTHZ_INVALID"}},
		{name: "port out of range", policies: ap("a", "{rules: [{to: [{operation: {ports: ['70000']}}]}]}"), broken: 1, closed: true, codes: []string{"AUTHZ_INVALID"}},
		{name: "service account with a wildcard", policies: ap("a", "{rules: [{from: [{source: {serviceAccounts: ['a/*']}}]}]}"), broken: 1, closed: true, codes: []string{"AUTHZ_INVALID"}},
		{name: "targetRef is nothing to a sidecar", policies: ap("a", "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]}")},
		{name: "targetRef of a gateway", policies: ap("a", "{targetRefs: [{group: gateway.networking.k8s.io, kind: Gateway, name: edge}]}"), workload: "edge", closed: true},
		{name: "the older targetRef", policies: ap("a", "{targetRef: {group: gateway.networking.k8s.io, kind: Gateway, name: edge}}"), workload: "edge", closed: true},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			mesh := policy.DefaultMesh()
			mesh.ExtensionProviders = []policy.ExtensionProvider{
				{Name: "remote", EnvoyExtAuthzGRPC: &policy.ExtAuthzGRPC{Service: "infra/authz.example", Port: 9000, Timeout: time.Second, FailOpen: true}},
				{Name: "traces", OpenTelemetry: &policy.OpenTelemetry{Service: "x", Port: 1}},
			}
			set := policytest.In(t, mesh, workloads+tc.policies)
			name := "gw"
			if tc.workload != "" {
				name = tc.workload
			}
			got, problems := For(set, policytest.Workload(t, set, "production", name), tc.port, tc.proto)
			var cust []string
			for _, c := range got.Custom {
				cust = append(cust, c.Provider+":"+ids(c.Rules))
				if c.Provider == "remote" && (c.Authorizer.Cluster() != "outbound|9000||authz.example" || c.Authorizer.Timeout != time.Second) {
					t.Errorf("authorizer %+v", c.Authorizer)
				}
			}
			for what, pair := range map[string][2]string{
				"allow": {ids(got.Allow), tc.allow}, "deny": {ids(got.Deny), tc.deny}, "audit": {ids(got.Audit), tc.audit}, "custom": {strings.Join(cust, ","), tc.cust},
			} {
				if pair[0] != pair[1] {
					t.Errorf("%s: %q, want %q", what, pair[0], pair[1])
				}
			}
			if got.Open == tc.closed || len(got.Broken) != tc.broken {
				t.Errorf("open %v, %d broken", got.Open, len(got.Broken))
			}
			var codes []string
			for _, p := range problems {
				codes = append(codes, p.Code)
			}
			if !slices.Equal(codes, tc.codes) {
				t.Errorf("problems %v", problems)
			}
		})
	}
}

// B32: a policy more never lets a request through that DENY refuses, and one ALLOW policy more never opens what had none.
func TestDenyStandsBesideAnything(t *testing.T) {
	t.Parallel()
	deny := ap("deny", "{action: DENY, rules: [{to: [{operation: {paths: [/x]}}]}]}")
	for _, other := range []string{"{}", "{rules: [{}]}", "{action: AUDIT, rules: [{}]}", "{action: CUSTOM, provider: {name: opa}, rules: [{}]}"} {
		for _, name := range []string{"a", "z"} { // before and after it
			set := policytest.Set(t, workloads+deny+ap(name, other))
			got, _ := For(set, policytest.Workload(t, set, "production", "gw"), 8080, HTTP)
			if !strings.Contains(ids(got.Deny), "[deny]-rule[0]") {
				t.Errorf("%s %s: deny %q", name, other, ids(got.Deny))
			}
		}
	}
}

func FuzzPath(f *testing.F) {
	for _, s := range []string{"/", "*", "/a/{*}", "/{**}/x", "{*}", "/a*b", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, v string) {
		e, err := path(v)
		if err != nil {
			return
		}
		p, ok := e.(Path)
		if !ok {
			t.Fatalf("%T", e)
		}
		if p.Match.Kind == Template && (strings.ContainsAny(p.Match.Value, "{}") || !strings.HasPrefix(p.Match.Value, "/") || strings.Count(p.Match.Value, "**") > 1) {
			t.Fatalf("template %q of %q", p.Match.Value, v)
		}
	})
}

func FuzzBrackets(f *testing.F) {
	for _, s := range []string{"[a]", "[a][b]", "[]", "[a", "a]", "[[a]]", ""} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		names, err := Brackets(s)
		if err == nil && "["+strings.Join(names, "][")+"]" != s {
			t.Fatalf("%q became %q", s, names)
		}
	})
}
