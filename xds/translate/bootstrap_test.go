package translate_test

import (
	"maps"
	"slices"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/xds/resource"
)

// bootstrap makes a static configuration of what one proxy gets by xDS, so that Envoy reads all of it at once.
func bootstrap(t testing.TB, resources []*resource.Resource) []byte {
	t.Helper()
	return bootstrapAs(t, resources, envoytest.NewCA(t, "golden"), "spiffe://cluster.local/ns/n/sa/s")
}

// bootstrapAs is bootstrap for a proxy with an identity of a certain authority.
func bootstrapAs(t testing.TB, resources []*resource.Resource, ca *envoytest.CA, uri string) []byte {
	t.Helper()
	in := inliner{t: t, ca: ca, uri: uri, wanted: map[string]bool{}, extensions: map[string]*corev3.TypedExtensionConfig{}, tables: map[string]*routev3.RouteConfiguration{}, endpoints: map[string]*endpointv3.ClusterLoadAssignment{}}
	out := &bootstrapv3.Bootstrap{
		Node:             &corev3.Node{Id: "ns/name~0", Cluster: "name.ns"},
		DynamicResources: &bootstrapv3.Bootstrap_DynamicResources{AdsConfig: &corev3.ApiConfigSource{ApiType: corev3.ApiConfigSource_DELTA_GRPC, TransportApiVersion: corev3.ApiVersion_V3, GrpcServices: []*corev3.GrpcService{{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: "credence_xds"}}}}}},
		StaticResources:  &bootstrapv3.Bootstrap_StaticResources{Clusters: []*clusterv3.Cluster{{Name: "credence_xds"}, {Name: "credence_services"}}},
	}
	for _, r := range resources {
		m, err := r.Body.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *corev3.TypedExtensionConfig:
			in.extensions[m.Name] = m
		case *routev3.RouteConfiguration:
			in.tables[m.Name] = m
		case *endpointv3.ClusterLoadAssignment:
			in.endpoints[m.ClusterName] = m
		}
	}
	for _, r := range resources {
		m, err := r.Body.UnmarshalNew()
		if err != nil {
			t.Fatal(err)
		}
		switch m := m.(type) {
		case *listenerv3.Listener:
			for _, c := range m.FilterChains {
				in.socket(c.TransportSocket)
			}
			in.listener(m)
			out.StaticResources.Listeners = append(out.StaticResources.Listeners, m)
		case *clusterv3.Cluster:
			if m.GetType() == clusterv3.Cluster_EDS {
				m.ClusterDiscoveryType, m.EdsClusterConfig, m.LoadAssignment = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC}, nil, in.endpoints[m.Name]
			}
			in.socket(m.TransportSocket)
			out.StaticResources.Clusters = append(out.StaticResources.Clusters, m)
		}
	}
	out.StaticResources.Secrets = in.secrets()
	return envoytest.JSON(t, out)
}

// secrets is a real certificate for every secret that is referred to.
func (in *inliner) secrets() []*tlsv3.Secret {
	in.t.Helper()
	pair := in.ca.Issue(in.t, in.uri)
	inline := func(b []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
	}
	var out []*tlsv3.Secret
	for _, name := range slices.Sorted(maps.Keys(in.wanted)) {
		s := &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline(pair.Cert), PrivateKey: inline(pair.Key)}}}
		if name == "ROOTCA" {
			s.Type = &tlsv3.Secret_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(in.ca.Bundle())}}
		}
		out = append(out, s)
	}
	return out
}

// socket makes a transport socket take its secrets from the bootstrap: Envoy crashes in validation where they come over ADS.
func (in *inliner) socket(s *corev3.TransportSocket) {
	in.t.Helper()
	if s.GetTypedConfig() == nil {
		return
	}
	m, err := s.GetTypedConfig().UnmarshalNew()
	if err != nil {
		in.t.Fatal(err)
	}
	var common *tlsv3.CommonTlsContext
	switch m := m.(type) {
	case *tlsv3.DownstreamTlsContext:
		common = m.CommonTlsContext
	case *tlsv3.UpstreamTlsContext:
		common = m.CommonTlsContext
	default:
		return
	}
	all := common.TlsCertificateSdsSecretConfigs
	if c := common.GetCombinedValidationContext(); c != nil {
		all = append(slices.Clone(all), c.ValidationContextSdsSecretConfig)
	}
	for _, c := range all {
		in.wanted[c.Name] = true
		c.SdsConfig = nil
	}
	s.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: packed(in.t, m)}
}

// inliner puts what a listener refers to into the listener.
type inliner struct {
	t          testing.TB
	ca         *envoytest.CA
	uri        string
	wanted     map[string]bool // names of secrets
	extensions map[string]*corev3.TypedExtensionConfig
	tables     map[string]*routev3.RouteConfiguration
	endpoints  map[string]*endpointv3.ClusterLoadAssignment
}

func (in *inliner) listener(l *listenerv3.Listener) {
	in.t.Helper()
	for _, c := range l.FilterChains {
		for _, f := range c.Filters {
			m := &hcmv3.HttpConnectionManager{}
			if f.GetTypedConfig() == nil || !f.GetTypedConfig().MessageIs(m) {
				continue
			}
			if err := f.GetTypedConfig().UnmarshalTo(m); err != nil {
				in.t.Fatal(err)
			}
			in.manager(m)
			f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed(in.t, m)}
		}
	}
}

func (in *inliner) manager(m *hcmv3.HttpConnectionManager) {
	in.t.Helper()
	table := in.tables[m.GetRds().GetRouteConfigName()]
	if table == nil {
		in.t.Fatalf("no route table %q", m.GetRds().GetRouteConfigName())
	}
	m.RouteSpecifier = &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: table}
	for _, h := range m.HttpFilters {
		if h.GetConfigDiscovery() == nil {
			continue
		}
		e := in.extensions[h.Name]
		if e == nil {
			in.t.Fatalf("no extension %q", h.Name)
		}
		h.ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: e.TypedConfig}
	}
}

func packed(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	out, err := resource.Pack(m)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
