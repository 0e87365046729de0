package explain_test

import (
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpoptionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/internal/offline"
	"github.com/credence-mesh/credence/policy/explain"
	"github.com/credence-mesh/credence/policy/opa"
	"github.com/credence-mesh/credence/xds/resource"
)

// decisions is the decision service, for Envoy and for explain.
type decisions struct {
	authv3.AuthorizationServer
	addr string
}

func startDecisions(t *testing.T) *decisions {
	t.Helper()
	s, err := opa.New(opa.Options{Timeout: envoytest.Patience}, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if p := s.Update(drawn{}.set()); len(p) > 0 {
		t.Fatal(p)
	}
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server := grpc.NewServer()
	authv3.RegisterAuthorizationServer(server, s.Local())
	done := make(chan error, 1)
	go func() { done <- server.Serve(l) }()
	t.Cleanup(func() {
		server.Stop()
		<-done
	})
	return &decisions{AuthorizationServer: s.Local(), addr: l.Addr().String()}
}

func addrPort(a netip.Addr) netip.AddrPort { return netip.AddrPortFrom(a, 0) }

// newField builds every set as the product does and puts all on one Envoy: what would come over ADS is inline, secrets are static, and every
// route answers by itself with what was decided on.
func newField(t *testing.T, ca *envoytest.CA, d *decisions, sets []drawn) *field {
	t.Helper()
	f := &field{ca: ca, sets: sets, decisions: d, pairs: map[string]envoytest.Pair{}}
	for _, p := range peers {
		f.pairs[p] = ca.Issue(t, p)
	}
	out := &bootstrapv3.Bootstrap{
		Node:            &corev3.Node{Id: "a/w~0", Cluster: "w.a"},
		StaticResources: &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{services(t, d.addr)}, Secrets: secrets(t, ca)},
	}
	for i, s := range sets {
		m, _, err := offline.New(s.set(), "")
		if err != nil {
			t.Fatal(err)
		}
		w, _ := m.Set().Workload("a", "w")
		resources, err := m.Resources(w)
		if err != nil {
			t.Fatalf("%v\n%s", err, difference{set: s})
		}
		c, err := explain.Read(resources)
		if err != nil {
			t.Fatal(err)
		}
		f.meshes, f.configs = append(f.meshes, m), append(f.configs, c)
		out.StaticResources.Listeners = append(out.StaticResources.Listeners, inline(t, resources, fmt.Sprintf("l%d", i)))
	}
	e := envoytest.Start(t, envoytest.JSON(t, out), envoytest.Options{LogLevel: "error"})
	for i := range sets {
		f.addrs = append(f.addrs, e.Listener(t, fmt.Sprintf("l%d", i)))
	}
	return f
}

// inline is the listener with everything that it refers to.
func inline(t *testing.T, resources []*resource.Resource, name string) *listenerv3.Listener {
	t.Helper()
	extensions := map[string]*anypb.Any{}
	var listener *listenerv3.Listener
	for _, r := range resources {
		m, err := r.Body.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *corev3.TypedExtensionConfig:
			extensions[m.Name] = patient(t, m.TypedConfig)
		case *listenerv3.Listener:
			listener = m
		}
	}
	listener.Name = name
	listener.Address.GetSocketAddress().Address = "127.0.0.2" // a gateway would take every address
	listener.Address.GetSocketAddress().PortSpecifier = &corev3.SocketAddress_PortValue{}
	for _, c := range listener.FilterChains {
		fixSocket(t, c.TransportSocket)
		for _, f := range c.Filters {
			m := &hcmv3.HttpConnectionManager{}
			if f.GetTypedConfig().UnmarshalTo(m) != nil {
				continue
			}
			fixManager(m, extensions)
			f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, m)}
		}
	}
	return listener
}

// patient gives a decision all the time that it needs: what a busy machine makes of a time limit is not what is compared here.
func patient(t *testing.T, a *anypb.Any) *anypb.Any {
	t.Helper()
	m := &extauthzv3.ExtAuthz{}
	if !a.MessageIs(m) {
		return a
	}
	if err := a.UnmarshalTo(m); err != nil {
		t.Fatal(err)
	}
	m.GetGrpcService().Timeout = durationpb.New(envoytest.Patience)
	return pack(t, m)
}

func fixManager(m *hcmv3.HttpConnectionManager, extensions map[string]*anypb.Any) {
	for _, h := range m.HttpFilters {
		if e := extensions[h.Name]; e != nil {
			h.ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: e}
		}
	}
	m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{{
		Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
			Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
			Action: &routev3.Route_DirectResponse{DirectResponse: &routev3.DirectResponseAction{Status: 200}},
		}},
	}}}}
	if m.LocalReplyConfig == nil {
		m.LocalReplyConfig = &hcmv3.LocalReplyConfig{}
	}
	m.LocalReplyConfig.BodyFormat = &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_TextFormatSource{
		TextFormatSource: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: "%RESPONSE_CODE_DETAILS% %REQ(:PATH)%"}},
	}}
}

// fixSocket makes a transport socket take its secrets from the bootstrap.
func fixSocket(t *testing.T, s *corev3.TransportSocket) {
	t.Helper()
	m := &tlsv3.DownstreamTlsContext{}
	if s == nil || s.GetTypedConfig().UnmarshalTo(m) != nil {
		return
	}
	all := slices.Clone(m.CommonTlsContext.TlsCertificateSdsSecretConfigs)
	for _, c := range append(all, m.CommonTlsContext.GetCombinedValidationContext().GetValidationContextSdsSecretConfig()) {
		c.SdsConfig = nil
	}
	s.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: pack(t, m)}
}

func secrets(t *testing.T, ca *envoytest.CA) []*tlsv3.Secret {
	t.Helper()
	pair := ca.Issue(t, "spiffe://cluster.local/ns/a/sa/w")
	data := func(b []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
	}
	return []*tlsv3.Secret{
		{Name: "default", Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: data(pair.Cert), PrivateKey: data(pair.Key)}}},
		{Name: "ROOTCA", Type: &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: data(ca.Bundle())}}},
	}
}

func services(t *testing.T, addr string) *clusterv3.Cluster {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return &clusterv3.Cluster{
		Name: "credence_services",
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: "credence_services", Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: &corev3.Address{Address: &corev3.Address_SocketAddress{
				SocketAddress: &corev3.SocketAddress{Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(n)}},
			}}}},
		}}}}},
		TypedExtensionProtocolOptions: map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(t, &httpoptionsv3.HttpProtocolOptions{
			UpstreamProtocolOptions: &httpoptionsv3.HttpProtocolOptions_ExplicitHttpConfig_{ExplicitHttpConfig: &httpoptionsv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpoptionsv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{}},
			}},
		})},
	}
}

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := resource.Pack(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}
