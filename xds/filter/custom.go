package filter

import (
	"cmp"
	"errors"
	"strings"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/xds/ir"
)

const (
	// ServicesCluster reaches the decision and limit services of the control plane; every bootstrap has it.
	ServicesCluster = "credence_services"

	// customPrefix and customPolicy are Istio's names: the shadow rules of CUSTOM policies leave "istio-ext-authz-<provider>-…" in the
	// metadata istio_ext_authz_shadow_effective_policy_id, and ext_authz asks only where it stands there.
	customPrefix = "istio_ext_authz_"
	customPolicy = "istio-ext-authz-"

	// decisionTimeout bounds one decision; what takes longer is refused. Istio waits 600 s.
	decisionTimeout = 200 * time.Millisecond
)

// custom marks the requests about which the provider is asked, and those that an AUDIT rule matches. It refuses nothing: its only rules
// in force have the action LOG.
func custom(h *ir.HTTP) (made, error) {
	r := h.Guard.Rules
	audit, err := policies(rbacconfigv3.RBAC_LOG, r.Audit)
	if err != nil {
		return made{}, err
	}
	config := &rbacv3.RBAC{Rules: audit}
	m := made{config: config, sources: sources(r.Audit)}
	if len(r.Custom) > 0 {
		if config.ShadowRules, err = customRules(r.Custom); err != nil {
			return made{}, err
		}
		config.ShadowRulesStatPrefix = customPrefix
		m.sources = append(m.sources, sources(r.Custom[0].Rules)...)
	}
	return m, nil
}

func customRules(c []authz.Custom) (*rbacconfigv3.RBAC, error) {
	if len(c) != 1 {
		return nil, errors.New("more than one provider of CUSTOM policies")
	}
	rules := make([]authz.Rule, len(c[0].Rules))
	for i, r := range c[0].Rules {
		r.ID = customPolicy + c[0].Provider + "-" + r.ID
		rules[i] = r
	}
	return policies(rbacconfigv3.RBAC_DENY, rules)
}

func extAuthzTypes() []proto.Message { return []proto.Message{&extauthzv3.ExtAuthz{}} }

// extAuth asks the provider about the requests that custom marked; where none is marked every request passes. An error, a timeout or an unreachable provider is a refusal.
func extAuth(h *ir.HTTP) (made, error) {
	authorizer := authz.Authorizer{}
	var from []ir.Source
	for _, c := range h.Guard.Rules.Custom {
		authorizer, from = c.Authorizer, sources(c.Rules)
	}
	return made{sources: from, config: &extauthzv3.ExtAuthz{
		Services:                  &extauthzv3.ExtAuthz_GrpcService{GrpcService: decisionService(authorizer)},
		TransportApiVersion:       corev3.ApiVersion_V3,
		StatusOnError:             &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden},
		ValidateMutations:         true,
		MetadataContextNamespaces: []string{ClaimsNamespace},
		FilterEnabledMetadata:     marked(RBACNamespace),
		// Values of a header that is sent more than once stay apart for the embedded service (threat C39); others read what Envoy joins.
		EncodeRawHeaders: authorizer.Embedded(),
	}}, nil
}

// marked holds for what any CUSTOM rule matched, whoever its provider is: while the two slots change one after the other, a request that
// is marked is always decided by somebody.
func marked(namespace string) *matcherv3.MetadataMatcher {
	id := authz.Match{Kind: authz.Prefix, Value: customPolicy}
	return metadataMatcher(namespace, []string{customPrefix + "shadow_effective_policy_id"}, stringValue(id))
}

func decisionService(a authz.Authorizer) *corev3.GrpcService {
	target := &corev3.GrpcService_EnvoyGrpc{ClusterName: ServicesCluster}
	if !a.Embedded() {
		// A cluster's name has characters that an :authority must not have.
		target = &corev3.GrpcService_EnvoyGrpc{ClusterName: a.Cluster(), Authority: strings.ReplaceAll(a.Host, "|", "_")}
	}
	return &corev3.GrpcService{
		TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: target},
		Timeout:         durationpb.New(cmp.Or(a.Timeout, decisionTimeout)),
	}
}
