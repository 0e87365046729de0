package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/credence-mesh/credence/policy"
)

// paths finds rules on paths that another spelling of the path gets around. A rule that lists what may pass is safe against spellings that it
// does not know; one that lists what may not is open to them.
func (l *linter) paths(p *policy.AuthorizationPolicy) {
	if watches(p) || !allow(p) && !deny(p) {
		return
	}
	strict := l.mesh.Paths() == policy.NormalizationStrict
	for i, r := range p.Spec.GetRules() {
		for j, t := range r.GetTo() {
			at := fmt.Sprintf("spec.rules[%d].to[%d].operation.", i, j)
			closed, open, closedName, openName := t.GetOperation().GetPaths(), t.GetOperation().GetNotPaths(), "paths", "notPaths"
			if allow(p) {
				closed, open, closedName, openName = open, closed, openName, closedName
			}
			l.spellings(p, at+closedName, closed)
			if !strict {
				l.prefixes(p, at+openName, open)
			}
		}
	}
}

// spellings looks at paths that are kept from passing: what the service takes for the same path, and the rule does not, gets through.
func (l *linter) spellings(p *policy.AuthorizationPolicy, field string, values []string) {
	for i, v := range values {
		other := spelled(v)
		if other == "" || deny(p) && l.refused(p, other) {
			continue
		}
		l.warn(&p.Object, fmt.Sprintf("%s[%d]", field, i), CodePathSpelling,
			"list what may pass: an ALLOW policy with paths, or a DENY policy with notPaths",
			"%q is kept out in this spelling alone: if the service does not tell %q or %q from it, they pass", v, other, parameter(v))
		return
	}
}

// spelled is a path that a pattern matches, in another case; empty where no spelling escapes it.
func spelled(pattern string) string {
	plain := strings.TrimRight(strings.NewReplacer("{**}", "a", "{*}", "a").Replace(pattern), "*")
	if !strings.HasPrefix(plain, "/") || strings.Trim(plain, "/") == "" {
		return ""
	}
	cut := strings.LastIndexByte(strings.TrimRight(plain, "/"), '/') + 1
	other := plain[:cut] + strings.ToUpper(plain[cut:])
	if other == plain {
		other = plain[:cut] + strings.ToLower(plain[cut:])
	}
	if other == plain {
		return ""
	}
	return other
}

// parameter is the pattern's path with a path parameter in it.
func parameter(pattern string) string {
	return strings.TrimRight(strings.TrimRight(pattern, "*"), "/") + ";x"
}

// refused tells whether ALLOW policies hold everywhere where p does, and none of their rules lets the path pass.
func (l *linter) refused(p *policy.AuthorizationPolicy, path string) bool {
	if !slices.ContainsFunc(l.over(p), allow) {
		return false
	}
	for _, q := range l.policies(p.Key.Namespace) {
		if q.Spec == nil || !allow(q) || !meets(p.Spec.GetSelector().GetMatchLabels(), q.Spec.GetSelector().GetMatchLabels()) {
			continue
		}
		for _, r := range q.Spec.GetRules() {
			if len(r.GetTo()) == 0 {
				return false
			}
			for _, t := range r.GetTo() {
				if o := t.GetOperation(); len(o.GetPaths()) == 0 || match(pattern).all([]string{path}, o.GetPaths()) {
					return false
				}
			}
		}
	}
	return true
}

// prefixes looks at prefixes that let requests pass, where paths are not made canonical as far as services read them.
func (l *linter) prefixes(p *policy.AuthorizationPolicy, field string, values []string) {
	for i, v := range values {
		prefix, ok := strings.CutSuffix(v, "*")
		if !ok || strings.Trim(prefix, "/") == "" {
			continue
		}
		l.warn(&p.Object, fmt.Sprintf("%s[%d]", field, i), CodePathPrefix,
			"mesh.pathNormalization.normalization: STRICT in credence.yaml, which refuses such requests; or list whole paths",
			"with path normalization %s %q also lets %q and %q pass, which many services read as a path outside of it",
			l.mesh.Paths(), v, prefix+"..;/admin", prefix+"..%2fadmin")
		return
	}
}
