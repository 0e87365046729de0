package compile

import (
	"slices"
	"testing"
	"time"

	"github.com/credence-mesh/credence/internal/policytest"
	"github.com/credence-mesh/credence/policy"
)

func claimant(namespace, created, more string) string {
	return "\n---\nkind: ServiceEntry\nmetadata: {name: se, namespace: " + namespace + ", creationTimestamp: " + created + "}\nspec: {hosts: [api.example], " + more +
		"ports: [{number: 443, name: tls, protocol: TLS}], resolution: STATIC}"
}

// Who of several that claim a host or an address has it.
func TestClash(t *testing.T) {
	t.Parallel()
	const young, old, middle = "2026-03-01T00:00:00Z", "2026-01-01T00:00:00Z", "2026-02-01T00:00:00Z"
	base := claimant("aaa", young, "") + claimant("old", old, "") + claimant("zzz", middle, "")
	for _, tc := range []struct {
		name, docs, client, host string
		want                     string // namespace that has the host
	}{
		{name: "the oldest, not the first by name", docs: base, client: "shop", host: "api.example", want: "old"},
		{name: "the client's own", docs: base, client: "zzz", host: "api.example", want: "zzz"},
		{name: "the root namespace, whatever its age", docs: base + claimant("istio-system", young, ""), client: "shop", host: "api.example", want: "istio-system"},
		{name: "the client's own before the root namespace", docs: base + claimant("istio-system", old, ""), client: "aaa", host: "api.example", want: "aaa"},
		{name: "what is not exported claims nothing", docs: base + claimant("old2", "2025-01-01T00:00:00Z", "exportTo: ['.'], "), client: "shop", host: "api.example", want: "old"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			reg := newRegistry(nil, policytest.Set(t, tc.docs[len("\n---\n"):]))
			seen, gave := reg.seenBy(tc.client)
			i := slices.IndexFunc(seen, func(s *service) bool { return s.host == tc.host })
			if i < 0 || seen[i].namespace != tc.want || len(seen) != 1 {
				t.Fatalf("got %d hosts", len(seen))
			}
			if len(gave) == 0 {
				t.Fatal("nothing gives way")
			}
			for _, g := range gave {
				if p := reg.hostClash(g.service, g.way); p.Code != "HOST_CLASH" || p.Object == "ServiceEntry "+tc.want+"/se" || p.At.File == "" {
					t.Errorf("%v", p)
				}
			}
		})
	}
}

func TestAddressClash(t *testing.T) {
	t.Parallel()
	set := policytest.Set(t, `
kind: Service
metadata: {name: pay, namespace: production, annotations: {networking.istio.io/exportTo: .}}
spec: {clusterIP: 10.90.0.1, ports: [{name: http, port: 80}]}
---
kind: ServiceEntry
metadata: {name: a, namespace: evil}
spec: {hosts: [a.example], addresses: [10.90.0.1, "::ffff:10.90.0.1", 0.0.0.0, "::", 10.90.0.2, 10.90.0.3], ports: [{number: 81, name: tcp, protocol: TCP}], resolution: STATIC}
---
kind: ServiceEntry
metadata: {name: b, namespace: production, creationTimestamp: `+time.Unix(1, 0).UTC().Format(time.RFC3339)+`}
spec: {hosts: [b.example], addresses: [10.90.0.2], ports: [{number: 81, name: tcp, protocol: TCP}], resolution: STATIC}
`)
	reg := newRegistry(nil, set)
	of := func(host string) *service { return reg.host(host)[0] }
	for _, tc := range []struct {
		host, address, client string
		takes                 bool
		severity              policy.Severity
	}{
		{host: "a.example", address: "10.90.0.1", client: "production", severity: policy.Error},
		{host: "a.example", address: "10.90.0.1", client: "shop", severity: policy.Error}, // which does not see the Service
		{host: "a.example", address: "::ffff:10.90.0.1", client: "shop", severity: policy.Error},
		{host: "a.example", address: "0.0.0.0", client: "shop", severity: policy.Error},
		{host: "a.example", address: "::", client: "shop", severity: policy.Error},
		{host: "a.example", address: "10.90.0.2", client: "production", severity: policy.Warning},
		{host: "a.example", address: "10.90.0.2", client: "evil", takes: true},
		{host: "a.example", address: "10.90.0.3", client: "production", takes: true},
		{host: "b.example", address: "10.90.0.2", client: "production", takes: true},
		{host: "pay.production.svc.cluster.local", address: "10.90.0.1", client: "shop", takes: true},
	} {
		takes, told := reg.takes(of(tc.host), tc.address, 81, tc.client)
		if takes != tc.takes || !takes && (told.Code != "ADDRESS_CLASH" || told.Severity != tc.severity) {
			t.Errorf("%s at %s for %s: %v %v", tc.host, tc.address, tc.client, takes, told)
		}
	}
}

// TestAuthorizerComes: servers are built again when the service that decides for them comes, and no sooner than somebody names it.
func TestAuthorizerComes(t *testing.T) {
	t.Parallel()
	mesh := policy.DefaultMesh()
	mesh.ExtensionProviders = []policy.ExtensionProvider{{Name: "ours", EnvoyExtAuthzGRPC: &policy.ExtAuthzGRPC{Service: "authz.production", Port: 9000}}}
	const before = "kind: WorkloadEntry\nmetadata: {name: w, namespace: shop}\nspec: {address: 127.0.0.1}"
	for name, inbound := range map[string]bool{"authz": true, "other": false} {
		old := policytest.In(t, mesh, before)
		next := policytest.In(t, mesh, "kind: Service\nmetadata: {name: "+name+", namespace: production}\nspec: {ports: [{name: grpc, port: 9000}]}")
		s, _ := policy.Get[*policy.Service](next, "production", name)
		now := old.Apply([]policy.Resource{s}, nil)
		if got := New().Affected(old, now, policy.Diff(old, now)); got.Inbound != inbound {
			t.Errorf("%s: inbound parts are affected: %v", name, got.Inbound)
		}
	}
}
