package compile

import (
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"

	"github.com/credence-mesh/credence/policy"
)

// ownSidecar is the Sidecar object that selects a workload by its labels: the first by name.
func ownSidecar(set *policy.Set, w *policy.Workload) *policy.Sidecar {
	for s := range policy.In[*policy.Sidecar](set, w.Namespace) {
		if labels := s.Spec.GetWorkloadSelector().GetLabels(); len(labels) > 0 && policy.Selects(labels, w.Labels) {
			return s
		}
	}
	return nil
}

// defaultSidecar is the Sidecar object without a selector of a namespace, or else of the root namespace.
func defaultSidecar(set *policy.Set, namespace string) *policy.Sidecar {
	for _, ns := range []string{namespace, set.Mesh().RootNamespace} {
		for s := range policy.In[*policy.Sidecar](set, ns) {
			if len(s.Spec.GetWorkloadSelector().GetLabels()) == 0 {
				return s
			}
		}
	}
	return nil
}

// sidecarOf is the Sidecar object in force at a workload, nil where there is none.
func sidecarOf(set *policy.Set, w *policy.Workload) *policy.Sidecar {
	if s := ownSidecar(set, w); s != nil {
		return s
	}
	return defaultSidecar(set, w.Namespace)
}

// inForce is the Sidecar of an outbound part; the zero value is none.
type inForce struct{ sidecar *policy.Sidecar }

func (s inForce) spec() *networkingv1alpha3.Sidecar {
	if s.sidecar == nil {
		return nil
	}
	return s.sidecar.Spec
}

// sidecarAt is the Sidecar object of an outbound part; false where there is no such part.
func sidecarAt(set *policy.Set, key PartKey) (inForce, bool) {
	switch w, ok := set.Workload(key.Namespace, key.Name); {
	case !key.Alone && key.Name == "":
		return inForce{defaultSidecar(set, key.Namespace)}, true
	case !key.Alone:
		s, _ := policy.Get[*policy.Sidecar](set, key.Namespace, key.Name)
		return inForce{s}, true
	case ok && w.Entry != nil:
		return inForce{sidecarOf(set, w)}, true
	default:
		return inForce{}, false
	}
}

// Patches is the EnvoyFilters that apply to a workload, in no particular order.
func Patches(set *policy.Set, w *policy.Workload) []*policy.EnvoyFilter {
	var out []*policy.EnvoyFilter
	for _, ns := range set.Namespaces(w) {
		for f := range policy.In[*policy.EnvoyFilter](set, ns) {
			if attachedPatch(set, w, ns, f) {
				out = append(out, f)
			}
		}
	}
	return out
}

func attachedPatch(set *policy.Set, w *policy.Workload, ns string, f *policy.EnvoyFilter) bool {
	if f.Spec == nil {
		return true // unreadable: it may be about this workload
	}
	scope := policy.Scope{Refs: f.Spec.TargetRefs}
	if len(scope.Refs) == 0 {
		return policy.Selects(f.Spec.GetWorkloadSelector().GetLabels(), w.Labels)
	}
	return set.Attached(w, ns, scope)
}

// PatchesOf is the EnvoyFilters that apply to a part.
func PatchesOf(set *policy.Set, key PartKey) []*policy.EnvoyFilter {
	if key.Kind != OutboundPart || key.Alone {
		if w, ok := set.Workload(key.Namespace, key.Name); ok {
			return Patches(set, w)
		}
		return nil
	}
	var out []*policy.EnvoyFilter
	for _, ns := range set.Namespaces(&policy.Workload{Namespace: key.Namespace}) {
		for f := range policy.In[*policy.EnvoyFilter](set, ns) {
			if !selective(f) && len(f.Spec.GetTargetRefs()) == 0 {
				out = append(out, f)
			}
		}
	}
	return out
}

func selective(f *policy.EnvoyFilter) bool { return len(f.Spec.GetWorkloadSelector().GetLabels()) > 0 }

// patchedAlone tells whether an EnvoyFilter makes the outbound part of a workload unlike its neighbours'.
func patchedAlone(set *policy.Set, w *policy.Workload) bool {
	for _, f := range Patches(set, w) {
		if !selective(f) {
			continue
		}
		for _, p := range f.Spec.GetConfigPatches() {
			switch p.GetMatch().GetContext() {
			case networkingv1alpha3.EnvoyFilter_ANY, networkingv1alpha3.EnvoyFilter_SIDECAR_OUTBOUND:
				return true
			}
		}
	}
	return false
}

// voidPatches is the EnvoyFilters among those given that were refused: what they were to guard is closed.
func voidPatches(filters []*policy.EnvoyFilter) []*policy.Object {
	var out []*policy.Object
	for _, f := range filters {
		if f.Void || f.Spec == nil {
			out = append(out, &f.Object)
		}
	}
	return out
}
