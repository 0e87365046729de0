package kinds

import (
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	securityv1beta1 "istio.io/api/security/v1beta1"

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
	case policy.KindConfigMap:
		return &policy.ConfigMap{Object: meta}
	case policy.KindRateLimit:
		return &policy.RateLimit{Object: meta}
	case policy.KindRego:
		return &policy.Rego{Object: meta}
	}
	return nil
}
