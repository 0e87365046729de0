package authz

import (
	"fmt"
	"slices"
	"strconv"
	"strings"

	securityv1beta1 "istio.io/api/security/v1beta1"

	"github.com/credence-mesh/credence/policy"
)

// Protocol is what a port speaks, as far as policies see it.
type Protocol uint8

// The protocols.
const (
	HTTP Protocol = iota
	TCP           // bytes: what only HTTP has cannot be asked about
)

// EmbeddedOPA is the name of the provider that is the embedded decision service, unless mesh.extensionProviders gives that name a body.
const EmbeddedOPA = "opa"

// dryRun is Istio's annotation of a policy that is only watched.
const dryRun = "istio.io/dry-run"

// OriginOf names an object as the origin of a rule.
func OriginOf(o *policy.Object) Origin { return Origin{Object: o.Key.String(), At: o.At.String()} }

// For is what all AuthorizationPolicies together say about one port of a workload. Port is the workload's own; it decides conditions on
// the destination port right here. 0 leaves them to the proxy, for listeners that serve any port.
func For(set *policy.Set, w *policy.Workload, port uint32, proto Protocol) (Rules, []policy.Problem) {
	c := collector{set: set, client: w.Namespace, mesh: set.Mesh(), port: port, proto: proto, rules: Rules{Open: true}}
	for _, ns := range set.Namespaces(w) {
		for p := range policy.In[*policy.AuthorizationPolicy](set, ns) {
			if set.Attached(w, ns, policy.ScopeOf(p.Spec.GetSelector(), p.Spec.GetTargetRef(), p.Spec.GetTargetRefs())) {
				c.add(p)
			}
		}
	}
	c.settleProviders()
	return c.rules, c.problems
}

// collector gathers the rules of one port.
type collector struct {
	set      *policy.Set
	client   string // namespace of the workload
	mesh     policy.Mesh
	port     uint32
	proto    Protocol
	rules    Rules
	problems []policy.Problem

	lastCustom *policy.AuthorizationPolicy // the CUSTOM policy that named the latest provider
}

func (c *collector) add(p *policy.AuthorizationPolicy) {
	if p.Void || p.Spec == nil {
		c.broken(p)
		return
	}
	rules, err := c.compile(p)
	if err != nil {
		c.broken(p)
		c.problem(p, policy.Problem{
			Code: "AUTHZ_INVALID", Says: err.Error() + "; what the policy covers is refused until it is valid", Try: "credence validate shows each mistake and its place",
		})
		return
	}
	switch p.Spec.GetAction() {
	case securityv1beta1.AuthorizationPolicy_ALLOW:
		c.rules.Allow = append(c.rules.Allow, rules...)
		c.rules.Open = c.rules.Open && watchedOnly(p)
	case securityv1beta1.AuthorizationPolicy_DENY:
		c.rules.Deny = append(c.rules.Deny, rules...)
	case securityv1beta1.AuthorizationPolicy_AUDIT:
		c.rules.Audit = append(c.rules.Audit, rules...)
	case securityv1beta1.AuthorizationPolicy_CUSTOM:
		c.custom(p, rules)
	default:
		c.broken(p)
	}
}

func (c *collector) broken(p *policy.AuthorizationPolicy) {
	c.rules.Broken = append(c.rules.Broken, OriginOf(&p.Object))
	c.rules.Open = false
}

func (c *collector) problem(p *policy.AuthorizationPolicy, said policy.Problem) {
	said.Object = p.Key.String()
	said.At = p.Where(said.Field)
	c.problems = append(c.problems, said)
}

func watchedOnly(p *policy.AuthorizationPolicy) bool {
	on, err := strconv.ParseBool(p.Annotations[dryRun])
	return err == nil && on // as in Istio: a value that is no boolean leaves the policy in force
}

// compile turns every rule of a policy into conditions. Rules that can never match on this port are left out.
func (c *collector) compile(p *policy.AuthorizationPolicy) ([]Rule, error) {
	action := p.Spec.GetAction()
	narrow := action == securityv1beta1.AuthorizationPolicy_ALLOW
	watched := watchedOnly(p)
	switch {
	case watched && action != securityv1beta1.AuthorizationPolicy_ALLOW && action != securityv1beta1.AuthorizationPolicy_DENY:
		return nil, fmt.Errorf("annotation %s is only for ALLOW and DENY", dryRun)
	case len(p.Spec.GetRules()) == 0 && (action == securityv1beta1.AuthorizationPolicy_DENY || action == securityv1beta1.AuthorizationPolicy_CUSTOM):
		return nil, fmt.Errorf("action %s needs rules", action)
	}
	var out []Rule
	for i, r := range p.Spec.GetRules() {
		b := ruleBuilder{namespace: p.Key.Namespace, mesh: c.mesh, tcp: c.proto == TCP}
		principal, permission, err := b.rule(r)
		if err != nil {
			return nil, fmt.Errorf("spec.rules[%d]: %w", i, err)
		}
		if len(b.httpOnly) > 0 {
			c.httpOnly(p, i, narrow, b.httpOnly)
			if narrow {
				continue
			}
		}
		principal, permission = atPort(principal, c.port), atPort(permission, c.port)
		if Never(principal) || Never(permission) {
			continue
		}
		id := fmt.Sprintf("ns[%s]-policy[%s]-rule[%d]", p.Key.Namespace, p.Key.Name, i)
		out = append(out, Rule{ID: id, Origin: OriginOf(&p.Object), Principal: principal, Permission: permission, DryRun: watched})
	}
	return out, nil
}

// httpOnly tells what Istio does silently: on a TCP port an ALLOW rule that asks about HTTP is dropped, and any other rule loses the question.
func (c *collector) httpOnly(p *policy.AuthorizationPolicy, i int, narrow bool, fields []string) {
	slices.Sort(fields)
	fields = slices.Compact(fields)
	says := fmt.Sprintf("a TCP port has no %s: the conditions are dropped there, so the rule covers more connections", strings.Join(fields, ", "))
	if narrow {
		says = fmt.Sprintf("a TCP port has no %s: the rule allows nothing there", strings.Join(fields, ", "))
	}
	c.problem(p, policy.Problem{
		Field: fmt.Sprintf("spec.rules[%d]", i), Code: "AUTHZ_HTTP_ONLY_ON_TCP", Says: says, Severity: policy.Warning,
		Try: "add a rule for TCP ports, with operation.ports and source fields alone, or name the port http",
	})
}
