package policy

import (
	typev1beta1 "istio.io/api/type/v1beta1"
)

// Scope is where a policy applies, as Istio writes it: to the workloads that a selector names, to the gateways that references name, or,
// where it says neither, to everything in its namespace (in the root namespace: in the mesh).
type Scope struct {
	Selector *typev1beta1.WorkloadSelector
	Refs     []*typev1beta1.PolicyTargetReference
}

// ScopeOf merges the older single targetRef into targetRefs, as Istio does: it counts only where the list is empty.
func ScopeOf(selector *typev1beta1.WorkloadSelector, ref *typev1beta1.PolicyTargetReference, refs []*typev1beta1.PolicyTargetReference) Scope {
	if len(refs) == 0 && ref != nil {
		refs = []*typev1beta1.PolicyTargetReference{ref}
	}
	return Scope{Selector: selector, Refs: refs}
}

// Attached tells whether a policy that lives in namespace applies to w. The root namespace's policies apply everywhere; every other
// policy applies in its own namespace alone. A policy with references applies to nothing but the Gateways that they name.
func (s *Set) Attached(w *Workload, namespace string, scope Scope) bool {
	if namespace != w.Namespace && namespace != s.mesh.RootNamespace {
		return false
	}
	if len(scope.Refs) == 0 {
		return Selects(scope.Selector.GetMatchLabels(), w.Labels)
	}
	if w.Gateway == nil {
		return false
	}
	for _, r := range scope.Refs {
		if r.GetGroup() == "gateway.networking.k8s.io" && r.GetKind() == string(KindGateway) && r.GetName() == w.Gateway.Key.Name &&
			namespace == w.Namespace && (r.GetNamespace() == "" || r.GetNamespace() == namespace) {
			return true
		}
	}
	return false
}

// Namespaces is where policies that may apply to w live: the root namespace and its own, each once.
func (s *Set) Namespaces(w *Workload) []string {
	if w.Namespace == s.mesh.RootNamespace {
		return []string{w.Namespace}
	}
	return []string{s.mesh.RootNamespace, w.Namespace}
}
