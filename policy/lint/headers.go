package lint

import (
	"fmt"
	"strings"

	"github.com/credence-mesh/credence/policy"
)

// headers finds conditions on headers that any client can send. A header that a RequestAuthentication writes is taken from clients first.
func (l *linter) headers(p *policy.AuthorizationPolicy) {
	if watches(p) {
		return
	}
	for i, r := range p.Spec.GetRules() {
		for j, c := range r.GetWhen() {
			name, ok := strings.CutPrefix(strings.TrimSuffix(c.GetKey(), "]"), "request.headers[")
			if !ok || strings.HasPrefix(name, ":") || l.written(p, name) {
				continue
			}
			effect := "whoever sends it is let in"
			if !allow(p) {
				effect = "whoever sends another value, or none, is not covered"
			}
			l.warn(&p.Object, fmt.Sprintf("spec.rules[%d].when[%d].key", i, j), CodeHeaderFromClient,
				"a claim (request.auth.claims[…]), or a principal; or have a RequestAuthentication write the header from a claim (outputClaimToHeaders)",
				"clients choose the header %s themselves: %s", name, effect)
			break
		}
	}
}

// written tells whether a RequestAuthentication writes a header on the workloads of a policy, and so removes it from what clients send.
func (l *linter) written(p *policy.AuthorizationPolicy, name string) bool {
	for _, r := range inScope[*policy.RequestAuthentication](l, p.Key.Namespace) {
		if r.Spec == nil || !meets(p.Spec.GetSelector().GetMatchLabels(), r.Spec.GetSelector().GetMatchLabels()) {
			continue
		}
		for _, rule := range r.Spec.GetJwtRules() {
			if strings.EqualFold(rule.GetOutputPayloadToHeader(), name) {
				return true
			}
			for _, c := range rule.GetOutputClaimToHeaders() {
				if strings.EqualFold(c.GetHeader(), name) {
					return true
				}
			}
		}
	}
	return false
}
