package lint

import (
	"strings"

	"github.com/credence-mesh/credence/policy"
)

// portless finds policies that only select workloads without a port that a proxy could serve: nothing passes the proxy, so the policy guards
// nothing. A port is served when the WorkloadEntry, a Service that selects it, or a Sidecar names it.
func (l *linter) portless() {
	for p := range policy.All[*policy.AuthorizationPolicy](l.set) {
		if len(p.Spec.GetTargetRefs()) == 0 {
			l.guards(&p.Object, p.Spec.GetSelector().GetMatchLabels())
		}
	}
	for p := range policy.All[*policy.RequestAuthentication](l.set) {
		if len(p.Spec.GetTargetRefs()) == 0 {
			l.guards(&p.Object, p.Spec.GetSelector().GetMatchLabels())
		}
	}
	for p := range policy.All[*policy.PeerAuthentication](l.set) {
		l.guards(&p.Object, p.Spec.GetSelector().GetMatchLabels())
	}
}

func (l *linter) guards(o *policy.Object, labels map[string]string) {
	if o.Void || len(labels) == 0 {
		return
	}
	workloads := l.set.WorkloadsIn(o.Key.Namespace)
	if o.Key.Namespace == l.mesh.RootNamespace {
		workloads = l.set.Workloads()
	}
	var bare []string
	for w := range workloads {
		if !policy.Selects(labels, w.Labels) {
			continue
		}
		if l.serves(w) {
			return
		}
		bare = append(bare, w.String())
	}
	if len(bare) > 0 {
		l.warn(o, "spec.selector.matchLabels", CodeNoPort, "name the ports: spec.ports of the WorkloadEntry, as {http: 8080}, or a Service that selects it",
			"no port of %s is known, so its proxy serves none and the policy guards nothing: what reaches the service passes no proxy", strings.Join(bare, ", "))
	}
}

// serves tells whether a workload has a port that its proxy serves.
func (l *linter) serves(w *policy.Workload) bool {
	if w.Gateway != nil || len(w.Entry.Spec.GetPorts()) > 0 {
		return true
	}
	for s := range policy.In[*policy.Service](l.set, w.Namespace) {
		if s.Spec != nil && len(s.Spec.Selector) > 0 && len(s.Spec.Ports) > 0 && policy.Selects(s.Spec.Selector, w.Labels) {
			return true
		}
	}
	for s := range policy.All[*policy.ServiceEntry](l.set) {
		labels := s.Spec.GetWorkloadSelector().GetLabels()
		if len(labels) > 0 && len(s.Spec.GetPorts()) > 0 && s.Key.Namespace == w.Namespace && policy.Selects(labels, w.Labels) {
			return true
		}
	}
	for s := range policy.In[*policy.Sidecar](l.set, w.Namespace) {
		if len(s.Spec.GetIngress()) > 0 && policy.Selects(s.Spec.GetWorkloadSelector().GetLabels(), w.Labels) {
			return true
		}
	}
	return w.Entry.Annotations["sidecar.istio.io/interceptionMode"] == "REDIRECT" || l.mesh.DefaultConfig.InterceptionMode == "REDIRECT"
}
