package peer

import (
	"cmp"

	securityv1beta1 "istio.io/api/security/v1beta1"

	"github.com/credence-mesh/credence/policy"
)

// For is how the port of a workload may be reached, and the objects that say so. The narrowest statement wins: port, workload, namespace,
// mesh; UNSET inherits from the next wider one, and where nobody says anything the mode is Permissive, as in Istio. Port is the workload's
// own, which portLevelMtls names. A policy with a selector in the root namespace applies to nothing, and only a policy with a selector has ports.
func For(set *policy.Set, w *policy.Workload, port uint32) (Mode, []*policy.Object) {
	mesh, namespace, workload := winners(set, w)
	r := resolution{mode: Permissive}
	r.apply(mesh, mesh.mtls())
	r.apply(namespace, namespace.mtls())
	r.apply(workload, workload.mtls())
	r.apply(workload, workload.port(port))
	return r.mode, r.from
}

// statement is the policy that won at its level; the zero value is none.
type statement struct{ policy *policy.PeerAuthentication }

func (s statement) mtls() *securityv1beta1.PeerAuthentication_MutualTLS {
	if s.policy == nil {
		return nil
	}
	return s.policy.Spec.GetMtls()
}

func (s statement) port(port uint32) *securityv1beta1.PeerAuthentication_MutualTLS {
	if s.policy == nil {
		return nil
	}
	return s.policy.Spec.GetPortLevelMtls()[port]
}

type resolution struct {
	mode Mode
	from []*policy.Object
}

// apply lets a narrower statement speak. A void one closes whatever it covers.
func (r *resolution) apply(s statement, m *securityv1beta1.PeerAuthentication_MutualTLS) {
	if s.policy == nil {
		return
	}
	mode, set := Strict, true
	if !s.policy.Void {
		mode, set = modeOf(m)
	}
	if set {
		r.mode, r.from = mode, []*policy.Object{&s.policy.Object}
	}
}

// modeOf is false where the statement says nothing. A mode that is not known is the strictest one.
func modeOf(m *securityv1beta1.PeerAuthentication_MutualTLS) (Mode, bool) {
	switch m.GetMode() {
	case securityv1beta1.PeerAuthentication_MutualTLS_UNSET:
		return Strict, false
	case securityv1beta1.PeerAuthentication_MutualTLS_PERMISSIVE:
		return Permissive, true
	case securityv1beta1.PeerAuthentication_MutualTLS_DISABLE:
		return Disable, true
	default:
		return Strict, true
	}
}

// winners finds the policy that speaks at each level.
func winners(set *policy.Set, w *policy.Workload) (mesh, namespace, workload statement) {
	root := set.Mesh().RootNamespace
	for _, ns := range set.Namespaces(w) {
		for p := range policy.In[*policy.PeerAuthentication](set, ns) {
			selector := p.Spec.GetSelector()
			wide := len(selector.GetMatchLabels()) == 0
			switch {
			case p.Void && p.Spec == nil && ns != root:
				workload = older(workload, p) // what it covers cannot be read: it may be this workload
			case wide && ns == root:
				mesh = older(mesh, p)
			case wide:
				namespace = older(namespace, p)
			case ns != root && policy.Selects(selector.GetMatchLabels(), w.Labels):
				workload = older(workload, p)
			}
		}
	}
	return mesh, namespace, workload
}

// older settles ties at one level: a void policy first, since it must close; then the oldest; then the first by name.
func older(s statement, p *policy.PeerAuthentication) statement {
	if s.policy == nil || s.policy.Void != p.Void && p.Void {
		return statement{p}
	}
	if s.policy.Void {
		return s
	}
	if cmp.Or(p.Created.Compare(s.policy.Created), cmp.Compare(p.Key.Name, s.policy.Key.Name)) < 0 {
		return statement{p}
	}
	return s
}
