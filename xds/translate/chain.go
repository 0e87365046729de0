package translate

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/credence-mesh/credence/xds/compile"
	"github.com/credence-mesh/credence/xds/filter"
	"github.com/credence-mesh/credence/xds/ir"
	"github.com/credence-mesh/credence/xds/resource"
)

const (
	// blackHole is a cluster that does not exist: nothing is ever sent to it.
	blackHole = "BlackHoleCluster"
	// invalidBackend is another, in place of a backend that cannot be used; see package compile.
	invalidBackend = compile.InvalidBackend
	// xdsCluster is static in every bootstrap.
	xdsCluster = "credence_xds"
)

func (t *translator) chain(c *ir.Chain) (*listenerv3.FilterChain, error) {
	out := &listenerv3.FilterChain{Name: c.Name, FilterChainMatch: chainMatch(&c.Match), TransportSocketConnectTimeout: durationpb.New(handshakeTimeout)}
	var err error
	if out.TransportSocket, err = downstream(&c.TLS); err != nil {
		return nil, err
	}
	switch h := c.Handler.(type) {
	case *ir.HTTP:
		out.Filters, err = t.http(h)
	case *ir.TCP:
		out.Filters, err = t.tcp(h)
	default:
		out.Filters, err = closed()
	}
	return out, err
}

func chainMatch(m *ir.ChainMatch) *listenerv3.FilterChainMatch {
	if m.Port == 0 && len(m.ServerNames) == 0 && m.Transport == ir.AnyTransport && len(m.ALPN) == 0 {
		return nil
	}
	out := &listenerv3.FilterChainMatch{ServerNames: m.ServerNames, ApplicationProtocols: m.ALPN}
	if m.Port != 0 {
		out.DestinationPort = wrapperspb.UInt32(m.Port)
	}
	switch m.Transport {
	case ir.TransportTLS:
		out.TransportProtocol = "tls"
	case ir.TransportRaw:
		out.TransportProtocol = "raw_buffer"
	case ir.AnyTransport:
	}
	return out
}

// closed refuses every connection.
func closed() ([]*listenerv3.Filter, error) {
	everything := &rbacconfigv3.Policy{
		Permissions: []*rbacconfigv3.Permission{{Rule: &rbacconfigv3.Permission_Any{Any: true}}},
		Principals:  []*rbacconfigv3.Principal{{Identifier: &rbacconfigv3.Principal_Any{Any: true}}},
	}
	refuse, err := network("envoy.filters.network.rbac", &netrbacv3.RBAC{
		StatPrefix: "closed.", Rules: &rbacconfigv3.RBAC{Action: rbacconfigv3.RBAC_DENY, Policies: map[string]*rbacconfigv3.Policy{"credence-closed": everything}},
	})
	if err != nil {
		return nil, err
	}
	proxy, err := network("envoy.filters.network.tcp_proxy", &tcpproxyv3.TcpProxy{StatPrefix: blackHole, ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: blackHole}})
	return []*listenerv3.Filter{refuse, proxy}, err
}

func network(name string, m proto.Message) (*listenerv3.Filter, error) {
	config, err := pack(m)
	return &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: config}}, err
}

// tcp forwards bytes, behind the network filters that guard them.
func (t *translator) tcp(h *ir.TCP) ([]*listenerv3.Filter, error) {
	out, extensions, err := filter.TCPChain(h)
	if err != nil {
		return nil, err
	}
	for _, e := range extensions {
		if err := t.extension(e); err != nil {
			return nil, err
		}
	}
	proxy := &tcpproxyv3.TcpProxy{StatPrefix: h.Name}
	switch len(h.To) {
	case 0:
		proxy.ClusterSpecifier = &tcpproxyv3.TcpProxy_Cluster{Cluster: blackHole}
	case 1:
		proxy.ClusterSpecifier = &tcpproxyv3.TcpProxy_Cluster{Cluster: h.To[0].Cluster}
	default:
		w := &tcpproxyv3.TcpProxy_WeightedCluster{}
		for _, to := range h.To {
			w.Clusters = append(w.Clusters, &tcpproxyv3.TcpProxy_WeightedCluster_ClusterWeight{Name: to.Cluster, Weight: to.Weight})
		}
		proxy.ClusterSpecifier = &tcpproxyv3.TcpProxy_WeightedClusters{WeightedClusters: w}
	}
	if proxy.AccessLog, err = accessLog(t.part.AccessLog); err != nil {
		return nil, err
	}
	f, err := network("envoy.filters.network.tcp_proxy", proxy)
	return append(out, f), err
}

// http is a connection manager; its filters' configurations become resources of their own.
func (t *translator) http(h *ir.HTTP) ([]*listenerv3.Filter, error) {
	filters, extensions, err := filter.Chain(h)
	if err != nil {
		return nil, err
	}
	for _, e := range extensions {
		if err := t.extension(e); err != nil {
			return nil, err
		}
	}
	manager, err := connectionManager(h)
	if err != nil {
		return nil, err
	}
	manager.HttpFilters = filters
	if manager.AccessLog, err = accessLog(t.part.AccessLog); err != nil {
		return nil, err
	}
	f, err := network("envoy.filters.network.http_connection_manager", manager)
	return []*listenerv3.Filter{f}, err
}

// extension adds the configuration of a slot. Two chains may share a connection manager by name: then they must say the same.
func (t *translator) extension(e filter.Extension) error {
	config, err := pack(e.Config)
	if err != nil {
		return fmt.Errorf("extension %s: %w", e.Name, err)
	}
	for _, have := range t.out.Extensions {
		if have.Name == e.Name {
			if !proto.Equal(have.TypedConfig, config) {
				return fmt.Errorf("extension %s: two configurations", e.Name)
			}
			return nil
		}
	}
	t.out.Extensions = append(t.out.Extensions, &corev3.TypedExtensionConfig{Name: e.Name, TypedConfig: config})
	t.from(resource.ExtensionConfig, e.Name, e.Sources)
	return nil
}
