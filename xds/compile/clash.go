package compile

import (
	"fmt"
	"net/netip"
	"slices"
	"sync"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/authz"
)

// claims is which services share an address, and to whom the hosts of authorizers belong; found when first asked for.
type claims struct {
	once   sync.Once
	owners map[string]string
	at     map[string][]*service
}

func (r *registry) claimed() *claims {
	r.claims.once.Do(func() {
		r.claims.owners, r.claims.at = authz.Owners(r.set), map[string][]*service{}
		for _, s := range r.services {
			for _, a := range s.addresses {
				r.claims.at[plainAddress(a)] = append(r.claims.at[plainAddress(a)], s)
			}
		}
	})
	return &r.claims
}

// plainAddress is the one spelling of an address.
func plainAddress(a string) string {
	ip, err := netip.ParseAddr(a)
	if err != nil {
		return a
	}
	return ip.Unmap().String()
}

// matters tells whether a service counts also for clients that do not see it: its address or its host is one that others claim.
func (r *registry) matters(s *service) bool {
	_, owned := r.claimed().owners[s.host]
	return owned || r.shares(s)
}

// shares tells whether another host has an address of a service.
func (r *registry) shares(s *service) bool {
	return slices.ContainsFunc(s.addresses, func(a string) bool {
		return slices.ContainsFunc(r.claimed().at[plainAddress(a)], func(o *service) bool { return o.host != s.host })
	})
}

// barred tells whether a host is that of an authorizer, and this service another one.
func (r *registry) barred(s *service) bool {
	owner, ok := r.claimed().owners[s.host]
	return ok && owner != s.namespace
}

// before tells whether, for clients in a namespace, one service takes what two claim: a v1 Service, the own namespace, the root namespace, the
// oldest. What has no time of creation is the youngest.
func (r *registry) before(a, b *service, client string) bool {
	root := r.set.Mesh().RootNamespace
	for _, wins := range []func(*service) bool{
		func(s *service) bool { return s.name != "" },
		func(s *service) bool { return s.namespace == client },
		func(s *service) bool { return s.namespace == root },
		func(s *service) bool { return !s.created.IsZero() },
	} {
		if x, y := wins(a), wins(b); x != y {
			return x
		}
	}
	if c := a.created.Compare(b.created); c != 0 {
		return c < 0
	}
	return compareServices(a, b) < 0
}

// chosen is the one service that a host is for clients in a namespace, and those that give way to it.
func (r *registry) chosen(host, client string) (*service, []*service) {
	return r.choose(r.host(host), client)
}

// choose picks among the services of one host.
func (r *registry) choose(list []*service, client string) (*service, []*service) {
	var best *service
	var rest []*service
	for _, s := range list {
		switch {
		case !s.visible(client):
		case r.barred(s):
			rest = append(rest, s)
		case best == nil:
			best = s
		case r.before(s, best, client):
			best, rest = s, append(rest, best)
		default:
			rest = append(rest, s)
		}
	}
	return best, rest
}

// problem is about a service as the object that makes it.
func (r *registry) problem(s *service, field string, p policy.Problem) policy.Problem {
	key := policy.Key{Kind: policy.KindServiceEntry, Namespace: s.namespace, Name: s.object}
	if s.name != "" {
		key.Kind = policy.KindService
	}
	p.Object, p.Field = key.String(), field
	if o, ok := r.set.Lookup(key); ok {
		p.At = o.Meta().Where(field)
	}
	return p
}

// hostClash tells that a service gives way.
func (r *registry) hostClash(s, winner *service) policy.Problem {
	p := policy.Problem{Code: "HOST_CLASH", Severity: policy.Warning, Try: "let one object define the host, or narrow this one with exportTo: [\".\"]"}
	switch {
	case winner == nil || r.barred(s):
		p.Says, p.Severity = fmt.Sprintf("%s is the host of an external authorizer, which is that of namespace %s", s.host, r.claimed().owners[s.host]), policy.Error
	case winner.namespace == s.namespace && winner.object == s.object && winner.name == s.name:
		p.Says = s.host + " is listed twice"
	default:
		p.Says = fmt.Sprintf("clients in some namespaces reach %s by %s instead", s.host, winner.source.Object)
		if winner.name != "" && winner.namespace != s.namespace {
			p.Severity = policy.Error
		}
	}
	return r.problem(s, fmt.Sprintf("spec.hosts[%d]", s.nth), p)
}

// takes tells whether a service gets the captured connections to an address and port of its own, for clients in a namespace. The address of a
// v1 Service is its own, whether the clients see it or not.
func (r *registry) takes(s *service, address string, port uint32, client string) (bool, policy.Problem) {
	if ip, err := netip.ParseAddr(address); err == nil && ip.IsUnspecified() {
		return false, r.problem(s, "spec.addresses", policy.Problem{
			Code: "ADDRESS_CLASH", Says: address + " stands for every address, and is nobody's", Try: "list the addresses of the service",
		})
	}
	for _, o := range r.claimed().at[plainAddress(address)] {
		if o.host == s.host {
			continue
		}
		if _, has := o.port(port); !has && o.name == "" || o.name == "" && (!o.visible(client) || r.barred(o)) || !r.before(o, s, client) {
			continue
		}
		p := policy.Problem{
			Code: "ADDRESS_CLASH", Says: fmt.Sprintf("connections to %s go to %s instead", address, o.source.Object),
			Try: "take the address out, or narrow this object with exportTo: [\".\"]",
		}
		if o.name == "" || o.namespace == s.namespace {
			p.Severity = policy.Warning
		}
		return false, r.problem(s, "spec.addresses", p)
	}
	return true, policy.Problem{}
}
