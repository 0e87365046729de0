package explain

import (
	"fmt"
	"net/netip"
	"slices"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	netauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// connect finds the listener and the filter chain, and takes the connection through them.
func (r *run) connect() {
	l, captured := r.config.listener(r.req.Port)
	if l == nil {
		r.deny("listener", 0, fmt.Sprintf("the proxy has no listener for port %d", r.req.Port))
		return
	}
	r.conn = connection{direct: r.req.SourceIP, remote: r.req.SourceIP, localPort: r.req.Port}
	if a, err := netip.ParseAddr(l.GetAddress().GetSocketAddress().GetAddress()); err == nil && !captured && !a.IsUnspecified() {
		r.conn.local = a
	}
	r.pass("listener", l.GetName())
	for _, f := range l.GetListenerFilters() {
		if f.GetName() == "envoy.filters.listener.tls_inspector" && r.req.Transport != Plaintext {
			r.conn.sni = r.req.ServerName // rules see the name that the inspector saw; without one they see none
		}
		if f.GetName() == "envoy.filters.listener.proxy_protocol" {
			r.note("listener", "every connection must begin with a PROXY protocol header; source-ip is taken as the address in it")
		}
	}
	chain := chosen(l, r.req)
	if chain == nil {
		says := "no filter chain takes a plaintext connection"
		if r.req.Transport != Plaintext {
			says = "no filter chain takes this TLS connection"
		}
		r.deny("tls", 0, says)
		return
	}
	r.conn.chain = chain.GetName()
	if r.closed(chain) {
		r.deny("listener", 0, "the port is closed, because something that it needs is missing or not valid; credence validate says what")
		return
	}
	if r.handshake(chain); !r.done {
		r.network(chain)
	}
}

// listener finds who serves a port: a listener that is bound to it, or the one to which iptables hands connections over.
func (c *Config) listener(port uint32) (found *listenerv3.Listener, captured bool) {
	for _, l := range c.listeners {
		if l.GetAddress().GetSocketAddress().GetPortValue() == port && (l.GetBindToPort() == nil || l.GetBindToPort().GetValue()) {
			return l, false
		}
	}
	for _, l := range c.listeners {
		for _, f := range l.GetFilterChains() {
			if f.GetFilterChainMatch().GetDestinationPort().GetValue() == port && port != 0 {
				return l, true
			}
		}
	}
	return nil, false
}

// chosen follows Envoy's order: destination port, server name, transport, application protocol; at each the most specific that fits.
func chosen(l *listenerv3.Listener, req Request) *listenerv3.FilterChain {
	chains := l.GetFilterChains()
	for _, c := range chains {
		m := c.GetFilterChainMatch()
		if len(m.GetPrefixRanges())+len(m.GetSourcePrefixRanges())+len(m.GetSourcePorts())+len(m.GetDirectSourcePrefixRanges()) > 0 {
			return nil
		}
	}
	chains = narrowed(chains, func(m *listenerv3.FilterChainMatch) bool { return m.GetDestinationPort().GetValue() == req.Port },
		func(m *listenerv3.FilterChainMatch) bool { return m.GetDestinationPort() == nil })
	var names []func(*listenerv3.FilterChainMatch) bool
	if req.Transport != Plaintext && req.ServerName != "" {
		for _, n := range serverNames(strings.ToLower(req.ServerName)) {
			names = append(names, func(m *listenerv3.FilterChainMatch) bool { return slices.Contains(m.GetServerNames(), n) })
		}
	}
	chains = narrowed(chains, append(names, func(m *listenerv3.FilterChainMatch) bool { return len(m.GetServerNames()) == 0 })...)
	transport := "tls"
	if req.Transport == Plaintext {
		transport = "raw_buffer"
	}
	chains = narrowed(chains, func(m *listenerv3.FilterChainMatch) bool { return m.GetTransportProtocol() == transport },
		func(m *listenerv3.FilterChainMatch) bool { return m.GetTransportProtocol() == "" })
	chains = narrowed(chains, func(m *listenerv3.FilterChainMatch) bool {
		return req.Transport != Plaintext && slices.Contains(m.GetApplicationProtocols(), "http/1.1")
	}, func(m *listenerv3.FilterChainMatch) bool { return len(m.GetApplicationProtocols()) == 0 })
	if len(chains) == 0 {
		return l.GetDefaultFilterChain()
	}
	return chains[0]
}

// narrowed keeps the chains of the first condition that any fits.
func narrowed(chains []*listenerv3.FilterChain, conditions ...func(*listenerv3.FilterChainMatch) bool) []*listenerv3.FilterChain {
	for _, fits := range conditions {
		var out []*listenerv3.FilterChain
		for _, c := range chains {
			if fits(c.GetFilterChainMatch()) {
				out = append(out, c)
			}
		}
		if len(out) > 0 {
			return out
		}
	}
	return nil
}

// serverNames is a name and the wildcards that cover it, the longest first.
func serverNames(name string) []string {
	out := []string{name}
	for {
		_, rest, ok := strings.Cut(name, ".")
		if !ok {
			return out
		}
		out = append(out, "*."+rest)
		name = rest
	}
}

// handshake is what TLS demands of the client.
func (r *run) handshake(chain *listenerv3.FilterChain) {
	s := chain.GetTransportSocket()
	if s == nil || s.GetName() == "envoy.transport_sockets.raw_buffer" {
		if r.req.Transport != Plaintext {
			r.deny("tls", 0, "the port takes plaintext alone; a TLS connection is not understood")
			return
		}
		r.pass("tls", "plaintext is accepted; the caller has no identity")
		return
	}
	m, err := r.config.unpack(s.GetTypedConfig())
	context, ok := m.(*tlsv3.DownstreamTlsContext)
	if err != nil || !ok {
		r.unsure("tls", "transport socket "+s.GetName()+" cannot be evaluated here")
		return
	}
	r.conn.tls = true
	required := context.GetRequireClientCertificate().GetValue()
	switch {
	case r.req.Transport == Plaintext:
		r.deny("tls", 0, "the port demands TLS; a plaintext connection is closed")
	case required && r.req.Transport != MutualTLS:
		r.deny("tls", 0, "the port demands a client certificate")
	case !required:
		r.pass("tls", "TLS; no client certificate is asked for")
	default:
		r.verifyPeer(context.GetCommonTlsContext())
	}
}

// closed tells whether a chain is one that refuses every connection, whoever it is from.
func (r *run) closed(chain *listenerv3.FilterChain) bool {
	for _, f := range chain.GetFilters() {
		m, err := r.config.unpack(f.GetTypedConfig())
		if rules, ok := m.(*netrbacv3.RBAC); err == nil && ok && rules.GetRules().GetPolicies()["credence-closed"] != nil {
			return true
		}
	}
	return false
}

func (r *run) verifyPeer(c *tlsv3.CommonTlsContext) {
	v := c.GetCombinedValidationContext().GetDefaultValidationContext()
	if v == nil {
		v = c.GetValidationContext()
	}
	names := v.GetMatchTypedSubjectAltNames()
	a := some(names, func(m *tlsv3.SubjectAltNameMatcher) answer {
		if m.GetSanType() != tlsv3.SubjectAltNameMatcher_URI {
			return no
		}
		return r.config.remembered.text(m.GetMatcher(), r.req.Peer)
	})
	if len(names) == 0 {
		a = yes
	}
	var accepted []string
	for _, m := range names {
		accepted = append(accepted, shown(m.GetMatcher()))
	}
	switch a {
	case yes:
		r.conn.peer = r.req.Peer
		r.pass("tls", "mutual TLS; the caller is "+r.req.Peer)
	case no:
		r.deny("tls", 0, fmt.Sprintf("the caller is %s, and only %s may connect", r.req.Peer, strings.Join(accepted, ", ")))
	default:
		r.unsure("tls", "the names of peers are matched in a way that cannot be evaluated here")
	}
}

// network takes the connection through the network filters.
func (r *run) network(chain *listenerv3.FilterChain) {
	for _, f := range chain.GetFilters() {
		if r.done {
			return
		}
		m, err := r.config.unpack(f.GetTypedConfig())
		if f.GetConfigDiscovery() != nil {
			m, err = r.config.extensions[f.GetName()].config, nil
		}
		if err != nil || m == nil {
			r.unsure(f.GetName(), "has no configuration that can be read here")
			continue
		}
		switch m := m.(type) {
		case *hcmv3.HttpConnectionManager:
			r.http(m)
			return
		case *netrbacv3.RBAC:
			r.networkRules(m)
		case *netauthzv3.ExtAuthz:
			if r.marked(m.GetFilterEnabledMetadata()) == no {
				r.skip("custom", "no CUSTOM rule matches")
			} else {
				r.unsure("custom", "connections are decided by "+m.GetGrpcService().GetEnvoyGrpc().GetClusterName()+", which is not asked here")
			}
		case *tcpproxyv3.TcpProxy:
			r.allowed(0, "the connection is forwarded to "+m.GetCluster())
			r.pass("forward", "bytes go to "+m.GetCluster())
		default:
			r.unsure(f.GetName(), "not evaluated: a filter that Credence does not make")
		}
	}
	if !r.done {
		r.deny("forward", 0, "no filter of the chain ends the connection")
	}
}

func (r *run) networkRules(m *netrbacv3.RBAC) {
	r.headers = &headers{}
	name := map[rbacconfigv3.RBAC_Action]string{rbacconfigv3.RBAC_ALLOW: "allow", rbacconfigv3.RBAC_DENY: "deny", rbacconfigv3.RBAC_LOG: "custom"}[m.GetRules().GetAction()]
	r.shadow(name, m.GetShadowRules(), m.GetShadowRulesStatPrefix(), "envoy.filters.network.rbac")
	if m.GetMatcher() != nil {
		r.unsure(name, "rules in a matcher tree cannot be evaluated here")
		return
	}
	if m.GetRules() != nil {
		r.authorization(name, m.GetRules(), 0)
	}
}

// marked asks a metadata matcher; none is yes.
func (r *run) marked(m *matcherv3.MetadataMatcher) answer {
	if m == nil {
		return yes
	}
	return dynamic(m).ask(r)
}
