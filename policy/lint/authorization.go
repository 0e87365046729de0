package lint

import (
	"fmt"
	"slices"
	"strings"

	securityv1beta1 "istio.io/api/security/v1beta1"

	"github.com/credence-mesh/credence/policy"
)

func (l *linter) authorization(p *policy.AuthorizationPolicy) {
	labels := p.Spec.GetSelector().GetMatchLabels()
	issuers := l.issuers(p.Key.Namespace, labels)
	for i, rule := range p.Spec.GetRules() {
		at := fmt.Sprintf("spec.rules[%d]", i)
		for j, f := range rule.GetFrom() {
			source := fmt.Sprintf("%s.from[%d].source", at, j)
			l.principals(p, source+".requestPrincipals", f.GetSource().GetRequestPrincipals(), issuers)
			l.principals(p, source+".notRequestPrincipals", f.GetSource().GetNotRequestPrincipals(), issuers)
		}
		for j, c := range rule.GetWhen() {
			if c.GetKey() == "request.auth.principal" {
				l.principals(p, fmt.Sprintf("%s.when[%d].values", at, j), c.GetValues(), issuers)
			}
		}
		l.bound(p, at, rule, issuers)
	}
	l.shadows(p)
	l.paths(p)
	l.headers(p)
	switch {
	case deny(p):
		l.denies(p)
	case allow(p):
		l.closes(p, labels)
	case p.Spec.GetAction() == securityv1beta1.AuthorizationPolicy_CUSTOM:
		l.provider(&p.Object, "spec.provider.name", p.Spec.GetProvider().GetName())
	}
}

// principals finds request principals that no token can have. A principal is "<iss>/<sub>", split at the last slash.
func (l *linter) principals(p *policy.AuthorizationPolicy, field string, values, issuers []string) {
	for i, v := range values {
		cut := strings.LastIndexByte(v, '/')
		if cut <= 0 || strings.HasPrefix(v, "*") || len(issuers) == 0 || slices.Contains(issuers, v[:cut]) {
			continue
		}
		at := fmt.Sprintf("%s[%d]", field, i)
		if slices.Contains(issuers, v[:cut]+"/") {
			l.warn(&p.Object, at, CodePrincipalNeverMatches, v[:cut]+"/"+v[cut:],
				"the issuer is %q, with a slash at its end, and a principal is split at its last slash: this one never matches", v[:cut]+"/")
			continue
		}
		l.warn(&p.Object, at, CodePrincipalNeverMatches, "one of "+strings.Join(issuers, ", "),
			"no RequestAuthentication of these workloads accepts tokens of issuer %q: this principal never matches", v[:cut])
	}
}

// bound finds claims that any issuer can assert, where several issuers are trusted.
func (l *linter) bound(p *policy.AuthorizationPolicy, at string, rule *securityv1beta1.Rule, issuers []string) {
	if len(issuers) < 2 || deny(p) {
		return
	}
	for _, f := range rule.GetFrom() {
		for _, v := range f.GetSource().GetRequestPrincipals() {
			if !strings.HasPrefix(v, "*") {
				return
			}
		}
	}
	for _, c := range rule.GetWhen() {
		if c.GetKey() == "request.auth.claims[iss]" || c.GetKey() == "request.auth.principal" {
			return
		}
	}
	for i, c := range rule.GetWhen() {
		if strings.HasPrefix(c.GetKey(), "request.auth.claims[") && len(c.GetValues()) > 0 {
			l.warn(&p.Object, fmt.Sprintf("%s.when[%d].key", at, i), CodeClaimNotBound,
				fmt.Sprintf("add a condition: {key: \"request.auth.claims[iss]\", values: [%q]}", issuers[0]),
				"%d issuers are accepted, and any of them may assert this claim", len(issuers))
			return
		}
	}
}

// denies finds DENY rules that say more than they seem to. On a TCP port Istio drops the fields of a DENY rule that only HTTP has, so
// that the rule covers more.
func (l *linter) denies(p *policy.AuthorizationPolicy) {
	told := l.httpAlone(p.Key.Namespace, p.Spec.GetSelector().GetMatchLabels()) || len(p.Spec.GetTargetRefs()) > 0
	for i, rule := range p.Spec.GetRules() {
		at := fmt.Sprintf("spec.rules[%d]", i)
		if httpOnly(rule) && !onPorts(rule) && !told {
			told = true
			l.warn(&p.Object, at, CodeHTTPOnlyOnTCP, `name the HTTP ports: operation: {ports: ["8080"]}`,
				"the rule uses fields that only HTTP has: a TCP port drops them, and so denies every connection that the rest of the rule matches")
		}
		for j, f := range rule.GetFrom() {
			if slices.Contains(f.GetSource().GetNotRequestPrincipals(), "*") {
				l.info(&p.Object, fmt.Sprintf("%s.from[%d].source.notRequestPrincipals", at, j), CodeDenyAnswers403,
					"tell the clients' developers that 403 may mean a missing token; 401 is for tokens that are wrong",
					"a request without a token is answered 403 by a DENY policy, where clients expect 401")
			}
		}
	}
}

func httpOnly(r *securityv1beta1.Rule) bool {
	for _, f := range r.GetFrom() {
		if s := f.GetSource(); len(s.GetRequestPrincipals())+len(s.GetNotRequestPrincipals()) > 0 {
			return true
		}
	}
	for _, t := range r.GetTo() {
		o := t.GetOperation()
		if len(o.GetHosts())+len(o.GetNotHosts())+len(o.GetMethods())+len(o.GetNotMethods())+len(o.GetPaths())+len(o.GetNotPaths()) > 0 {
			return true
		}
	}
	return slices.ContainsFunc(r.GetWhen(), func(c *securityv1beta1.Condition) bool { return strings.HasPrefix(c.GetKey(), "request.") })
}

func onPorts(r *securityv1beta1.Rule) bool {
	for _, c := range r.GetWhen() {
		if c.GetKey() == "destination.port" {
			return true
		}
	}
	ports := len(r.GetTo()) > 0
	for _, t := range r.GetTo() {
		ports = ports && len(t.GetOperation().GetPorts()) > 0
	}
	return ports
}

// closes finds an ALLOW policy that stands alone and allows a part of the requests: all others are refused from then on. That is what a list
// of allowed calls is for, so it is a warning only where another policy tells that more was meant to pass.
func (l *linter) closes(p *policy.AuthorizationPolicy, labels map[string]string) {
	if len(p.Spec.GetRules()) == 0 || len(p.Spec.GetTargetRefs()) > 0 {
		return
	}
	if slices.ContainsFunc(p.Spec.GetRules(), func(r *securityv1beta1.Rule) bool { return len(r.GetTo()) == 0 }) {
		return
	}
	var paths []string
	var exempts *policy.AuthorizationPolicy
	for _, q := range l.policies(p.Key.Namespace) {
		if q == p || q.Spec == nil || !meets(labels, q.Spec.GetSelector().GetMatchLabels()) {
			continue
		}
		if allow(q) {
			return // what q allows is not known to be less than all that is wanted
		}
		if e := exempt(q); deny(q) && len(e) > 0 {
			paths, exempts = e, q
		}
	}
	paths = slices.DeleteFunc(paths, func(path string) bool { return allows(p, path) })
	if len(paths) > 0 {
		l.warn(&p.Object, "spec.rules", CodeAllowClosesRest, "add a rule: {to: [{operation: {paths: ["+quoted(paths)+"]}}]}",
			"this is the only ALLOW policy of its workloads, so all that it does not allow is answered 403: also %s, which %s lets through",
			strings.Join(paths, ", "), exempts.Key)
		return
	}
	l.info(&p.Object, "spec.rules", CodeAllowClosesRest, "add a rule for each request that shall pass",
		"this is the only ALLOW policy of its workloads, so all that it does not allow is answered 403, health checks too")
}

func quoted(values []string) string {
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = fmt.Sprintf("%q", v)
	}
	return strings.Join(out, ", ")
}

// exempt are the paths that a DENY policy leaves alone.
func exempt(p *policy.AuthorizationPolicy) []string {
	var out []string
	for _, r := range p.Spec.GetRules() {
		for _, t := range r.GetTo() {
			out = append(out, t.GetOperation().GetNotPaths()...)
		}
	}
	return out
}

func allows(p *policy.AuthorizationPolicy, path string) bool {
	for _, r := range p.Spec.GetRules() {
		for _, t := range r.GetTo() {
			for _, v := range t.GetOperation().GetPaths() {
				prefix, wild := strings.CutSuffix(v, "*")
				if v == path || wild && strings.HasPrefix(path, prefix) {
					return true
				}
			}
		}
	}
	return false
}

// embedded is the name of the decision service that is built in.
const embedded = "opa"

func (l *linter) provider(o *policy.Object, field, name string) {
	known := []string{}
	for _, e := range l.mesh.ExtensionProviders {
		known = append(known, e.Name)
	}
	if name == "" || name == embedded && o.Key.Kind == policy.KindAuthorizationPolicy || slices.Contains(known, name) {
		return
	}
	code, effect := CodeUnknownAuthorizer, "every request that the policy covers is refused"
	if o.Key.Kind == policy.KindTelemetry {
		code, effect = CodeUnknownProvider, "nothing could be sent to it"
	}
	l.warn(o, field, code, "define it in credence.yaml under mesh.extensionProviders", "provider %q is not defined: %s", name, effect)
}
