// Package policytest makes policy Sets out of YAML for tests of what lies below policy, without the sources and their validation: a test
// can so put in force what no source would accept.
package policytest

import (
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	securityv1beta1 "istio.io/api/security/v1beta1"
	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
	"sigs.k8s.io/yaml"

	"github.com/credence-mesh/credence/policy"
)

// Set reads documents, separated by "---", into a set of the default mesh. The annotation test/void makes an object void; a void object
// without a spec is one that could not be read.
func Set(t testing.TB, documents string) *policy.Set {
	t.Helper()
	return In(t, policy.DefaultMesh(), documents)
}

// In reads documents into a set of a mesh.
func In(t testing.TB, mesh policy.Mesh, documents string) *policy.Set {
	t.Helper()
	var all []policy.Resource
	for _, d := range strings.Split(documents, "\n---") {
		if strings.TrimSpace(d) != "" {
			all = append(all, resource(t, d))
		}
	}
	return policy.NewSet(mesh).Apply(all, nil)
}

// Seed is the text of a file of the seeds; the test is skipped where they are not beside the repository.
func Seed(t testing.TB, root, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join(root, "..", "shared", "seeds", name))
	if err != nil {
		t.Skipf("the seeds are not here: %v", err)
	}
	return string(b)
}

// Workload is a workload of the set.
func Workload(t testing.TB, set *policy.Set, namespace, name string) *policy.Workload {
	t.Helper()
	w, ok := set.Workload(namespace, name)
	if !ok {
		t.Fatalf("no workload %s/%s", namespace, name)
	}
	return w
}

type document struct {
	Kind     policy.Kind `json:"kind"`
	Metadata struct {
		Name              string            `json:"name"`
		Namespace         string            `json:"namespace"`
		Labels            map[string]string `json:"labels"`
		Annotations       map[string]string `json:"annotations"`
		CreationTimestamp time.Time         `json:"creationTimestamp"`
	} `json:"metadata"`
	Spec json.RawMessage `json:"spec"`
}

func resource(t testing.TB, text string) policy.Resource {
	t.Helper()
	var d document
	if err := yaml.Unmarshal([]byte(text), &d); err != nil {
		t.Fatalf("%v in:\n%s", err, text)
	}
	m := d.Metadata
	o := policy.Object{
		Key: policy.Key{Kind: d.Kind, Namespace: m.Namespace, Name: m.Name}, Labels: m.Labels, Annotations: m.Annotations,
		Created: m.CreationTimestamp, At: policy.Origin{File: "test.yaml", Line: 1}, Void: m.Annotations["test/void"] != "",
	}
	switch d.Kind {
	case policy.KindPeerAuthentication:
		return &policy.PeerAuthentication{Object: o, Spec: spec[securityv1beta1.PeerAuthentication](t, d.Spec)}
	case policy.KindRequestAuthentication:
		return &policy.RequestAuthentication{Object: o, Spec: spec[securityv1beta1.RequestAuthentication](t, d.Spec)}
	case policy.KindAuthorizationPolicy:
		return &policy.AuthorizationPolicy{Object: o, Spec: spec[securityv1beta1.AuthorizationPolicy](t, d.Spec)}
	case policy.KindWorkloadEntry:
		return &policy.WorkloadEntry{Object: o, Spec: spec[networkingv1alpha3.WorkloadEntry](t, d.Spec)}
	case policy.KindServiceEntry:
		return &policy.ServiceEntry{Object: o, Spec: spec[networkingv1alpha3.ServiceEntry](t, d.Spec)}
	case policy.KindService:
		return &policy.Service{Object: o, Spec: spec[corev1.ServiceSpec](t, d.Spec)}
	case policy.KindGateway:
		return &policy.Gateway{Object: o, Spec: spec[gatewayv1.GatewaySpec](t, d.Spec)}
	default:
		t.Fatalf("kind %q is not known to policytest", d.Kind)
		return nil
	}
}

// spec is nil where the document has none.
func spec[T any](t testing.TB, raw json.RawMessage) *T {
	t.Helper()
	if len(raw) == 0 {
		return nil
	}
	out := new(T)
	raw = json.RawMessage(strings.ReplaceAll(string(raw), `"outputClaimsToHeaders"`, `"outputClaimToHeaders"`)) // the seeds' spelling, as sources read it
	if err := json.Unmarshal(raw, out); err != nil {
		t.Fatalf("%v in %s", err, raw)
	}
	return out
}
