package explain

import (
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"

	"github.com/credence-mesh/credence/policy"
)

// rule is one policy of an RBAC filter.
type rule struct {
	id                     string
	permission, principals condition
	conditional            bool // has a CEL expression, which is not evaluated
}

func (x *rule) matches(r *run) answer {
	a := every([]condition{x.permission, x.principals}, func(c condition) answer { return c.ask(r) })
	if x.conditional && a == yes {
		return maybe
	}
	return a
}

// rules are the policies in the order in which Envoy asks them: that of their names.
func (m *memory) rulesOf(config *rbacconfigv3.RBAC) []*rule {
	if known, ok := m.rules.Load(config); ok {
		return known.([]*rule)
	}
	var out []*rule
	for _, id := range slices.Sorted(maps.Keys(config.GetPolicies())) {
		p := config.GetPolicies()[id]
		out = append(out, &rule{
			id: id, permission: condition{kind: isOr, of: permissions(p.GetPermissions())}, principals: condition{kind: isOr, of: principals(p.GetPrincipals())},
			conditional: p.GetCondition() != nil || p.GetCheckedCondition() != nil,
		})
	}
	m.rules.Store(config, out)
	return out
}

// first is the first rule that matches, and whether one before it may match.
func (r *run) first(config *rbacconfigv3.RBAC) (*rule, answer) {
	a := no
	for _, x := range r.config.remembered.rulesOf(config) {
		switch x.matches(r) {
		case yes:
			return x, yes
		case maybe:
			a = maybe
		case no:
		}
	}
	return nil, a
}

// authorization evaluates the rules of an RBAC filter and denies with code.
func (r *run) authorization(name string, config *rbacconfigv3.RBAC, code int) {
	matched, a := r.first(config)
	switch config.GetAction() {
	case rbacconfigv3.RBAC_LOG:
		if matched != nil {
			r.step(Step{Name: name, Outcome: Noted, Detail: "is audited by " + r.named(matched.id), Policy: matched.id, At: r.origin(matched.id).at})
		}
	case rbacconfigv3.RBAC_DENY:
		r.denying(name, config, matched, a, code)
	default:
		r.allowing(name, config, matched, a, code)
	}
}

func (r *run) denying(name string, config *rbacconfigv3.RBAC, matched *rule, a answer, code int) {
	switch {
	case a == maybe:
		r.unsure(name, "a DENY rule has a condition that cannot be evaluated here")
	case matched == nil && empty(config):
		r.skip(name, "no DENY rule")
	case matched == nil:
		r.pass(name, "no DENY rule matches")
	default:
		by := r.origin(matched.id)
		because := "a DENY rule matches: " + r.named(matched.id)
		if strings.HasSuffix(matched.id, badProvider) {
			because = "nobody can decide for a CUSTOM rule that matches: " + r.named(matched.id)
		}
		if reason, ok := strings.CutPrefix(matched.id, "credence-ambiguous-"); ok {
			because = "two servers could read the request differently: " + reason
		}
		if matched.id == "credence-invalid-policy" {
			because = "a policy that covers the workload is invalid, so everything is refused"
		}
		r.denied(name, code, because, by)
	}
}

func (r *run) allowing(name string, config *rbacconfigv3.RBAC, matched *rule, a answer, code int) {
	switch {
	case matched != nil && matched.id == "credence-open":
		r.skip(name, "no ALLOW policy selects the workload")
	case matched != nil:
		by := r.origin(matched.id)
		r.out.Policy, r.out.Rule, r.out.At = by.policy, by.rule, by.at
		r.out.Because = "an ALLOW rule matches: " + r.named(matched.id)
		r.step(Step{Name: name, Outcome: Passed, Detail: r.out.Because, Policy: matched.id, At: by.at})
	case a == maybe:
		r.unsure(name, "an ALLOW rule has a condition that cannot be evaluated here")
	default:
		r.out.Nearest = r.nearest(config)
		var by decided
		because := "ALLOW policies select the workload and none of their rules matches"
		if n := r.out.Nearest; n != nil {
			by = decided{policy: n.Policy, rule: NoRule, at: n.At} // no rule decided: that none matched did
		} else {
			because = "ALLOW policies select the workload and have no rule for this port"
			by = r.selecting(name)
		}
		r.denied(name, code, because, by)
	}
}

// selecting is the ALLOW policy that closes a workload although none of its rules is there to ask.
func (r *run) selecting(name string) decided {
	for _, s := range r.config.extensions[name].sources {
		return decided{rule: NoRule, policy: objectName(s.Object), at: s.At}
	}
	return decided{rule: NoRule}
}

func objectName(object string) string {
	_, name, _ := strings.Cut(object, " ")
	return name
}

// shadow evaluates rules that are only watched.
func (r *run) shadow(name string, config *rbacconfigv3.RBAC, prefix, namespace string) {
	if config == nil {
		return
	}
	matched, a := r.first(config)
	if matched != nil {
		r.metadata.set(namespace, prefix+"shadow_effective_policy_id", text(matched.id))
	}
	if strings.HasPrefix(prefix, "istio_ext_authz_") {
		if a == maybe {
			r.unsure(name, "a CUSTOM rule has a condition that cannot be evaluated here")
		} else if matched != nil {
			r.step(Step{Name: name, Outcome: Noted, Detail: "a CUSTOM rule matches: " + r.named(matched.id), Policy: matched.id, At: r.origin(matched.id).at})
		}
		return
	}
	switch {
	case !strings.HasPrefix(prefix, "istio_"): // rules of our own, which mark and decide nothing
	case a == maybe:
		r.note(name, "dry run: cannot be evaluated here")
	case matched != nil && config.GetAction() == rbacconfigv3.RBAC_DENY:
		r.step(Step{Name: name, Outcome: Noted, Detail: "dry run: would be denied by " + r.named(matched.id), Policy: matched.id, At: r.origin(matched.id).at})
	case matched != nil:
		r.step(Step{Name: name, Outcome: Noted, Detail: "dry run: would be allowed by " + r.named(matched.id), Policy: matched.id, At: r.origin(matched.id).at})
	case config.GetAction() == rbacconfigv3.RBAC_ALLOW:
		r.note(name, "dry run: no ALLOW rule matches, so it would be denied")
	}
}

func empty(config *rbacconfigv3.RBAC) bool {
	_, none := config.GetPolicies()["credence-none"]
	return none || len(config.GetPolicies()) == 0
}

const badProvider = "-deny-due-to-bad-CUSTOM-action"

// Rule names a rule of an AuthorizationPolicy.
type Rule struct {
	Namespace, Name string
	Index           int
}

// String is "namespace/name rule 0".
func (x Rule) String() string { return fmt.Sprintf("%s/%s rule %d", x.Namespace, x.Name, x.Index) }

// RuleOf reads the id of a rule: "ns[production]-policy[require-jwt]-rule[0]", whatever stands around it.
func RuleOf(id string) (Rule, bool) {
	id = strings.TrimSuffix(id, badProvider)
	at := strings.Index(id, "ns[")
	if at < 0 {
		return Rule{}, false
	}
	ns, rest, ok := strings.Cut(id[at+len("ns["):], "]-policy[")
	name, index, also := strings.Cut(rest, "]-rule[")
	n, err := strconv.Atoi(strings.TrimSuffix(index, "]"))
	return Rule{ns, name, n}, ok && also && err == nil
}

func (r *run) named(id string) string {
	if x, ok := RuleOf(id); ok {
		return x.String()
	}
	return id
}

// origin is where a rule was written.
func (r *run) origin(id string) decided {
	x, ok := RuleOf(id)
	if !ok {
		return decided{id: id, rule: NoRule}
	}
	return decided{id: id, policy: x.Namespace + "/" + x.Name, rule: x.Index, at: Where(r.set, x, "")}
}

// Where is the place of a rule, or of a field of it that begins with suffix; "file:line".
func Where(set *policy.Set, x Rule, suffix string) string {
	p, ok := policy.Get[*policy.AuthorizationPolicy](set, x.Namespace, x.Name)
	if !ok {
		return ""
	}
	return p.Where(fmt.Sprintf("spec.rules[%d]%s", x.Index, suffix)).String()
}
