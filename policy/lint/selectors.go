package lint

import (
	"slices"
	"strings"

	"github.com/credence-mesh/credence/policy"
)

// selectors finds policies whose selector selects no workload. A selector looks in its own namespace only, that of the root namespace in all.
func (l *linter) selectors() {
	for p := range policy.All[*policy.AuthorizationPolicy](l.set) {
		l.selector(&p.Object, "spec.selector.matchLabels", p.Spec.GetSelector().GetMatchLabels())
	}
	for p := range policy.All[*policy.RequestAuthentication](l.set) {
		l.selector(&p.Object, "spec.selector.matchLabels", p.Spec.GetSelector().GetMatchLabels())
	}
	for p := range policy.All[*policy.PeerAuthentication](l.set) {
		l.selector(&p.Object, "spec.selector.matchLabels", p.Spec.GetSelector().GetMatchLabels())
	}
	for p := range policy.All[*policy.Telemetry](l.set) {
		l.selector(&p.Object, "spec.selector.matchLabels", p.Spec.GetSelector().GetMatchLabels())
	}
	for p := range policy.All[*policy.EnvoyFilter](l.set) {
		l.selector(&p.Object, "spec.workloadSelector.labels", p.Spec.GetWorkloadSelector().GetLabels())
	}
	for p := range policy.All[*policy.Sidecar](l.set) {
		l.selector(&p.Object, "spec.workloadSelector.labels", p.Spec.GetWorkloadSelector().GetLabels())
	}
}

func (l *linter) selector(o *policy.Object, field string, labels map[string]string) {
	if len(labels) == 0 || o.Void || l.selected(o.Key.Namespace, labels) {
		return
	}
	if where := l.elsewhere(labels); len(where) > 0 {
		l.warn(o, field, CodeSelectsNothing, "move the policy to namespace "+where[0],
			"selects no workload: a selector looks in its own namespace, and the workloads with these labels are in %s", strings.Join(where, ", "))
		return
	}
	if labels["istio"] == "ingressgateway" && o.Key.Namespace != l.mesh.RootNamespace {
		l.warn(o, field, CodeSelectsNothing, "move the policy to the gateway's namespace, or name the gateway in spec.targetRefs",
			"selects no workload: a selector looks in its own namespace, and Istio's ingress gateway does not run in %s", o.Key.Namespace)
		return
	}
	severity := policy.Warning
	if l.empty() {
		severity = policy.Info // only policies are here: nothing can tell what they will select
	}
	l.tell(o, field, finding{CodeSelectsNothing, severity, "no WorkloadEntry and no Gateway has these labels: the policy has no effect", "compare the labels with those of the workload"})
}

func (l *linter) selected(namespace string, labels map[string]string) bool {
	workloads := l.set.WorkloadsIn(namespace)
	if namespace == l.mesh.RootNamespace {
		workloads = l.set.Workloads()
	}
	for w := range workloads {
		if policy.Selects(labels, w.Labels) {
			return true
		}
	}
	return false
}

func (l *linter) elsewhere(labels map[string]string) []string {
	var out []string
	for w := range l.set.Workloads() {
		if policy.Selects(labels, w.Labels) && !slices.Contains(out, w.Namespace) {
			out = append(out, w.Namespace)
		}
	}
	return out
}

func (l *linter) empty() bool {
	for range l.set.Workloads() {
		return false
	}
	return true
}
