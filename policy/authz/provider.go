package authz

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/credence-mesh/credence/policy"
)

// Authorizer is where an external decision is asked for. The zero value is the embedded decision service.
type Authorizer struct {
	Namespace string // of the object that Host belongs to
	Host      string // full: of a v1 Service "name.namespace.svc.cluster.local"
	Port      uint32
	Timeout   time.Duration // of one decision; 0: the default
}

// unresolved is why a provider that is defined cannot be asked.
type unresolved struct{ error }

// Embedded tells whether this is the embedded decision service.
func (a Authorizer) Embedded() bool { return a.Host == "" }

// Cluster is the name of the cluster that reaches an authorizer in the mesh.
func (a Authorizer) Cluster() string { return fmt.Sprintf("outbound|%d||%s", a.Port, a.Host) }

// badProvider marks the rules of a CUSTOM policy that nobody can decide: as in Istio, they deny.
const badProvider = "-deny-due-to-bad-CUSTOM-action"

// custom adds the rules of a CUSTOM policy to those of the same provider.
func (c *collector) custom(p *policy.AuthorizationPolicy, rules []Rule) {
	name := p.Spec.GetProvider().GetName()
	authorizer, err := c.provider(name)
	if errors.As(err, &unresolved{}) {
		c.deny(rules)
		c.problem(p, policy.Problem{
			Field: "spec.provider.name", Code: "AUTHZ_PROVIDER_UNRESOLVED", Says: err.Error() + "; what the policy covers is denied",
			Try: "write envoyExtAuthzGrpc.service as NAME.NAMESPACE of a Service, or as NAMESPACE/HOST of a ServiceEntry, with one of its ports",
		})
		return
	}
	if err != nil {
		c.deny(rules)
		c.problem(p, policy.Problem{
			Field: "spec.provider.name", Code: "AUTHZ_UNKNOWN_PROVIDER", Says: err.Error() + "; what the policy covers is denied",
			Try: fmt.Sprintf("use %q for the embedded decision service, or name a provider with envoyExtAuthzGrpc under mesh.extensionProviders", EmbeddedOPA),
		})
		return
	}
	if c.failsOpen(name) {
		c.problem(p, policy.Problem{
			Field: "spec.provider.name", Code: "AUTHZ_FAIL_OPEN", Severity: policy.Warning,
			Says: fmt.Sprintf("failOpen of provider %q is not honoured: what it cannot decide is refused", name), Try: "take failOpen out of mesh.extensionProviders",
		})
	}
	for i := range c.rules.Custom {
		if c.rules.Custom[i].Provider == name {
			c.rules.Custom[i].Rules = append(c.rules.Custom[i].Rules, rules...)
			return
		}
	}
	c.lastCustom = p
	c.rules.Custom = append(c.rules.Custom, Custom{Provider: name, Authorizer: authorizer, Rules: rules})
}

func (c *collector) provider(name string) (Authorizer, error) {
	for _, p := range c.mesh.ExtensionProviders {
		if p.Name != name {
			continue
		}
		if g := p.EnvoyExtAuthzGRPC; g != nil {
			if g.Service == "" || g.Port == 0 || g.Port > 65535 {
				return Authorizer{}, fmt.Errorf("extension provider %q needs a service and a port", name)
			}
			at, err := resolve(c.set, g.Service, g.Port, c.client)
			if err != nil {
				return Authorizer{}, unresolved{fmt.Errorf("extension provider %q cannot be asked: %w", name, err)}
			}
			return Authorizer{Namespace: at.namespace, Host: at.host, Port: g.Port, Timeout: g.Timeout}, nil
		}
		if name != EmbeddedOPA {
			return Authorizer{}, fmt.Errorf("extension provider %q decides nothing: it has no envoyExtAuthzGrpc", name)
		}
	}
	if name == EmbeddedOPA {
		return Authorizer{}, nil
	}
	return Authorizer{}, fmt.Errorf("extension provider %q is not known", name)
}

func (c *collector) failsOpen(name string) bool {
	return slices.ContainsFunc(c.mesh.ExtensionProviders, func(p policy.ExtensionProvider) bool {
		return p.Name == name && p.EnvoyExtAuthzGRPC != nil && p.EnvoyExtAuthzGRPC.FailOpen
	})
}

// settleProviders denies what more than one provider would decide, as Istio does.
func (c *collector) settleProviders() {
	if len(c.rules.Custom) < 2 {
		return
	}
	c.problems = slices.DeleteFunc(c.problems, func(p policy.Problem) bool { return p.Code == "AUTHZ_FAIL_OPEN" }) // moot
	var names []string
	for _, custom := range c.rules.Custom {
		names = append(names, custom.Provider)
		c.deny(custom.Rules)
	}
	c.problem(c.lastCustom, policy.Problem{
		Field: "spec.provider.name", Code: "AUTHZ_MANY_PROVIDERS",
		Says: fmt.Sprintf("CUSTOM policies of several providers (%s) cover the workload: what any of them covers is denied", strings.Join(names, ", ")),
		Try:  "let one provider decide for a workload",
	})
	c.rules.Custom = nil
}

func (c *collector) deny(rules []Rule) {
	for _, r := range rules {
		r.ID += badProvider
		c.rules.Deny = append(c.rules.Deny, r)
	}
}
