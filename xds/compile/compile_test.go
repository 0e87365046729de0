package compile

import (
	"slices"
	"strings"
	"testing"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	securityv1beta1 "istio.io/api/security/v1beta1"
	corev1 "k8s.io/api/core/v1"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/ir"
)

func object(kind policy.Kind, namespace, name string) policy.Object {
	return policy.Object{Key: policy.Key{Kind: kind, Namespace: namespace, Name: name}}
}

func workload(name, account string, labels map[string]string) *policy.WorkloadEntry {
	return &policy.WorkloadEntry{Object: object(policy.KindWorkloadEntry, "shop", name), Spec: &networkingv1alpha3.WorkloadEntry{
		Address: "127.0.1." + name, ServiceAccount: account, Labels: labels,
	}}
}

func serviceOf(namespace, name string, ports ...int32) *policy.Service {
	s := &policy.Service{Object: object(policy.KindService, namespace, name), Spec: &corev1.ServiceSpec{Selector: map[string]string{"app": name}}}
	for _, p := range ports {
		s.Spec.Ports = append(s.Spec.Ports, corev1.ServicePort{Name: "http-" + decimal(uint32(p)), Port: p})
	}
	return s
}

func setOf(objects ...policy.Resource) *policy.Set {
	return policy.NewSet(policy.DefaultMesh()).Apply(objects, nil)
}

func egressOf(t *testing.T, set *policy.Set, redirect bool) *ir.Part {
	t.Helper()
	k := PartKey{Kind: OutboundPart, Namespace: "shop", Redirect: redirect}
	if !redirect {
		k.EgressPort = DefaultEgressPort
	}
	part, problems := New().Build(set, k)
	if part == nil || len(problems) > 0 {
		t.Fatal(part, problems)
	}
	return part
}

// hostsOf is the virtual host that serves each domain of a table.
func hostsOf(t *testing.T, p *ir.Part, table string) map[string]string {
	t.Helper()
	i := slices.IndexFunc(p.Routes, func(r ir.RouteTable) bool { return r.Name == table })
	if i < 0 {
		t.Fatalf("no table %s", table)
	}
	out := map[string]string{}
	for _, h := range p.Routes[i].Hosts {
		for _, d := range h.Domains {
			out[d] = h.Name
		}
	}
	return out
}

// TestBareName: a name without a port is port 80 where the Service has it as HTTP, else its first HTTP port; and no ServiceEntry takes it.
func TestBareName(t *testing.T) {
	t.Parallel()
	squatter := &policy.ServiceEntry{Object: object(policy.KindServiceEntry, "aaa", "squatter"), Spec: &networkingv1alpha3.ServiceEntry{
		Hosts: []string{"orders.shop", "free.example.com"}, Resolution: networkingv1alpha3.ServiceEntry_DNS,
		Ports: []*networkingv1alpha3.ServicePort{{Number: 9000, Name: "http", Protocol: "HTTP"}},
	}}
	bytes := serviceOf("shop", "bytes", 8080)
	bytes.Spec.Ports = append([]corev1.ServicePort{{Name: "tcp", Port: 80}}, bytes.Spec.Ports...)
	part := egressOf(t, setOf(serviceOf("shop", "orders", 8080, 80), serviceOf("other", "late", 9090, 8080), bytes, squatter), false)
	hosts := hostsOf(t, part, egressTable)
	for domain, want := range map[string]string{
		"orders":                             "orders.shop.svc.cluster.local:80",
		"orders.shop":                        "orders.shop.svc.cluster.local:80",
		"orders.shop:8080":                   "orders.shop.svc.cluster.local:8080",
		"orders.shop.svc.cluster.local":      "orders.shop.svc.cluster.local:80",
		"orders.shop:9000":                   "orders.shop:9000",
		"late.other":                         "late.other.svc.cluster.local:9090",
		"late":                               "",
		"bytes":                              "bytes.shop.svc.cluster.local:8080",
		"bytes:80":                           "",
		"free.example.com":                   "free.example.com:9000",
		"*":                                  "block_all",
		"late.other.svc.cluster.local:8080":  "late.other.svc.cluster.local:8080",
		"orders.shop.svc.cluster.local:9000": "",
	} {
		if hosts[domain] != want {
			t.Errorf("%s is served by %q, want %q", domain, hosts[domain], want)
		}
	}
}

// TestUnknownHosts: what no service names is refused, unless a Sidecar says ALLOW_ANY and connections are captured.
func TestUnknownHosts(t *testing.T) {
	t.Parallel()
	anywhere := &policy.Sidecar{Object: object(policy.KindSidecar, "shop", "s"), Spec: &networkingv1alpha3.Sidecar{
		OutboundTrafficPolicy: &networkingv1alpha3.OutboundTrafficPolicy{Mode: networkingv1alpha3.OutboundTrafficPolicy_ALLOW_ANY},
	}}
	void := &policy.Sidecar{Object: object(policy.KindSidecar, "shop", "s")}
	void.Void = true
	for _, c := range []struct {
		name     string
		sidecar  policy.Resource
		redirect bool
		table    string
		want     string // host of "*"; empty: no table, because there is no service
		through  bool   // captured bytes to nowhere known
	}{
		{name: "no Sidecar", redirect: true, table: "80", want: "block_all"},
		{name: "ALLOW_ANY, captured", sidecar: anywhere, redirect: true, table: "80", want: "allow_any", through: true},
		{name: "ALLOW_ANY, not captured", sidecar: anywhere, table: egressTable, want: "block_all"},
		{name: "void, not captured", sidecar: void, table: egressTable, want: "block_all"},
		{name: "void, captured", sidecar: void, redirect: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			objects := []policy.Resource{serviceOf("shop", "orders", 80)}
			if c.sidecar != nil {
				objects = append(objects, c.sidecar)
			}
			part := egressOf(t, setOf(objects...), c.redirect)
			if c.table != "" {
				if got := hostsOf(t, part, c.table)["*"]; got != c.want {
					t.Errorf("other hosts: %q, want %q", got, c.want)
				}
			} else if len(part.Routes) > 0 || len(part.Upstreams) > 0 {
				t.Errorf("a void Sidecar leaves something reachable: %+v", part)
			}
			through := slices.ContainsFunc(part.Clusters, func(c ir.Cluster) bool { return c.Name == passthroughCluster })
			if through != c.through {
				t.Errorf("pass-through: %v", through)
			}
		})
	}
}

// TestPinning: the other end of a connection is one of the service accounts behind the port, and nobody else.
func TestPinning(t *testing.T) {
	t.Parallel()
	app, off := map[string]string{"app": "orders"}, map[string]string{"app": "orders", tlsModeLabel: "disabled"}
	disable := &policy.PeerAuthentication{Object: object(policy.KindPeerAuthentication, "shop", "p"), Spec: &securityv1beta1.PeerAuthentication{
		Mtls: &securityv1beta1.PeerAuthentication_MutualTLS{Mode: securityv1beta1.PeerAuthentication_MutualTLS_DISABLE},
	}}
	endpoints := &policy.Endpoints{Object: object(policy.KindEndpoints, "shop", "orders"), Subsets: []corev1.EndpointSubset{{
		Addresses: []corev1.EndpointAddress{{IP: "10.0.0.1"}, {IP: "127.0.1.1"}}, Ports: []corev1.EndpointPort{{Port: 80}},
	}}}
	for _, c := range []struct {
		name    string
		objects []policy.Resource
		mode    ir.UpstreamTLSMode
		mixed   bool
		peers   string
		members int
	}{
		{name: "nobody", mode: ir.UpstreamPlain},
		{name: "two accounts", objects: []policy.Resource{workload("1", "x", app), workload("2", "y", app), workload("3", "x", app)}, mode: ir.UpstreamMutual, peers: "x y", members: 3},
		{name: "one has no sidecar", objects: []policy.Resource{workload("1", "x", app), workload("2", "y", off)}, mode: ir.UpstreamMutual, mixed: true, peers: "x", members: 2},
		{name: "disabled", objects: []policy.Resource{workload("1", "x", app), disable}, mode: ir.UpstreamPlain, members: 1},
		{name: "endpoints alone", objects: []policy.Resource{endpoints}, mode: ir.UpstreamPlain, members: 2},
		{name: "an endpoint that is a workload", objects: []policy.Resource{workload("1", "x", app), endpoints}, mode: ir.UpstreamMutual, mixed: true, peers: "x", members: 2},
		{name: "an account that is no name", objects: []policy.Resource{workload("1", "x y", app)}, mode: ir.UpstreamMutual, members: 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			part := egressOf(t, setOf(append(c.objects, serviceOf("shop", "orders", 80))...), false)
			if len(part.Upstreams) != 1 {
				t.Fatalf("%d upstreams", len(part.Upstreams))
			}
			u := part.Upstreams[0]
			var peers []string
			for _, p := range u.Cluster.TLS.Peers {
				if id, ok := p.Exact(); ok {
					s := id.String()
					peers = append(peers, s[strings.LastIndexByte(s, '/')+1:])
				}
			}
			got := strings.Join(peers, " ")
			if u.Cluster.TLS.Mode != c.mode || u.Cluster.TLS.PerEndpoint != c.mixed || len(u.Members) != c.members || got != c.peers {
				t.Errorf("mode %v mixed %v peers %q members %d, want %+v", u.Cluster.TLS.Mode, u.Cluster.TLS.PerEndpoint, got, len(u.Members), c)
			}
		})
	}
}

// TestDefaultEndpoint: Sidecar.ingress says where the application is, and nothing that would loop or leave the host is believed.
func TestDefaultEndpoint(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, says string
		address    string
		port       uint32
		refused    bool
	}{
		{name: "loopback", says: "127.0.0.1:9000", address: "127.0.0.1", port: 9000},
		{name: "own address", says: "0.0.0.0:9000", address: "127.0.1.1", port: 9000},
		{name: "socket", says: "unix:///run/app.sock", address: "/run/app.sock"},
		{name: "nothing", address: "127.0.0.1", port: 8080},
		{name: "itself", says: "0.0.0.0:8080", refused: true},
		{name: "another host", says: "10.1.1.1:9000", refused: true},
		{name: "no port", says: "127.0.0.1", refused: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			sidecar := &policy.Sidecar{Object: object(policy.KindSidecar, "shop", "s"), Spec: &networkingv1alpha3.Sidecar{
				Ingress: []*networkingv1alpha3.IstioIngressListener{{Port: &networkingv1alpha3.SidecarPort{Number: 8080, Name: "http", Protocol: "HTTP"}, DefaultEndpoint: c.says}},
			}}
			part, problems := New().Build(setOf(workload("1", "x", nil), sidecar), PartKey{Kind: InboundPart, Namespace: "shop", Name: "1"})
			if part == nil {
				t.Fatal("no part")
			}
			if c.refused {
				if len(problems) == 0 {
					t.Error("nothing is told")
				}
				for _, l := range part.Listeners {
					for _, chain := range l.Chains {
						if chain.Handler != nil {
							t.Errorf("%s has chain %s, which is open", l.Name, chain.Name)
						}
					}
				}
				return
			}
			if len(part.Clusters) != 1 || part.Clusters[0].Address != c.address || part.Clusters[0].Port != c.port {
				t.Errorf("forwards to %+v, want %s:%d (%v)", part.Clusters, c.address, c.port, problems)
			}
		})
	}
}
