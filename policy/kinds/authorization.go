package kinds

import (
	"fmt"
	"strconv"
	"strings"

	securityv1beta1 "istio.io/api/security/v1beta1"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/policy/strict"
)

// The limits of Istio's schema.
const (
	maxRulesOfPolicy  = 512
	maxServiceAccount = 320
)

// dryRun is Istio's annotation for a policy that is only tried.
const dryRun = "istio.io/dry-run"

func authorizationPolicy(o *object) policy.Resource {
	spec := specOf[securityv1beta1.AuthorizationPolicy](o)
	o.targets(spec.GetSelector(), spec.GetTargetRef(), spec.GetTargetRefs())
	o.action(spec)
	o.atMost("spec.rules", len(spec.GetRules()), maxRulesOfPolicy)
	for i, rule := range spec.GetRules() {
		o.rule(fmt.Sprintf("spec.rules[%d]", i), rule, spec.GetAction() == securityv1beta1.AuthorizationPolicy_CUSTOM)
	}
	return &policy.AuthorizationPolicy{Spec: spec}
}

func (o *object) action(spec *securityv1beta1.AuthorizationPolicy) {
	action := spec.GetAction()
	custom := action == securityv1beta1.AuthorizationPolicy_CUSTOM
	if (custom || action == securityv1beta1.AuthorizationPolicy_DENY) && len(spec.GetRules()) == 0 {
		o.refuse("spec.rules", CodeRulesRequired, "rules: [{}] matches every request", "a policy with action %s and no rules never matches", action)
	}
	if custom && spec.GetProvider().GetName() == "" {
		o.refuse("spec.provider", CodeMissingField, "provider: {name: opa}", "action CUSTOM needs the name of a provider")
	}
	if !custom && spec.GetProvider() != nil {
		o.refuse("spec.provider", CodeConflict, "remove it, or set action: CUSTOM", "a provider is for action CUSTOM, not for %s", action)
	}
	value, set := o.meta.Annotations[dryRun]
	if !set {
		return
	}
	if _, err := strconv.ParseBool(value); err != nil {
		o.refuse("metadata.annotations["+dryRun+"]", CodeBadValue, `"true" or "false"`, "%q is no boolean", value)
	}
	if custom || action == securityv1beta1.AuthorizationPolicy_AUDIT {
		o.refuse("metadata.annotations["+dryRun+"]", CodeDryRunAction, "remove the annotation", "dry run is for ALLOW and DENY, not for %s", action)
	}
}

func (o *object) rule(at string, r *securityv1beta1.Rule, custom bool) {
	if o.emptyList(at+".from", len(r.GetFrom())) {
		o.refuse(at+".from", CodeEmptyMatch, "leave from out to match every caller", "the list is empty")
	}
	if o.emptyList(at+".to", len(r.GetTo())) {
		o.refuse(at+".to", CodeEmptyMatch, "leave to out to match every request", "the list is empty")
	}
	o.atMost(at+".from", len(r.GetFrom()), maxRulesOfPolicy)
	for i, f := range r.GetFrom() {
		field := fmt.Sprintf("%s.from[%d]", at, i)
		if f.GetSource() == nil {
			o.refuse(field, CodeEmptyMatch, "from: [{source: {principals: [...]}}], or leave from out to match every caller", "source is missing")
			continue
		}
		o.source(field+".source", f.GetSource(), custom)
	}
	for i, t := range r.GetTo() {
		field := fmt.Sprintf("%s.to[%d]", at, i)
		if t.GetOperation() == nil {
			o.refuse(field, CodeEmptyMatch, "to: [{operation: {paths: [...]}}], or leave to out to match every request", "operation is missing")
			continue
		}
		o.operation(field+".operation", t.GetOperation())
	}
	for i, c := range r.GetWhen() {
		o.condition(fmt.Sprintf("%s.when[%d]", at, i), c, custom)
	}
}

// list is one field of a source or of an operation.
type list struct {
	name   string
	values []string
}

// lists reports empty values, and tells whether any list has one at all.
func (o *object) lists(at string, fields []list) bool {
	some := false
	for _, f := range fields {
		some = some || len(f.values) > 0
		o.noneEmpty(at+"."+f.name, f.values)
	}
	return some
}

func (o *object) source(at string, s *securityv1beta1.Source, custom bool) {
	verified := []list{
		{"principals", s.GetPrincipals()}, {"notPrincipals", s.GetNotPrincipals()}, {"namespaces", s.GetNamespaces()},
		{"notNamespaces", s.GetNotNamespaces()}, {"serviceAccounts", s.GetServiceAccounts()}, {"notServiceAccounts", s.GetNotServiceAccounts()},
		{"trustDomains", s.GetTrustDomains()}, {"notTrustDomains", s.GetNotTrustDomains()},
		{"requestPrincipals", s.GetRequestPrincipals()}, {"notRequestPrincipals", s.GetNotRequestPrincipals()},
	}
	blocks := []list{
		{"ipBlocks", s.GetIpBlocks()}, {"notIpBlocks", s.GetNotIpBlocks()},
		{"remoteIpBlocks", s.GetRemoteIpBlocks()}, {"notRemoteIpBlocks", s.GetNotRemoteIpBlocks()},
	}
	some := o.lists(at, verified)
	if !o.lists(at, blocks) && !some {
		o.refuse(at, CodeEmptyMatch, "name a field, or leave from out to match every caller", "a source with no fields")
	}
	for _, f := range verified {
		if custom && len(f.values) > 0 {
			o.refuse(at+"."+f.name, CodeCustomField, "move it to an ALLOW or DENY policy", "%s may not be in a CUSTOM rule, which Istio decides before it is verified", f.name)
		}
	}
	for _, f := range blocks {
		o.ipBlocks(at+"."+f.name, f.values)
	}
	o.serviceAccounts(at, s)
}

func (o *object) serviceAccounts(at string, s *securityv1beta1.Source) {
	for _, f := range []list{{"serviceAccounts", s.GetServiceAccounts()}, {"notServiceAccounts", s.GetNotServiceAccounts()}} {
		o.atMost(at+"."+f.name, len(f.values), maxTargets)
		for i, v := range f.values {
			if strings.Contains(v, "*") || strings.Count(v, "/") > 1 || strings.HasPrefix(v, "/") || strings.HasSuffix(v, "/") || len(v) > maxServiceAccount {
				o.refuse(fmt.Sprintf("%s.%s[%d]", at, f.name, i), CodeBadValue, "namespace/name or name", "%q is no service account", v)
			}
		}
	}
	accounts := len(s.GetServiceAccounts())+len(s.GetNotServiceAccounts()) > 0
	others := len(s.GetPrincipals())+len(s.GetNotPrincipals())+len(s.GetNamespaces())+len(s.GetNotNamespaces()) > 0
	if accounts && others {
		o.refuse(at+".serviceAccounts", CodeConflict, "keep serviceAccounts alone", "serviceAccounts excludes principals and namespaces")
	}
}

func (o *object) ipBlocks(field string, values []string) {
	for i, v := range values {
		if v != "" && !ipBlock(v) {
			o.refuse(fmt.Sprintf("%s[%d]", field, i), CodeBadIPBlock, "10.0.0.0/8 or 10.1.2.3", "%q is no IP address or CIDR block", v)
		}
	}
}

func (o *object) operation(at string, p *securityv1beta1.Operation) {
	paths := []list{{"paths", p.GetPaths()}, {"notPaths", p.GetNotPaths()}}
	ports := []list{{"ports", p.GetPorts()}, {"notPorts", p.GetNotPorts()}}
	others := []list{
		{"hosts", p.GetHosts()}, {"notHosts", p.GetNotHosts()}, {"methods", p.GetMethods()}, {"notMethods", p.GetNotMethods()},
	}
	some := o.lists(at, paths)
	some = o.lists(at, ports) || some
	if !o.lists(at, others) && !some {
		o.refuse(at, CodeEmptyMatch, "name a field, or leave to out to match every request", "an operation with no fields")
	}
	for _, f := range paths {
		for i, v := range f.values {
			if why := templateError(v); why != "" {
				o.refuse(fmt.Sprintf("%s.%s[%d]", at, f.name, i), CodeBadPathTemplate, "/tenants/{*}/orders or /files/{**}", "path template %q: %s", v, why)
			}
		}
	}
	for _, f := range ports {
		o.ports(at+"."+f.name, f.values)
	}
}

func (o *object) ports(field string, values []string) {
	for i, v := range values {
		if n, err := strconv.Atoi(v); v != "" && (err != nil || !port(n)) {
			o.refuse(fmt.Sprintf("%s[%d]", field, i), CodeBadPort, "1 to 65535", "%q is no port", v)
		}
	}
}

// templateError says what is wrong with a path that uses Istio's operators {*} and {**}; empty: nothing. A template that Envoy does not
// understand is not refused by it but crashes it.
func templateError(path string) string {
	if !strings.Contains(path, "{*}") && !strings.Contains(path, "{**}") {
		return ""
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		switch s {
		case "*", "**":
			return "{*} and {**} stand for segments, and no other star may"
		case "{*}", "{**}":
			segments[i] = strings.Trim(s, "{}")
		}
	}
	if err := authz.ValidTemplate(strings.Join(segments, "/")); err != nil {
		return err.Error()
	}
	return ""
}

func conditionKeys() []string {
	return []string{
		"source.ip", "remote.ip", "source.namespace", "source.serviceAccount", "source.principal", "source.trustDomain",
		"request.auth.principal", "request.auth.audiences", "request.auth.presenter", "destination.ip", "destination.port", "connection.sni",
		"request.headers[name]", "request.auth.claims[name]", "experimental.envoy.filters.name[key]",
	}
}

func (o *object) condition(at string, c *securityv1beta1.Condition, custom bool) {
	key := c.GetKey()
	if len(c.GetValues())+len(c.GetNotValues()) == 0 {
		o.refuse(at, CodeMissingField, "values: [\"…\"]", "a condition has values or notValues")
	}
	o.lists(at, []list{{"values", c.GetValues()}, {"notValues", c.GetNotValues()}})
	if !knownCondition(key) {
		try := "one of " + strings.Join(conditionKeys(), ", ")
		if near, ok := strict.Nearest(key, conditionKeys()); ok {
			try = "did you mean " + near + "?"
		}
		o.refuse(at+".key", CodeUnknownCondition, try, "unknown key %q", key)
		return
	}
	if custom && verifiedCondition(key) {
		o.refuse(at+".key", CodeCustomField, "move it to an ALLOW or DENY policy", "%s may not be in a CUSTOM rule, which Istio decides before it is verified", key)
	}
	for _, f := range []list{{"values", c.GetValues()}, {"notValues", c.GetNotValues()}} {
		switch key {
		case "source.ip", "remote.ip", "destination.ip":
			o.ipBlocks(at+"."+f.name, f.values)
		case "destination.port":
			o.ports(at+"."+f.name, f.values)
		}
	}
}

func verifiedCondition(key string) bool {
	switch key {
	case "source.namespace", "source.principal", "source.serviceAccount", "source.trustDomain":
		return true
	}
	return strings.HasPrefix(key, "request.auth.")
}

func knownCondition(key string) bool {
	for _, prefix := range []string{"request.headers", "request.auth.claims"} {
		if rest, ok := strings.CutPrefix(key, prefix); ok {
			n := brackets(rest)
			return n == 1 || n > 1 && prefix == "request.auth.claims"
		}
	}
	if rest, ok := strings.CutPrefix(key, "experimental.envoy.filters."); ok {
		open := strings.IndexByte(rest, '[')
		return open > 0 && brackets(rest[open:]) > 0
	}
	for _, k := range conditionKeys() {
		if k == key {
			return true
		}
	}
	return false
}

// brackets counts the steps of "[a][b]"; 0: not of that form.
func brackets(s string) int {
	n := 0
	for s != "" {
		end := strings.IndexByte(s, ']')
		if s[0] != '[' || end < 2 || strings.IndexByte(s[1:end], '[') >= 0 {
			return 0
		}
		n, s = n+1, s[end+1:]
	}
	return n
}
