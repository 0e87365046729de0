package translate_test

import (
	"fmt"
	"testing"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	securityv1beta1 "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	corev1 "k8s.io/api/core/v1"
	"k8s.io/apimachinery/pkg/util/intstr"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/compile"
	"github.com/credence-mesh/credence/xds/translate"
)

const (
	benchSpaces   = 100
	benchServices = 10_000
	benchPolicies = 1_000
)

// largeMesh has 10,000 services with a workload each in 100 namespaces, and 1,000 policies.
func largeMesh() *policy.Set {
	var put []policy.Resource
	for i := range benchServices {
		ns, name := fmt.Sprintf("ns-%d", i%benchSpaces), fmt.Sprintf("svc-%d", i)
		labels := map[string]string{"app": name}
		put = append(put,
			&policy.Service{Object: object(policy.KindService, ns, name, uint64(i)), Spec: &corev1.ServiceSpec{
				Selector: labels, Ports: []corev1.ServicePort{{Name: "http", Port: 80, TargetPort: intstr.FromInt32(8080)}},
			}},
			&policy.WorkloadEntry{Object: object(policy.KindWorkloadEntry, ns, name, uint64(i)), Spec: &networkingv1alpha3.WorkloadEntry{
				Address: fmt.Sprintf("10.%d.%d.%d", i>>16, i>>8&255, i&255), Labels: labels, ServiceAccount: name,
			}})
	}
	for i := range benchPolicies {
		put = append(put, benchPolicy(i, 0))
	}
	return policy.NewSet(policy.DefaultMesh()).Apply(put, nil)
}

func object(kind policy.Kind, ns, name string, digest uint64) policy.Object {
	return policy.Object{Key: policy.Key{Kind: kind, Namespace: ns, Name: name}, Digest: digest}
}

func benchPolicy(i, edit int) *policy.AuthorizationPolicy {
	ns, name := fmt.Sprintf("ns-%d", i%benchSpaces), fmt.Sprintf("p-%d", i)
	return &policy.AuthorizationPolicy{Object: object(policy.KindAuthorizationPolicy, ns, name, uint64(edit)), Spec: &securityv1beta1.AuthorizationPolicy{
		Selector: &typev1beta1.WorkloadSelector{MatchLabels: map[string]string{"app": fmt.Sprintf("svc-%d", i)}},
		Rules:    []*securityv1beta1.Rule{{To: []*securityv1beta1.Rule_To{{Operation: &securityv1beta1.Operation{Paths: []string{fmt.Sprintf("/v%d", edit)}}}}}},
	}}
}

// BenchmarkPolicyEdit is one edited policy among 1,000, in a mesh of 10,000 services: Diff, Affected, and Build of what is affected.
func BenchmarkPolicyEdit(b *testing.B) {
	set := largeMesh()
	builder := translate.NewBuilder()
	key := compile.PartKey{Kind: compile.InboundPart, Namespace: "ns-7", Name: "svc-7"}
	versions(b, builder, set, key)
	for n := 0; b.Loop(); n++ {
		next := set.Apply([]policy.Resource{benchPolicy(7, n+1)}, nil)
		a := builder.Affected(set, next, policy.Diff(set, next))
		if len(a.Parts) != 1 || !a.Parts[key] || a.Inbound || a.Outbound || a.Gateways {
			b.Fatalf("one part is affected, and this is what is named: %+v", a)
		}
		if _, _, err := builder.Build(next, key); err != nil {
			b.Fatal(err)
		}
		set = next
	}
}

// BenchmarkServiceEdit is a new service in the same mesh: every outbound part changes, and one of them is built.
func BenchmarkServiceEdit(b *testing.B) {
	set := largeMesh()
	builder := translate.NewBuilder()
	key := compile.PartKey{Kind: compile.OutboundPart, Namespace: "ns-7", EgressPort: compile.DefaultEgressPort}
	versions(b, builder, set, key)
	for n := 0; b.Loop(); n++ {
		s := &policy.Service{Object: object(policy.KindService, "ns-7", "new", uint64(n)), Spec: &corev1.ServiceSpec{Ports: []corev1.ServicePort{{Name: "http", Port: 80}}}}
		next := set.Apply([]policy.Resource{s}, nil)
		builder.Affected(set, next, policy.Diff(set, next))
		if _, _, err := builder.Build(next, key); err != nil {
			b.Fatal(err)
		}
		set = next
	}
}

// BenchmarkEndpointEdit is an edit of the addresses of one service: of 20,000 resources of an outbound part one changes.
func BenchmarkEndpointEdit(b *testing.B) {
	set := largeMesh()
	builder := translate.NewBuilder()
	key := compile.PartKey{Kind: compile.OutboundPart, Namespace: "ns-7", EgressPort: compile.DefaultEgressPort}
	list, _, err := builder.Build(set, key)
	if err != nil {
		b.Fatal(err)
	}
	for n := 0; b.Loop(); n++ {
		e := &policy.Endpoints{Object: object(policy.KindEndpoints, "ns-7", "svc-7", uint64(n)), Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: fmt.Sprintf("10.0.%d.%d", n>>8&255, n&255)}}, Ports: []corev1.EndpointPort{{Port: 8080}},
		}}}
		next := set.Apply([]policy.Resource{e}, nil)
		if a := builder.Affected(set, next, policy.Diff(set, next)); !a.Touches(key) {
			b.Fatalf("the part is not named: %+v", a)
		}
		was := list
		if list, _, err = builder.Build(next, key); err != nil || len(list) != len(was) {
			b.Fatal(len(list), err)
		}
		set = next
	}
}

// BenchmarkFirstBuild is the services of the whole mesh from nothing, and the first outbound part.
func BenchmarkFirstBuild(b *testing.B) {
	set := largeMesh()
	key := compile.PartKey{Kind: compile.OutboundPart, Namespace: "ns-7", EgressPort: compile.DefaultEgressPort}
	for b.Loop() {
		if _, _, err := translate.NewBuilder().Build(set, key); err != nil {
			b.Fatal(err)
		}
	}
}
