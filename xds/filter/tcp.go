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
	"github.com/credence-mesh/credence/xds/resource"
)

const (
	netRBAC = "envoy.filters.network.rbac"
	netAuth = "envoy.filters.network.ext_authz"
	tcpStat = "tcp."
)

// TCPChain is the network filters that guard a TCP filter chain, in order: audit and CUSTOM marks, the CUSTOM decision, DENY, ALLOW.
// The caller appends the TCP proxy. Here the rules are part of the listener, so an edit takes the listener's drain time.
func TCPChain(t *ir.TCP) ([]*listenerv3.Filter, error) {
	var out []*listenerv3.Filter
	add := func(name string, m proto.Message) error {
		if err := valid(m); err != nil {
			return err
		}
		packed, err := resource.Pack(m)
		out = append(out, &listenerv3.Filter{Name: name, ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed}})
		return err
	}
	if len(t.Rules.Broken) > 0 {
		err := add(netRBAC, &netrbacv3.RBAC{StatPrefix: tcpStat, Rules: refuseAll()})
		return out, err
	}
	for _, step := range []func(authz.Rules, func(string, proto.Message) error) error{tcpCustom, tcpDeny, tcpAllow} {
		if err := step(t.Rules, add); err != nil {
			return nil, fmt.Errorf("%s: %w", t.Name, err)
		}
	}
	return out, nil
}

func tcpCustom(r authz.Rules, add func(string, proto.Message) error) error {
	if len(r.Custom) == 0 && len(r.Audit) == 0 {
		return nil
	}
	audit, err := policies(rbacconfigv3.RBAC_LOG, r.Audit)
	if err != nil {
		return err
	}
	marks := &netrbacv3.RBAC{StatPrefix: tcpStat, Rules: audit}
	if len(r.Custom) == 0 {
		return add(netRBAC, marks)
	}
	if marks.ShadowRules, err = customRules(r.Custom); err != nil {
		return err
	}
	marks.ShadowRulesStatPrefix = customPrefix
	if err := add(netRBAC, marks); err != nil {
		return err
	}
	return add(netAuth, &netauthzv3.ExtAuthz{
		StatPrefix: tcpStat, GrpcService: decisionService(r.Custom[0].Authorizer), TransportApiVersion: corev3.ApiVersion_V3,
		FilterEnabledMetadata: marked(netRBAC),
	})
}

func tcpDeny(r authz.Rules, add func(string, proto.Message) error) error {
	enforced, watched := split(r.Deny)
	if len(enforced) == 0 && len(watched) == 0 {
		return nil
	}
	rules, err := policies(rbacconfigv3.RBAC_DENY, enforced)
	if err != nil {
		return err
	}
	config := &netrbacv3.RBAC{StatPrefix: tcpStat, Rules: rules}
	if len(watched) > 0 {
		if config.ShadowRules, err = policies(rbacconfigv3.RBAC_DENY, watched); err != nil {
			return err
		}
		config.ShadowRulesStatPrefix = dryRunDenyPrefix
	}
	return add(netRBAC, config)
}

func tcpAllow(r authz.Rules, add func(string, proto.Message) error) error {
	rules, shadow, err := allowing(r)
	if err != nil {
		return err
	}
	if r.Open && shadow == nil {
		return nil
	}
	config := &netrbacv3.RBAC{StatPrefix: tcpStat, Rules: rules, ShadowRules: shadow}
	if shadow != nil {
		config.ShadowRulesStatPrefix = dryRunAllowPrefix
	}
	return add(netRBAC, config)
}
