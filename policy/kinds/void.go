package kinds

import (
	"fmt"
	"strings"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	securityv1beta1 "istio.io/api/security/v1beta1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/credence-mesh/credence/policy"
)

// voidOf makes the stand-in of a refused object: what it selects where that could be read, and no Spec, for its whole namespace, where not.
// Only kinds that guard something have one.
func voidOf(r policy.Resource, o *object) policy.Resource {
	meta := o.meta
	meta.Void = true
	covers := o.covers()
	switch meta.Key.Kind {
	case policy.KindPeerAuthentication:
		v := &policy.PeerAuthentication{Object: meta}
		if g, ok := r.(*policy.PeerAuthentication); ok && covers {
			v.Spec = &securityv1beta1.PeerAuthentication{Selector: g.Spec.GetSelector()}
		}
		return v
	case policy.KindRequestAuthentication:
		v := &policy.RequestAuthentication{Object: meta}
		if g, ok := r.(*policy.RequestAuthentication); ok && covers {
			v.Spec = &securityv1beta1.RequestAuthentication{
				Selector: g.Spec.GetSelector(), TargetRef: g.Spec.GetTargetRef(), TargetRefs: g.Spec.GetTargetRefs(),
			}
		}
		return v
	case policy.KindAuthorizationPolicy:
		v := &policy.AuthorizationPolicy{Object: meta}
		if g, ok := r.(*policy.AuthorizationPolicy); ok && covers {
			v.Spec = &securityv1beta1.AuthorizationPolicy{
				Selector: g.Spec.GetSelector(), TargetRef: g.Spec.GetTargetRef(), TargetRefs: g.Spec.GetTargetRefs(),
			}
		}
		return v
	case policy.KindEnvoyFilter:
		v := &policy.EnvoyFilter{Object: meta}
		if g, ok := r.(*policy.EnvoyFilter); ok && covers {
			v.Spec = &networkingv1alpha3.EnvoyFilter{WorkloadSelector: g.Spec.GetWorkloadSelector(), TargetRefs: g.Spec.GetTargetRefs()}
		}
		return v
	case policy.KindSidecar:
		v := &policy.Sidecar{Object: meta}
		if g, ok := r.(*policy.Sidecar); ok && covers {
			v.Spec = &networkingv1alpha3.Sidecar{WorkloadSelector: g.Spec.GetWorkloadSelector()}
		}
		return v
	case policy.KindHTTPRoute:
		v := &policy.HTTPRoute{Object: meta}
		if g, ok := r.(*policy.HTTPRoute); ok && covers {
			v.Spec = o.matchesOf(g.Spec)
		}
		return v
	case policy.KindConfigMap:
		return &policy.ConfigMap{Object: meta}
	case policy.KindRateLimit:
		return &policy.RateLimit{Object: meta}
	case policy.KindRego:
		return &policy.Rego{Object: meta}
	}
	return nil
}

// matchesOf is what a refused route matches, so that its requests are not taken by a wider route. A rule whose matches cannot be read
// matches all of the route's hosts; a route whose hosts or parents cannot be read matches nothing.
func (o *object) matchesOf(spec *gatewayv1.HTTPRouteSpec) *gatewayv1.HTTPRouteSpec {
	out := &gatewayv1.HTTPRouteSpec{CommonRouteSpec: spec.CommonRouteSpec, Hostnames: spec.Hostnames}
	if o.wrong("spec.hostnames") || o.wrong("spec.parentRefs") {
		return nil
	}
	for i, r := range spec.Rules {
		rule := gatewayv1.HTTPRouteRule{Matches: r.Matches}
		if o.wrong(fmt.Sprintf("spec.rules[%d].matches", i)) {
			rule.Matches = nil
		}
		out.Rules = append(out.Rules, rule)
	}
	return out
}

// wrong tells whether an error was reported at or below a field.
func (o *object) wrong(field string) bool {
	for _, p := range o.reader.Problems {
		if p.Severity == policy.Error && strings.HasPrefix(p.Field, field) {
			return true
		}
	}
	return false
}
