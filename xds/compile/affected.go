package compile

import (
	"reflect"
	"slices"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	securityv1beta1 "istio.io/api/security/v1beta1"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/policy/jwt"
)

// Affected tells what the changes from old to new touch. It may name too much, never too little.
func (c *Compiler) Affected(old, new *policy.Set, changes []policy.Change) Affected {
	a := &affecter{compiler: c, old: old, new: new, compared: map[string]bool{}, out: Affected{Parts: map[PartKey]bool{}, Workloads: map[policy.Key]bool{}}}
	if !reflect.DeepEqual(old.Mesh(), new.Mesh()) {
		a.everything()
		return a.out
	}
	a.headers(changes)
	for _, change := range changes {
		for _, r := range []policy.Resource{change.Old, change.New} {
			if r != nil {
				a.touched(r)
			}
		}
		a.mutual(change)
	}
	if len(a.gone) > 0 || len(a.came) > 0 {
		a.out.Gateways, a.out.Sees = true, a.sees
	}
	return a.out
}

// affecter gathers what changes touch.
type affecter struct {
	compiler *Compiler
	old, new *policy.Set
	out      Affected
	compared map[string]bool // namespaces whose services were
	gone     []*service      // that only the old set has
	came     []*service      // that only the new set has
}

func (a *affecter) everything() {
	a.out.Outbound, a.out.Gateways, a.out.Inbound = true, true, true
	for _, set := range []*policy.Set{a.old, a.new} {
		for w := range set.Workloads() {
			a.out.Workloads[w.Meta().Key] = true
		}
	}
}

// headers marks everything that removes the headers which tokens fill, where their list changes.
func (a *affecter) headers(changes []policy.Change) {
	authentication := func(c policy.Change) bool {
		_, x := c.Old.(*policy.RequestAuthentication)
		_, y := c.New.(*policy.RequestAuthentication)
		return x || y
	}
	if slices.ContainsFunc(changes, authentication) && !slices.Equal(jwt.HeadersOut(a.old), jwt.HeadersOut(a.new)) {
		a.out.Inbound, a.out.Gateways = true, true
	}
}

// touched marks what depends on one version of an object.
func (a *affecter) touched(r policy.Resource) {
	if authz.Names(a.new.Mesh(), r) {
		a.out.Inbound, a.out.Gateways = true, true
	}
	switch o := r.(type) {
	case *policy.AuthorizationPolicy:
		a.policies(o.Key.Namespace, policy.ScopeOf(o.Spec.GetSelector(), o.Spec.GetTargetRef(), o.Spec.GetTargetRefs()))
	case *policy.RequestAuthentication:
		a.policies(o.Key.Namespace, policy.ScopeOf(o.Spec.GetSelector(), o.Spec.GetTargetRef(), o.Spec.GetTargetRefs()))
	case *policy.PeerAuthentication:
		a.policies(o.Key.Namespace, policy.Scope{Selector: o.Spec.GetSelector()})
	case *policy.Telemetry:
		a.policies(o.Key.Namespace, policy.Scope{Selector: o.Spec.GetSelector(), Refs: o.Spec.GetTargetRefs()})
	case *policy.JWKS:
		a.keys(o.Key.Name)
	case *policy.EnvoyFilter:
		a.patched(o)
	case *policy.ConfigMap, *policy.RateLimit:
		a.limits()
	case *policy.WorkloadEntry:
		a.out.Workloads[o.Key] = true
		a.out.Parts[PartKey{Kind: InboundPart, Namespace: o.Key.Namespace, Name: o.Key.Name}] = true
		a.alone(o.Key)
		a.services(o.Key.Namespace)
	case *policy.Service:
		a.selected(o.Key.Namespace, o.Spec != nil, func(labels map[string]string) bool { return policy.Selects(o.Spec.Selector, labels) })
		a.services(o.Key.Namespace)
	case *policy.ServiceEntry:
		labels := o.Spec.GetWorkloadSelector().GetLabels()
		a.selected(o.Key.Namespace, len(labels) > 0, func(have map[string]string) bool { return policy.Selects(labels, have) })
		a.services(o.Key.Namespace)
	case *policy.Endpoints, *policy.EndpointSlice:
		a.services(r.Meta().Key.Namespace)
	case *policy.Sidecar:
		a.workloads(o.Key.Namespace, func(w *policy.Workload) bool {
			return w.Entry != nil && policy.Selects(o.Spec.GetWorkloadSelector().GetLabels(), w.Labels)
		}, true)
	case *policy.Gateway:
		a.out.Workloads[o.Key] = true
		a.out.Parts[PartKey{Kind: GatewayPart, Namespace: o.Key.Namespace, Name: o.Key.Name}] = true
	case *policy.HTTPRoute:
		a.route(o)
	case *policy.Secret, *policy.ReferenceGrant, *policy.Namespace:
		a.out.Gateways = true
	}
}

// policies marks the workloads that a policy applies to.
func (a *affecter) policies(namespace string, scope policy.Scope) {
	a.workloads(namespace, func(w *policy.Workload) bool { return a.new.Attached(w, namespace, scope) }, false)
}

// workloads marks the inbound and gateway parts of the workloads that an object of a namespace is about; all their parts, where it changes the
// list of them.
func (a *affecter) workloads(namespace string, about func(*policy.Workload) bool, all bool) {
	for _, set := range []*policy.Set{a.old, a.new} {
		mark := func(w *policy.Workload) {
			if !about(w) {
				return
			}
			if w.Gateway != nil {
				a.out.Parts[PartKey{Kind: GatewayPart, Namespace: w.Namespace, Name: w.Name}] = true
			} else {
				a.out.Parts[PartKey{Kind: InboundPart, Namespace: w.Namespace, Name: w.Name}] = true
			}
			if all {
				a.out.Workloads[w.Meta().Key] = true
				if w.Entry != nil {
					a.out.Parts[outboundKey(set, w)] = true
				}
			}
		}
		if namespace == set.Mesh().RootNamespace {
			for w := range set.Workloads() {
				mark(w)
			}
			continue
		}
		for w := range set.WorkloadsIn(namespace) {
			mark(w)
		}
	}
}

// selected marks the workloads behind a service.
func (a *affecter) selected(namespace string, any bool, selects func(map[string]string) bool) {
	if any {
		a.workloads(namespace, func(w *policy.Workload) bool { return w.Entry != nil && w.Namespace == namespace && selects(w.Labels) }, false)
	}
}

// alone marks the outbound part that a workload shares with nobody: its labels choose the Sidecar and the EnvoyFilters there.
func (a *affecter) alone(key policy.Key) {
	for _, set := range []*policy.Set{a.old, a.new} {
		if w, ok := set.Workload(key.Namespace, key.Name); ok && w.Entry != nil {
			if k := outboundKey(set, w); k.Alone {
				a.out.Parts[k] = true
			}
		}
	}
}

// services notes which services of a namespace differ. Many changes of what services are made from change none.
func (a *affecter) services(namespace string) {
	if a.compared[namespace] {
		return
	}
	a.compared[namespace] = true
	gone, came := differ(a.compiler.registries.of(a.old).in(namespace).services, a.compiler.registries.of(a.new).in(namespace).services)
	a.gone, a.came = append(a.gone, gone...), append(a.came, came...)
}

// sees tells whether an outbound part has a service that differs, or one that such a service gave way to or took the host from.
func (a *affecter) sees(k PartKey) bool {
	return k.Kind == OutboundPart && (a.seesIn(a.old, k) || a.seesIn(a.new, k))
}

func (a *affecter) seesIn(set *policy.Set, k PartKey) bool {
	s, ok := sidecarAt(set, k)
	if !ok {
		return true
	}
	var of []hostScope
	for _, e := range s.spec().GetEgress() {
		of = append(of, scopes(e.Hosts, k.Namespace)...)
	}
	reg := a.compiler.registries.of(set)
	for _, list := range [][]*service{a.gone, a.came} {
		for _, changed := range list {
			if reg.matters(changed) || changed.visible(k.Namespace) && (len(of) == 0 || len(within(append(reg.host(changed.host), changed), of)) > 0) {
				return true
			}
		}
	}
	return false
}

// keys marks the workloads that accept an issuer whose keys changed.
func (a *affecter) keys(uri string) {
	for _, set := range []*policy.Set{a.old, a.new} {
		for ra := range policy.All[*policy.RequestAuthentication](set) {
			if slices.ContainsFunc(ra.Spec.GetJwtRules(), func(r *securityv1beta1.JWTRule) bool { return keysAt(r) == uri }) {
				a.touched(ra)
			}
		}
	}
}

func keysAt(r *securityv1beta1.JWTRule) string {
	return jwt.Issuer{Issuer: r.GetIssuer(), Keys: jwt.KeySource{Inline: r.GetJwks(), URI: r.GetJwksUri()}}.At()
}

// patched marks the workloads that an EnvoyFilter applies to.
func (a *affecter) patched(f *policy.EnvoyFilter) {
	a.workloads(f.Key.Namespace, func(w *policy.Workload) bool { return attachedPatch(a.new, w, f.Key.Namespace, f) }, true)
}

// limits marks the workloads whose rate limit filters take their descriptors from a configuration that changed.
func (a *affecter) limits() {
	for _, set := range []*policy.Set{a.old, a.new} {
		for f := range policy.All[*policy.EnvoyFilter](set) {
			if slices.ContainsFunc(f.Spec.GetConfigPatches(), func(p *networkingv1alpha3.EnvoyFilter_EnvoyConfigObjectPatch) bool {
				return p.GetPatch().GetValue().GetFields()["name"].GetStringValue() == "envoy.filters.http.ratelimit"
			}) {
				a.patched(f)
			}
		}
	}
}

// route marks the gateways that a route names.
func (a *affecter) route(r *policy.HTTPRoute) {
	if r.Spec == nil {
		a.out.Gateways = true
		return
	}
	for i := range r.Spec.ParentRefs {
		ref := &r.Spec.ParentRefs[i]
		ns := r.Key.Namespace
		if ref.Namespace != nil {
			ns = string(*ref.Namespace)
		}
		a.out.Parts[PartKey{Kind: GatewayPart, Namespace: ns, Name: string(ref.Name)}] = true
	}
}

// mutual marks the clients of workloads, where a PeerAuthentication changed whether they are reached by TLS.
func (a *affecter) mutual(c policy.Change) {
	for _, r := range []policy.Resource{c.Old, c.New} {
		p, ok := r.(*policy.PeerAuthentication)
		switch {
		case !ok:
		case p.Key.Namespace == a.new.Mesh().RootNamespace:
			for _, set := range []*policy.Set{a.old, a.new} {
				for ns := range a.compiler.registries.of(set).spaces {
					a.services(ns)
				}
			}
		default:
			a.services(p.Key.Namespace)
		}
	}
}
