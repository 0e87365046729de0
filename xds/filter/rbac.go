package filter

import (
	"fmt"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/proto"

	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/xds/ir"
)

// Istio's prefixes of the metadata and statistics of rules that are only watched.
const (
	dryRunAllowPrefix = "istio_dry_run_allow_"
	dryRunDenyPrefix  = "istio_dry_run_deny_"
)

func rbacTypes() []proto.Message { return []proto.Message{&rbacv3.RBAC{}} }

// rbacDeny refuses what a DENY rule matches.
func rbacDeny(h *ir.HTTP) (made, error) {
	enforced, watched := split(h.Guard.Rules.Deny)
	rules, err := policies(rbacconfigv3.RBAC_DENY, enforced)
	if err != nil {
		return made{}, err
	}
	if refused(h.Guard) {
		rules = refuseAll()
	}
	config := &rbacv3.RBAC{Rules: rules}
	if len(watched) > 0 {
		if config.ShadowRules, err = policies(rbacconfigv3.RBAC_DENY, watched); err != nil {
			return made{}, err
		}
		config.ShadowRulesStatPrefix = dryRunDenyPrefix
	}
	return made{config: config, sources: append(sources(h.Guard.Rules.Deny), brokenSources(h.Guard)...)}, nil
}

// rbacAllow lets pass what an ALLOW rule matches, and everything where no ALLOW policy selects the workload.
func rbacAllow(h *ir.HTTP) (made, error) {
	rules, shadow, err := allowing(h.Guard.Rules)
	if err != nil {
		return made{}, err
	}
	config := &rbacv3.RBAC{Rules: rules, ShadowRules: shadow}
	if shadow != nil {
		config.ShadowRulesStatPrefix = dryRunAllowPrefix
	}
	return made{config: config, sources: sources(h.Guard.Rules.Allow)}, nil
}

func allowing(r authz.Rules) (rules, shadow *rbacconfigv3.RBAC, err error) {
	enforced, watched := split(r.Allow)
	if r.Open {
		rules = passAll()
	} else if rules, err = policies(rbacconfigv3.RBAC_ALLOW, enforced); err != nil {
		return nil, nil, err
	}
	if len(watched) > 0 {
		shadow, err = policies(rbacconfigv3.RBAC_ALLOW, watched)
	}
	return rules, shadow, err
}

// policies translates rules. An RBAC without any rule would mean "allow all" to Envoy, and one with an empty list differs by action: so
// that neither is ever emitted, no rules become one that matches nothing.
func policies(action rbacconfigv3.RBAC_Action, rules []authz.Rule) (*rbacconfigv3.RBAC, error) {
	out := &rbacconfigv3.RBAC{Action: action, Policies: map[string]*rbacconfigv3.Policy{}}
	for _, r := range rules {
		p, err := policyOf(r)
		if err != nil {
			return nil, fmt.Errorf("%s (%s): %w", r.Origin.Object, r.ID, err)
		}
		if _, twice := out.Policies[r.ID]; twice {
			return nil, fmt.Errorf("%s: two rules are called %s", r.Origin.Object, r.ID)
		}
		out.Policies[r.ID] = p
	}
	if len(out.Policies) == 0 {
		out.Policies["credence-none"] = &rbacconfigv3.Policy{
			Permissions: []*rbacconfigv3.Permission{permissionNot(permissionAny())},
			Principals:  []*rbacconfigv3.Principal{principalNot(principalAny())},
		}
	}
	return out, nil
}

func policyOf(r authz.Rule) (*rbacconfigv3.Policy, error) {
	who, err := principals(r.Principal)
	if err != nil {
		return nil, err
	}
	what, err := permissions(r.Permission)
	if err != nil {
		return nil, err
	}
	return &rbacconfigv3.Policy{Principals: who, Permissions: what}, nil
}

// principals spreads an outer OR over the list, which Envoy reads as one.
func principals(e authz.Expr) ([]*rbacconfigv3.Principal, error) {
	of := []authz.Expr{e}
	if or, ok := e.(authz.Any); ok && len(or.Of) > 0 {
		of = or.Of
	}
	return each(of, principal)
}

func permissions(e authz.Expr) ([]*rbacconfigv3.Permission, error) {
	of := []authz.Expr{e}
	if or, ok := e.(authz.Any); ok && len(or.Of) > 0 {
		of = or.Of
	}
	return each(of, permission)
}

func each[T any](of []authz.Expr, translate func(authz.Expr) (T, error)) ([]T, error) {
	out := make([]T, 0, len(of))
	for _, x := range of {
		t, err := translate(x)
		if err != nil {
			return nil, err
		}
		out = append(out, t)
	}
	return out, nil
}

func passAll() *rbacconfigv3.RBAC {
	return everything(rbacconfigv3.RBAC_ALLOW, "credence-open")
}

func refuseAll() *rbacconfigv3.RBAC {
	return everything(rbacconfigv3.RBAC_DENY, "credence-invalid-policy")
}

func everything(action rbacconfigv3.RBAC_Action, name string) *rbacconfigv3.RBAC {
	return &rbacconfigv3.RBAC{Action: action, Policies: map[string]*rbacconfigv3.Policy{
		name: {Permissions: []*rbacconfigv3.Permission{permissionAny()}, Principals: []*rbacconfigv3.Principal{principalAny()}},
	}}
}

// split parts rules in force from those that are only watched.
func split(rules []authz.Rule) (enforced, watched []authz.Rule) {
	for _, r := range rules {
		if r.DryRun {
			watched = append(watched, r)
		} else {
			enforced = append(enforced, r)
		}
	}
	return enforced, watched
}

func sources(rules []authz.Rule) []ir.Source {
	var out []ir.Source
	for _, r := range rules {
		if len(out) == 0 || out[len(out)-1] != r.Origin {
			out = append(out, r.Origin)
		}
	}
	return out
}
