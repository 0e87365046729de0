package translate

import (
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	originaldstv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/original_dst/v3"
	proxyprotocolv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/proxy_protocol/v3"
	tlsinspectorv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/listener/tls_inspector/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/credence-mesh/credence/xds/ir"
	"github.com/credence-mesh/credence/xds/resource"
)

const (
	// bufferLimit bytes a connection, as Envoy's advice for edge proxies has it.
	bufferLimit = 32 << 10
	// inspectTimeout bounds how long a connection may take to say whether it is TLS.
	inspectTimeout = 15 // seconds
)

func (t *translator) listener(l *ir.Listener) error {
	out := &listenerv3.Listener{
		Name: l.Name, Address: address(l.Address, l.Port), TrafficDirection: direction(l.Direction),
		PerConnectionBufferLimitBytes: wrapperspb.UInt32(bufferLimit),
	}
	if l.Capture == ir.Bind && l.Direction != ir.Edge {
		// Two proxies of one host that are given the same port: the second is told so. With SO_REUSEPORT, Envoy's default, each would get
		// half of the connections, and an application's requests would leave under the identity of another.
		out.EnableReusePort = wrapperspb.Bool(false)
	}
	switch l.Capture {
	case ir.Redirect:
		out.UseOriginalDst = wrapperspb.Bool(l.Direction == ir.Outbound)
	case ir.Handoff:
		out.BindToPort = wrapperspb.Bool(false)
	case ir.Bind: // as Envoy does by itself
	}
	filters, err := listenerFilters(l)
	if err != nil {
		return err
	}
	out.ListenerFilters = filters
	if len(filters) > 0 {
		out.ListenerFiltersTimeout = durationpb.New(inspectTimeout * 1e9)
	}
	for i := range l.Chains {
		c, err := t.chain(&l.Chains[i])
		if err != nil {
			return fmt.Errorf("chain %s: %w", l.Chains[i].Name, err)
		}
		out.FilterChains = append(out.FilterChains, c)
	}
	t.out.Listeners = append(t.out.Listeners, out)
	t.from(resource.Listener, l.Name, l.Sources)
	return nil
}

func direction(d ir.Direction) corev3.TrafficDirection {
	if d == ir.Inbound {
		return corev3.TrafficDirection_INBOUND
	}
	return corev3.TrafficDirection_OUTBOUND
}

// listenerFilters is what must be known of a connection before its chain is chosen.
func listenerFilters(l *ir.Listener) ([]*listenerv3.ListenerFilter, error) {
	var out []*listenerv3.ListenerFilter
	add := func(name string, m proto.Message) error {
		config, err := pack(m)
		out = append(out, &listenerv3.ListenerFilter{Name: name, ConfigType: &listenerv3.ListenerFilter_TypedConfig{TypedConfig: config}})
		return err
	}
	if l.Capture == ir.Redirect {
		if err := add("envoy.filters.listener.original_dst", &originaldstv3.OriginalDst{}); err != nil {
			return nil, err
		}
	}
	if l.ProxyProtocol {
		if err := add("envoy.filters.listener.proxy_protocol", &proxyprotocolv3.ProxyProtocol{}); err != nil {
			return nil, err
		}
	}
	if inspects(l) {
		if err := add("envoy.filters.listener.tls_inspector", &tlsinspectorv3.TlsInspector{}); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// inspects: every listener that takes TLS is inspected, so that rules about the server name (connection.sni) see one on each of them.
func inspects(l *ir.Listener) bool {
	for i := range l.Chains {
		if l.Chains[i].TLS.Mode != ir.Plaintext {
			return true
		}
		if m := &l.Chains[i].Match; m.Transport != ir.AnyTransport || len(m.ServerNames) > 0 || len(m.ALPN) > 0 {
			return true
		}
	}
	return false
}

// address is a socket, or a Unix socket where the address is a path ("@" begins an abstract name).
func address(a string, port uint32) *corev3.Address {
	if strings.HasPrefix(a, "/") || strings.HasPrefix(a, "@") {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: a}}}
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: a, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}
