package translate

import (
	"slices"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	jwtauthnv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"

	"github.com/credence-mesh/credence/xds/filter"
)

// trap refuses what Envoy accepts and reads as "let everything pass".
func (c *checker) trap(what string, m proto.Message) {
	switch m := m.(type) {
	case *rbacv3.RBAC:
		c.rules(what, m.Rules, m.Matcher != nil)
	case *netrbacv3.RBAC:
		c.rules(what, m.Rules, m.Matcher != nil)
	case *rbacv3.RBACPerRoute:
		if m.Rbac == nil {
			c.fail("%s: RBACPerRoute without rbac switches authorization off", what)
		} else {
			c.rules(what, m.Rbac.Rules, m.Rbac.Matcher != nil)
		}
	case *extauthzv3.ExtAuthz:
		if m.FailureModeAllow {
			c.fail("%s: failure_mode_allow lets requests pass when the decision service is down", what)
		}
	case *jwtauthnv3.JwtRequirement:
		if m.GetAllowMissingOrFailed() != nil {
			c.fail("%s: allow_missing_or_failed accepts forged tokens", what)
		}
	case *tlsv3.DownstreamTlsContext:
		c.clientCertificate(what, m)
	}
}

// rules: Envoy takes an RBAC without rules for "allow all", and one with an empty list of policies by its action.
func (c *checker) rules(what string, r *rbacconfigv3.RBAC, matcher bool) {
	if !matcher && (r == nil || len(r.Policies) == 0) {
		c.fail("%s: RBAC without a policy", what)
	}
}

// clientCertificate: a context that shows the workload's own identity must ask for the peer's, and say whose it accepts.
func (c *checker) clientCertificate(what string, m *tlsv3.DownstreamTlsContext) {
	own := slices.ContainsFunc(m.GetCommonTlsContext().GetTlsCertificateSdsSecretConfigs(), func(s *tlsv3.SdsSecretConfig) bool { return s.Name == ownSecret })
	if !own {
		return
	}
	combined := m.CommonTlsContext.GetCombinedValidationContext()
	if !m.GetRequireClientCertificate().GetValue() || combined.GetValidationContextSdsSecretConfig().GetName() != rootSecret ||
		len(combined.GetDefaultValidationContext().GetMatchTypedSubjectAltNames()) == 0 {
		c.fail("%s: a chain with the workload's identity does not demand one of its peers", what)
	}
}

func (c *checker) listeners() {
	for _, l := range c.r.Listeners {
		if len(l.FilterChains) == 0 && l.DefaultFilterChain == nil {
			c.fail("listener %s: no filter chain", l.Name)
		}
		names := map[string]bool{}
		chains := l.FilterChains
		if l.DefaultFilterChain != nil {
			chains = append(slices.Clone(chains), l.DefaultFilterChain)
		}
		for _, chain := range chains {
			if names[chain.Name] {
				c.fail("listener %s: two chains are called %q", l.Name, chain.Name)
			}
			names[chain.Name] = true
			if len(chain.Filters) == 0 {
				c.fail("listener %s: chain %s: no filter", l.Name, chain.Name)
			}
			for _, f := range chain.Filters {
				c.manager("listener "+l.Name+": chain "+chain.Name, l, f)
			}
			c.tcpSlots("listener "+l.Name+": chain "+chain.Name, l, chain.Filters)
		}
	}
}

// manager checks the HTTP filters of a connection manager: the router last, and every one found by its own name.
func (c *checker) manager(what string, l *listenerv3.Listener, f *listenerv3.Filter) {
	m := &hcmv3.HttpConnectionManager{}
	if f.GetTypedConfig() == nil || !f.GetTypedConfig().MessageIs(m) || f.GetTypedConfig().UnmarshalTo(m) != nil {
		return
	}
	if n := len(m.HttpFilters); n == 0 || m.HttpFilters[n-1].Name != filter.RouterName {
		c.fail("%s: the last HTTP filter is not the router", what)
	}
	table := m.GetRds().GetRouteConfigName()
	if m.GetRouteConfig() == nil && !c.tables[table] {
		c.fail("%s: route table %q does not exist", what, table)
	}
	have := map[string]bool{}
	for i, h := range m.HttpFilters {
		if have[h.Name] {
			c.fail("%s: two HTTP filters are called %q", what, h.Name)
		}
		have[h.Name] = true
		if h.Name == filter.RouterName && i != len(m.HttpFilters)-1 {
			c.fail("%s: the router is not the last HTTP filter", what)
		}
		if h.GetConfigDiscovery() != nil && !c.extensionNames[h.Name] {
			c.fail("%s: HTTP filter %q waits for an extension that does not exist", what, h.Name)
		}
	}
	c.slots(what, l, m)
	for name := range have {
		c.filters[table] = append(c.filters[table], name)
	}
}

// slots: a server-side connection manager has all guards, in order, and no way around them.
func (c *checker) slots(what string, l *listenerv3.Listener, m *hcmv3.HttpConnectionManager) {
	if c.r.Client {
		return
	}
	next, name := 0, ""
	order := []string{filter.SlotRefuse, filter.SlotStrip, filter.SlotJWT, filter.SlotCustom, filter.SlotExtAuthz, filter.SlotRBACDeny, filter.SlotRBACAllow}
	for _, h := range m.HttpFilters {
		if own, ok := strings.CutSuffix(h.Name, "/"+order[0]); ok && next == 0 {
			name = own
		}
		if next == len(order) || name == "" || h.Name != filter.ExtensionName(name, order[next]) {
			continue
		}
		next++
		if h.Disabled || h.IsOptional || h.GetConfigDiscovery() == nil || h.GetConfigDiscovery().DefaultConfig != nil {
			c.fail("%s: %s of %s may be without its configuration", what, h.Name, l.Name)
		}
	}
	for _, u := range m.UpgradeConfigs {
		if len(u.Filters) > 0 {
			c.fail("%s: upgrade %q of %s has filters in place of the guards", what, u.UpgradeType, l.Name)
		}
	}
	if next < len(order) {
		c.fail("%s: %s of %s is missing or out of order", what, order[next], l.Name)
	}
}

// ends tells whether a network filter is one whose guards are checked on their own.
func ends(f *listenerv3.Filter) bool {
	return f.GetTypedConfig() != nil && (f.GetTypedConfig().MessageIs(&hcmv3.HttpConnectionManager{}) || f.GetTypedConfig().MessageIs(&tcpproxyv3.TcpProxy{}))
}

// tcpSlots: a chain of a server that forwards bytes has all guards, in order, before it does.
func (c *checker) tcpSlots(what string, l *listenerv3.Listener, filters []*listenerv3.Filter) {
	order, next := filter.TCPSlots(), 0
	for _, f := range filters {
		if f.GetConfigDiscovery() != nil && !c.extensionNames[f.Name] {
			c.fail("%s: network filter %q waits for an extension that does not exist", what, f.Name)
		}
		proxy := &tcpproxyv3.TcpProxy{}
		switch {
		case next < len(order) && strings.HasSuffix(f.Name, "/"+order[next]) && f.GetConfigDiscovery() != nil:
			next++
		case c.r.Client || f.GetTypedConfig() == nil || !f.GetTypedConfig().MessageIs(proxy):
		case f.GetTypedConfig().UnmarshalTo(proxy) != nil || proxy.GetCluster() == blackHole: // goes nowhere
		case next < len(order):
			c.fail("%s: %s is missing or out of order before bytes are forwarded", what, order[next])
		}
	}
	if n := len(filters); n > 0 && !c.r.Client && next < len(order) && !ends(filters[n-1]) {
		c.fail("%s: the last filter of %s is none that guards stand before", what, l.Name)
	}
}

// overrides: Envoy ignores a per-route configuration of a filter that the chain lacks, so that the guard it was to be never runs.
func (c *checker) overrides(table string, per map[string]bool) {
	for name := range per {
		if !slices.Contains(c.filters[table], name) {
			c.fail("route table %s: override of HTTP filter %q, which no chain has", table, name)
		}
	}
}

func overridesOf(r *routev3.RouteConfiguration) map[string]bool {
	out := map[string]bool{}
	for name := range r.TypedPerFilterConfig {
		out[name] = true
	}
	for _, h := range r.VirtualHosts {
		for name := range h.TypedPerFilterConfig {
			out[name] = true
		}
		for _, route := range h.Routes {
			for name := range route.TypedPerFilterConfig {
				out[name] = true
			}
			for _, w := range route.GetRoute().GetWeightedClusters().GetClusters() {
				for name := range w.TypedPerFilterConfig {
					out[name] = true
				}
			}
		}
	}
	return out
}
