package peer

import (
	"testing"

	"github.com/credence-mesh/credence/internal/policytest"
)

const workloads = `
kind: WorkloadEntry
metadata: {name: gw, namespace: production, labels: {app: api-gateway}}
spec: {address: 127.0.0.1}
---
kind: WorkloadEntry
metadata: {name: root, namespace: istio-system, labels: {app: api-gateway}}
spec: {address: 127.0.0.1}
`

// pa is a PeerAuthentication; extra is further lines of its spec.
func pa(namespace, name, meta, spec string) string {
	return "\n---\nkind: PeerAuthentication\nmetadata: {name: " + name + ", namespace: " + namespace + meta + "}\n" + spec
}

const selector = "spec: {selector: {matchLabels: {app: api-gateway}}, "

func TestFor(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name, policies string
		workload       string // default production/gw
		port           uint32
		want           Mode
		from           string // name of the object that decided; empty: nobody
	}{
		{name: "nobody says anything", want: Permissive},
		{name: "mesh", policies: pa("istio-system", "mesh", "", "spec: {mtls: {mode: STRICT}}"), want: Strict, from: "mesh"},
		{name: "namespace over mesh", policies: pa("istio-system", "mesh", "", "spec: {mtls: {mode: STRICT}}") + pa("production", "ns", "", "spec: {mtls: {mode: DISABLE}}"), want: Disable, from: "ns"},
		{name: "another namespace says nothing here", policies: pa("other", "ns", "", "spec: {mtls: {mode: STRICT}}"), want: Permissive},
		{name: "workload over namespace", policies: pa("production", "ns", "", "spec: {mtls: {mode: STRICT}}") + pa("production", "w", "", selector+"mtls: {mode: PERMISSIVE}}"), want: Permissive, from: "w"},
		{name: "a selector that misses", policies: pa("production", "w", "", "spec: {selector: {matchLabels: {app: other}}, mtls: {mode: STRICT}}"), want: Permissive},
		{name: "an empty selector is the namespace", policies: pa("production", "ns", "", "spec: {selector: {}, mtls: {mode: STRICT}}"), want: Strict, from: "ns"},
		{name: "port over workload", policies: pa("production", "w", "", selector+"mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: PERMISSIVE}}}"), port: 8080, want: Permissive, from: "w"},
		{name: "another port", policies: pa("production", "w", "", selector+"mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: PERMISSIVE}}}"), port: 9090, want: Strict, from: "w"},
		{name: "ports without a selector do not count", policies: pa("production", "ns", "", "spec: {mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}}}"), port: 8080, want: Strict, from: "ns"},
		{name: "UNSET inherits", policies: pa("istio-system", "mesh", "", "spec: {mtls: {mode: STRICT}}") + pa("production", "ns", "", "spec: {mtls: {mode: UNSET}}") + pa("production", "w", "", selector+"portLevelMtls: {8080: {mode: UNSET}}}"), port: 8080, want: Strict, from: "mesh"},
		{name: "no mtls inherits", policies: pa("istio-system", "mesh", "", "spec: {mtls: {mode: STRICT}}") + pa("production", "ns", "", "spec: {}"), want: Strict, from: "mesh"},
		{name: "the oldest of a tie", policies: pa("production", "a", ", creationTimestamp: '2026-02-01T00:00:00Z'", "spec: {mtls: {mode: DISABLE}}") + pa("production", "b", ", creationTimestamp: '2026-01-01T00:00:00Z'", "spec: {mtls: {mode: STRICT}}"), want: Strict, from: "b"},
		{name: "then the first by name", policies: pa("production", "b", "", "spec: {mtls: {mode: DISABLE}}") + pa("production", "a", "", "spec: {mtls: {mode: STRICT}}"), want: Strict, from: "a"},
		{name: "a selector in the root namespace counts for nobody", policies: pa("istio-system", "w", "", selector+"mtls: {mode: STRICT}}"), want: Permissive},
		{name: "not even in the root namespace", policies: pa("istio-system", "w", "", selector+"mtls: {mode: STRICT}}"), workload: "root", want: Permissive},
		{name: "the mesh policy covers the root namespace", policies: pa("istio-system", "mesh", "", "spec: {mtls: {mode: STRICT}}"), workload: "root", want: Strict, from: "mesh"},
		{name: "void without a spec closes its namespace", policies: pa("production", "ns", "", "spec: {mtls: {mode: PERMISSIVE}}") + pa("production", "x", ", annotations: {test/void: 'yes'}", ""), want: Strict, from: "x"},
		{name: "void without a spec in the root namespace closes the mesh", policies: pa("istio-system", "x", ", annotations: {test/void: 'yes'}", ""), want: Strict, from: "x"},
		{name: "void with a selector that misses", policies: pa("production", "x", ", annotations: {test/void: 'yes'}", "spec: {selector: {matchLabels: {app: other}}}"), want: Permissive},
		{name: "void with a selector closes its ports too", policies: pa("production", "x", ", annotations: {test/void: 'yes'}", selector+"portLevelMtls: {8080: {mode: DISABLE}}}"), port: 8080, want: Strict, from: "x"},
		{name: "void wins a tie", policies: pa("production", "a", "", selector+"mtls: {mode: DISABLE}}") + pa("production", "x", ", annotations: {test/void: 'yes'}", selector+"mtls: {mode: DISABLE}}"), want: Strict, from: "x"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			set := policytest.Set(t, workloads+tc.policies)
			ns, name := "production", "gw"
			if tc.workload == "root" {
				ns, name = "istio-system", "root"
			}
			got, from := For(set, policytest.Workload(t, set, ns, name), tc.port)
			if got != tc.want {
				t.Errorf("mode %d, want %d", got, tc.want)
			}
			if (len(from) == 1) != (tc.from != "") || len(from) == 1 && from[0].Key.Name != tc.from {
				t.Errorf("decided by %v, want %q", from, tc.from)
			}
		})
	}
}

func TestSeeds(t *testing.T) {
	t.Parallel()
	set := policytest.Set(t, workloads+"\n---\n"+policytest.Seed(t, "../..", "istio/peer-authentication.yaml"))
	w := policytest.Workload(t, set, "production", "gw")
	for port, want := range map[uint32]Mode{8080: Permissive, 8443: Strict} {
		if got, _ := For(set, w, port); got != want {
			t.Errorf("port %d: %d, want %d", port, got, want)
		}
	}
}
