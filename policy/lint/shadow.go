package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/credence-mesh/credence/policy"
)

// annotationDryRun and annotationMode mark policies that only watch, and so neither open nor close anything.
const (
	annotationDryRun = "istio.io/dry-run"
	annotationMode   = "credence.dev/mode"
)

// watches tells whether a policy is only tried.
func watches(p *policy.AuthorizationPolicy) bool {
	return p.Annotations[annotationDryRun] == "true" || p.Annotations[annotationMode] == "shadow"
}

// shadows finds rules that change nothing: a wider rule of the same action matches all that they match, or a DENY rule refuses it.
func (l *linter) shadows(p *policy.AuthorizationPolicy) {
	if watches(p) || !allow(p) && !deny(p) {
		return
	}
	for i := range p.Spec.GetRules() {
		l.shadow(p, i)
	}
}

func (l *linter) shadow(p *policy.AuthorizationPolicy, i int) {
	rule, at := p.Spec.GetRules()[i], fmt.Sprintf("spec.rules[%d]", i)
	for _, q := range l.over(p) {
		for j, other := range q.Spec.GetRules() {
			if q == p && i == j || !coversRule(other, rule) {
				continue
			}
			where := fmt.Sprintf("rule %d of %s (%s)", j, q.Key, q.Where(fmt.Sprintf("spec.rules[%d]", j)))
			switch {
			case deny(q) && allow(p):
				l.warn(&p.Object, at, CodeRuleUnreachable, "remove the rule, or exempt it from the DENY rule",
					"allows nothing: %s denies every request that it matches, and DENY comes first", where)
				return
			case deny(q) == deny(p) && (!coversRule(rule, other) || before(q, j, p, i)):
				l.warn(&p.Object, at, CodeRuleShadowed, "remove it, or narrow the wider rule if this one was to restrict it",
					"changes nothing: %s matches every request that it matches", where)
				return
			}
		}
	}
}

// over yields the policies that hold on every workload on which p holds.
func (l *linter) over(p *policy.AuthorizationPolicy) []*policy.AuthorizationPolicy {
	spaces := []string{p.Key.Namespace, l.mesh.RootNamespace}
	if p.Key.Namespace == l.mesh.RootNamespace {
		spaces = spaces[:1]
	}
	var out []*policy.AuthorizationPolicy
	add := func(list []*policy.AuthorizationPolicy) {
		for _, q := range list {
			if q == p || holds(q, p) {
				out = append(out, q)
			}
		}
	}
	for _, space := range spaces {
		index := l.active(space)
		add(index[""])
		for k, v := range p.Spec.GetSelector().GetMatchLabels() {
			add(index[k+"="+v])
		}
	}
	slices.SortFunc(out, func(a, b *policy.AuthorizationPolicy) int { return strings.Compare(a.Key.String(), b.Key.String()) })
	return out
}

// active is the ALLOW and DENY policies of a namespace by the first label of their selectors, so that a policy is compared only with those
// that may cover it: all labels of such a one are among its own.
func (l *linter) active(space string) map[string][]*policy.AuthorizationPolicy {
	if index, ok := l.byLabel[space]; ok {
		return index
	}
	index := map[string][]*policy.AuthorizationPolicy{}
	for q := range policy.In[*policy.AuthorizationPolicy](l.set, space) {
		if q.Void || q.Spec == nil || watches(q) || !allow(q) && !deny(q) {
			continue
		}
		first := ""
		for k, v := range q.Spec.GetSelector().GetMatchLabels() {
			if label := k + "=" + v; first == "" || label < first {
				first = label
			}
		}
		index[first] = append(index[first], q)
	}
	l.byLabel[space] = index
	return index
}

// holds tells whether q holds wherever p does. Of policies with targets only one policy's own rules are compared.
func holds(q, p *policy.AuthorizationPolicy) bool {
	if q.Spec.GetTargetRef() != nil || p.Spec.GetTargetRef() != nil || len(q.Spec.GetTargetRefs())+len(p.Spec.GetTargetRefs()) > 0 {
		return false
	}
	labels := p.Spec.GetSelector().GetMatchLabels()
	for k, v := range q.Spec.GetSelector().GetMatchLabels() {
		if w, ok := labels[k]; !ok || v != w {
			return false
		}
	}
	return true
}

// before orders two rules that match the same, so that one of them is told and not both.
func before(q *policy.AuthorizationPolicy, j int, p *policy.AuthorizationPolicy, i int) bool {
	if q == p {
		return j < i
	}
	return q.Key.String() < p.Key.String()
}
