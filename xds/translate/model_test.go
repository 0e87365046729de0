package translate_test

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/structpb"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	securityv1beta1 "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/compile"
	"github.com/credence-mesh/credence/xds/resource"
	"github.com/credence-mesh/credence/xds/translate"
)

// model draws edits of a small mesh in which names clash often.
type model struct {
	*rand.Rand
	digest uint64
}

func pick[T any](m *model, of ...T) T { return of[m.IntN(len(of))] }

func (m *model) object(kind policy.Kind, names ...string) policy.Object {
	m.digest++
	o := object(kind, pick(m, "one", "two", "istio-system"), pick(m, names...), m.digest)
	o.At = policy.Origin{File: "in.yaml", Line: 1 + m.IntN(3)}
	return o
}

func (m *model) labels() map[string]string {
	return map[string]string{"app": pick(m, "a", "b", "c")}
}

// draw is a new version of some object.
func (m *model) draw() policy.Resource {
	switch m.IntN(12) {
	case 0, 1, 2:
		return m.service()
	case 3:
		return m.entry()
	case 4, 5:
		o := m.object(policy.KindWorkloadEntry, "w1", "w2", "w3")
		o.Annotations = map[string]string{"sidecar.istio.io/interceptionMode": pick(m, "NONE", "NONE", "REDIRECT")}
		labels := m.labels()
		if m.IntN(5) == 0 {
			labels["security.istio.io/tlsMode"] = "disabled"
		}
		return &policy.WorkloadEntry{Object: o, Spec: &networkingv1alpha3.WorkloadEntry{
			Address: pick(m, "127.0.1.1", "127.0.1.2", ""), Labels: labels, ServiceAccount: pick(m, "x", "y"), Ports: pick(m, nil, map[string]uint32{"http": 9090}),
		}}
	case 6:
		return &policy.Endpoints{Object: m.object(policy.KindEndpoints, "a", "b", "nobody"), Subsets: []corev1.EndpointSubset{{
			Addresses: []corev1.EndpointAddress{{IP: pick(m, "10.0.0.1", "10.0.0.2")}}, Ports: []corev1.EndpointPort{{Name: "http", Port: 8080}},
		}}}
	case 7:
		o := m.object(policy.KindEndpointSlice, "s1", "s2")
		o.Labels = map[string]string{"kubernetes.io/service-name": pick(m, "a", "b")}
		port := int32(8080)
		return &policy.EndpointSlice{Object: o, Slice: &discoveryv1.EndpointSlice{
			Endpoints: []discoveryv1.Endpoint{{Addresses: []string{pick(m, "10.0.1.1", "10.0.1.2")}}}, Ports: []discoveryv1.EndpointPort{{Port: &port}},
		}}
	case 8:
		mode := func() *securityv1beta1.PeerAuthentication_MutualTLS {
			return &securityv1beta1.PeerAuthentication_MutualTLS{Mode: pick(m, securityv1beta1.PeerAuthentication_MutualTLS_DISABLE, securityv1beta1.PeerAuthentication_MutualTLS_STRICT)}
		}
		p := &policy.PeerAuthentication{Object: m.object(policy.KindPeerAuthentication, "p1", "p2"), Spec: &securityv1beta1.PeerAuthentication{Mtls: mode()}}
		if m.IntN(2) == 0 {
			p.Spec.Selector = &typev1beta1.WorkloadSelector{MatchLabels: m.labels()}
			p.Spec.PortLevelMtls = map[uint32]*securityv1beta1.PeerAuthentication_MutualTLS{8080: mode()}
		}
		return p
	case 9:
		return m.sidecar()
	case 10:
		return m.patch()
	default:
		return m.gateway()
	}
}

func (m *model) service() policy.Resource {
	o := m.object(policy.KindService, "a", "b", "a.one", "C")
	o.Annotations = map[string]string{"networking.istio.io/exportTo": pick(m, "", "", ".", "two")}
	s := &policy.Service{Object: o, Spec: &corev1.ServiceSpec{ClusterIP: pick(m, "", "None", "10.9.9.9")}}
	if m.IntN(4) > 0 {
		s.Spec.Selector = m.labels()
	}
	for range 1 + m.IntN(3) {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: pick(m, "http", "grpc", "tcp", "http-x"), Port: pick(m, int32(80), 8080, 443)})
	}
	return s
}

func (m *model) entry() policy.Resource {
	e := &policy.ServiceEntry{Object: m.object(policy.KindServiceEntry, "e1", "e2"), Spec: &networkingv1alpha3.ServiceEntry{
		Hosts:      []string{pick(m, "a.one", "a", "b.two.svc", "*"), pick(m, "api.example.com", "a.one.svc.cluster.local:80", "*.example.com")},
		Resolution: networkingv1alpha3.ServiceEntry_DNS, Location: networkingv1alpha3.ServiceEntry_MESH_INTERNAL,
		Ports: []*networkingv1alpha3.ServicePort{{Number: pick(m, uint32(80), 443), Name: pick(m, "http", "tls"), Protocol: pick(m, "HTTP", "TLS")}},
	}}
	if m.IntN(2) == 0 {
		e.Spec.WorkloadSelector = &networkingv1alpha3.WorkloadSelector{Labels: m.labels()}
	}
	return e
}

func (m *model) sidecar() policy.Resource {
	s := &policy.Sidecar{Object: m.object(policy.KindSidecar, "c1", "c2"), Spec: &networkingv1alpha3.Sidecar{
		Egress: []*networkingv1alpha3.IstioEgressListener{{Hosts: []string{pick(m, "./*", "*/*", "two/*", "*/a.one.svc.cluster.local")}}},
	}}
	if m.IntN(2) == 0 {
		s.Spec.WorkloadSelector = &networkingv1alpha3.WorkloadSelector{Labels: m.labels()}
	}
	if m.IntN(2) == 0 {
		s.Spec.Egress = append(s.Spec.Egress, &networkingv1alpha3.IstioEgressListener{
			Port: &networkingv1alpha3.SidecarPort{Number: 9999, Name: "p", Protocol: pick(m, "HTTP", "TCP")}, Hosts: []string{pick(m, "*/*", "one/*")},
		})
	}
	return s
}

func (m *model) patch() policy.Resource {
	value, err := structpb.NewStruct(map[string]any{"connect_timeout": pick(m, "1s", "2s")})
	if err != nil {
		panic(err)
	}
	f := &policy.EnvoyFilter{Object: m.object(policy.KindEnvoyFilter, "f1"), Spec: &networkingv1alpha3.EnvoyFilter{
		ConfigPatches: []*networkingv1alpha3.EnvoyFilter_EnvoyConfigObjectPatch{{
			ApplyTo: networkingv1alpha3.EnvoyFilter_CLUSTER,
			Match:   &networkingv1alpha3.EnvoyFilter_EnvoyConfigObjectMatch{Context: pick(m, networkingv1alpha3.EnvoyFilter_SIDECAR_OUTBOUND, networkingv1alpha3.EnvoyFilter_ANY)},
			Patch:   &networkingv1alpha3.EnvoyFilter_Patch{Operation: networkingv1alpha3.EnvoyFilter_Patch_MERGE, Value: value},
		}},
	}}
	if m.IntN(2) == 0 {
		f.Spec.WorkloadSelector = &networkingv1alpha3.WorkloadSelector{Labels: m.labels()}
	}
	return f
}

func (m *model) gateway() policy.Resource {
	if m.IntN(2) == 0 {
		return &policy.Gateway{Object: m.object(policy.KindGateway, "edge"), Spec: &gatewayv1.GatewaySpec{
			Listeners: []gatewayv1.Listener{{Name: "http", Port: pick(m, gatewayv1.PortNumber(7000), 7001), Protocol: gatewayv1.HTTPProtocolType}},
		}}
	}
	port := gatewayv1.PortNumber(80)
	r := &policy.HTTPRoute{Object: m.object(policy.KindHTTPRoute, "r"), Spec: &gatewayv1.HTTPRouteSpec{Rules: []gatewayv1.HTTPRouteRule{{
		BackendRefs: []gatewayv1.HTTPBackendRef{{BackendRef: gatewayv1.BackendRef{BackendObjectReference: gatewayv1.BackendObjectReference{
			Name: pick(m, gatewayv1.ObjectName("a"), "b"), Port: &port,
		}}}},
	}}}}
	r.Spec.ParentRefs = []gatewayv1.ParentReference{{Name: "edge"}}
	return r
}

// made is what a Builder made of a part.
type made struct {
	list     []*resource.Resource
	problems []policy.Problem
	err      string
}

func makePart(b *translate.Builder, set *policy.Set, key compile.PartKey) made {
	list, problems, err := b.Build(set, key)
	return made{list, problems, fmt.Sprint(err)}
}

func (m made) equal(o made) bool {
	return m.err == o.err && slices.Equal(m.problems, o.problems) && slices.EqualFunc(m.list, o.list, func(a, b *resource.Resource) bool {
		return a.Type == b.Type && a.Name == b.Name && a.Version == b.Version && slices.Equal(a.Sources, b.Sources)
	})
}

// TestIncrementalIsCold draws sequences of edits. A Builder that remembers all that went before, and builds no part that Affected does not name,
// must have what a Builder makes that remembers nothing.
func TestIncrementalIsCold(t *testing.T) {
	t.Parallel()
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			t.Parallel()
			m := &model{Rand: rand.New(rand.NewPCG(seed, 1))}
			set, warm, have := policy.NewSet(policy.DefaultMesh()), translate.NewBuilder(), map[compile.PartKey]made{}
			for step := range 60 {
				var put []policy.Resource
				var del []policy.Key
				for range 1 + m.IntN(3) {
					if r := m.draw(); m.IntN(4) > 0 {
						put = append(put, r)
					} else {
						del = append(del, r.Meta().Key)
					}
				}
				next := set.Apply(put, del)
				a := warm.Affected(set, next, policy.Diff(set, next))
				now := map[compile.PartKey]made{}
				for w := range next.Workloads() {
					for _, k := range warm.Parts(next, w) {
						was, known := have[k]
						if now[k] = was; !known || a.Touches(k) {
							now[k] = makePart(warm, next, k)
						}
					}
				}
				for k, got := range now {
					if want := makePart(translate.NewBuilder(), next, k); !got.equal(want) {
						t.Fatalf("step %d: %s differs after %v %v (touched: %v): %s", step, k, keysOf(put), del, a.Touches(k), difference(got, want))
					}
					if got.err != "<nil>" {
						t.Errorf("step %d: %s", step, got.err)
					}
					oneHostADomain(t, got.list)
				}
				set, have = next, now
			}
		})
	}
}

func keysOf(list []policy.Resource) (out []policy.Key) {
	for _, r := range list {
		out = append(out, r.Meta().Key)
	}
	return out
}

func difference(got, want made) string {
	if got.err != want.err || !slices.Equal(got.problems, want.problems) {
		return fmt.Sprintf("%s %v, want %s %v", got.err, got.problems, want.err, want.problems)
	}
	for i := range min(len(got.list), len(want.list)) {
		if g, w := got.list[i], want.list[i]; g.Name != w.Name || g.Version != w.Version || !slices.Equal(g.Sources, w.Sources) {
			return fmt.Sprintf("%s %s %s %v, want %s %s %v", g.Type, g.Name, g.Body.Value, g.Sources, w.Name, w.Body.Value, w.Sources)
		}
	}
	return fmt.Sprintf("%d resources, want %d", len(got.list), len(want.list))
}

// oneHostADomain: Envoy refuses a table in which two hosts have a domain, or a name.
func oneHostADomain(t *testing.T, list []*resource.Resource) {
	t.Helper()
	for _, r := range list {
		table := &routev3.RouteConfiguration{}
		if r.Type != resource.RouteConfig || r.Body.UnmarshalTo(table) != nil {
			continue
		}
		seen := map[string]bool{}
		for _, v := range table.VirtualHosts {
			for _, d := range append(slices.Clone(v.Domains), "name "+v.Name) {
				if seen[d] {
					t.Fatalf("%s: %q twice", r.Name, d)
				}
				seen[d] = true
			}
		}
	}
}
