package filter

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	netauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/ext_authz/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	"google.golang.org/protobuf/proto"

	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/xds/ir"
)

const (
	// netRBACNamespace is where Envoy's network RBAC filter leaves the results of shadow rules, whatever the filter is called.
	netRBACNamespace = "envoy.filters.network.rbac"
	tcpStat          = "tcp."
)

// tcpSlot is one place of the guards of a TCP filter chain; as in the HTTP chain, its configuration is always present.
type tcpSlot struct {
	name string
	kind proto.Message
	make func(authz.Rules) (proto.Message, error)
	from func(authz.Rules) []ir.Source
}

// TCPSlots are the names of the slots, in order.
func TCPSlots() []string { return []string{SlotCustom, SlotExtAuthz, SlotRBACDeny, SlotRBACAllow} }

func tcpSlots() []tcpSlot {
	return []tcpSlot{
		{SlotCustom, &netrbacv3.RBAC{}, tcpCustom, func(r authz.Rules) []ir.Source { return append(sources(r.Audit), customSources(r)...) }},
		{SlotExtAuthz, &netauthzv3.ExtAuthz{}, tcpExtAuthz, customSources},
		{SlotRBACDeny, &netrbacv3.RBAC{}, tcpDeny, func(r authz.Rules) []ir.Source { return append(sources(r.Deny), r.Broken...) }},
		{SlotRBACAllow, &netrbacv3.RBAC{}, tcpAllow, func(r authz.Rules) []ir.Source { return sources(r.Allow) }},
	}
}

// TCPChain is the network filters that guard a TCP filter chain, and the extensions that they refer to: audit and CUSTOM marks, the CUSTOM
// decision, DENY, ALLOW. The caller appends the TCP proxy. A connection is decided once, when its first byte comes: an edit holds for the
// connections that come after it, and closes none.
func TCPChain(t *ir.TCP) ([]*listenerv3.Filter, []Extension, error) {
	if t.Egress {
		return nil, nil, nil
	}
	var filters []*listenerv3.Filter
	var extensions []Extension
	for _, s := range tcpSlots() {
		config, err := s.make(t.Rules)
		if err == nil {
			err = valid(config)
		}
		if err != nil {
			return nil, nil, fmt.Errorf("%s: %s: %w", t.Name, s.name, err)
		}
		name := ExtensionName(t.Name, s.name)
		filters = append(filters, &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_ConfigDiscovery{ConfigDiscovery: overADS([]proto.Message{s.kind})}})
		extensions = append(extensions, Extension{Name: name, Config: config, Sources: s.from(t.Rules)})
	}
	return filters, extensions, nil
}

func customSources(r authz.Rules) []ir.Source {
	var out []ir.Source
	for _, c := range r.Custom {
		out = append(out, sources(c.Rules)...)
	}
	return out
}

// tcpCustom marks the connections about which the provider is asked, and those that an AUDIT rule matches; it refuses nothing.
func tcpCustom(r authz.Rules) (proto.Message, error) {
	audit, err := policies(rbacconfigv3.RBAC_LOG, r.Audit)
	if err != nil {
		return nil, err
	}
	marks := &netrbacv3.RBAC{StatPrefix: tcpStat, Rules: audit}
	if len(r.Custom) > 0 {
		if marks.ShadowRules, err = customRules(r.Custom); err != nil {
			return nil, err
		}
		marks.ShadowRulesStatPrefix = customPrefix
	}
	return marks, nil
}

func tcpExtAuthz(r authz.Rules) (proto.Message, error) {
	authorizer := authz.Authorizer{}
	for _, c := range r.Custom {
		authorizer = c.Authorizer
	}
	return &netauthzv3.ExtAuthz{
		StatPrefix: tcpStat, GrpcService: decisionService(authorizer), TransportApiVersion: corev3.ApiVersion_V3,
		FilterEnabledMetadata: marked(netRBACNamespace),
	}, nil
}

func tcpDeny(r authz.Rules) (proto.Message, error) {
	if len(r.Broken) > 0 {
		return &netrbacv3.RBAC{StatPrefix: tcpStat, Rules: refuseAll()}, nil
	}
	enforced, watched := split(r.Deny)
	rules, err := policies(rbacconfigv3.RBAC_DENY, enforced)
	if err != nil {
		return nil, err
	}
	config := &netrbacv3.RBAC{StatPrefix: tcpStat, Rules: rules}
	if len(watched) > 0 {
		if config.ShadowRules, err = policies(rbacconfigv3.RBAC_DENY, watched); err != nil {
			return nil, err
		}
		config.ShadowRulesStatPrefix = dryRunDenyPrefix
	}
	return config, nil
}

func tcpAllow(r authz.Rules) (proto.Message, error) {
	rules, shadow, err := allowing(r)
	if err != nil {
		return nil, err
	}
	config := &netrbacv3.RBAC{StatPrefix: tcpStat, Rules: rules, ShadowRules: shadow}
	if shadow != nil {
		config.ShadowRulesStatPrefix = dryRunAllowPrefix
	}
	return config, nil
}
