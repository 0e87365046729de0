package compile

import (
	"cmp"
	"reflect"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/ir"
)

// dnsDomain is the suffix of the host names of Kubernetes Services.
const dnsDomain = "cluster.local"

// service is a host of the mesh, or one outside it, as a client sees it.
type service struct {
	namespace string
	name      string // of a v1 Service; empty: a ServiceEntry
	object    string // name of the object that makes it
	nth       int    // of the hosts of a ServiceEntry
	host      string // the FQDN
	addresses []string
	exportTo  []string // empty: everywhere
	external  bool
	created   time.Time
	void      bool // could not be read: its host answers 503
	ports     []servicePort
	source    ir.Source
	labelled  bool // name and namespace are DNS labels
	routes    *routes
}

// servicePort is a port of a service with all that is needed to reach it. It is immutable and shared by all parts that see it.
type servicePort struct {
	number    uint32
	name      string
	protocol  Protocol
	cluster   ir.Cluster
	endpoints []ir.Endpoint
	upstream  *ir.Upstream // the finished form of both
}

// clusterName is Istio's name of the cluster of a port.
func clusterName(port uint32, host string) string {
	return "outbound|" + decimal(port) + "||" + host
}

// visible tells whether a namespace may use the service.
func (s *service) visible(namespace string) bool {
	if len(s.exportTo) == 0 {
		return true
	}
	for _, e := range s.exportTo {
		if e == "*" || e == namespace || e == "." && s.namespace == namespace {
			return true
		}
	}
	return false
}

// port finds a port by number.
func (s *service) port(number uint32) (*servicePort, bool) {
	for i := range s.ports {
		if s.ports[i].number == number {
			return &s.ports[i], true
		}
	}
	return nil, false
}

// serviceKinds is what the services of a namespace are computed from.
func serviceKinds() []policy.Kind {
	return []policy.Kind{
		policy.KindService, policy.KindServiceEntry, policy.KindEndpoints, policy.KindEndpointSlice,
		policy.KindWorkloadEntry, policy.KindPeerAuthentication,
	}
}

// registry is every service of one set.
type registry struct {
	set      *policy.Set
	spaces   map[string]*space
	services []*service // by host; of one host v1 Services first, then by namespace
	claims   claims
}

// registries remembers the registry of the sets that it saw last.
type registries struct {
	mu   sync.Mutex
	last []*registry // newest first, at most two: those of Affected's old and new set
}

// of is the registry of a set. Only namespaces that changed are computed again; a change of policies alone costs nothing.
func (r *registries) of(set *policy.Set) *registry {
	r.mu.Lock()
	defer r.mu.Unlock()
	var base *registry
	for i, known := range r.last {
		if same(known.set, set) {
			r.last[0], r.last[i] = r.last[i], r.last[0]
			return known
		}
		if base == nil {
			base = known
		}
	}
	next := newRegistry(base, set)
	r.last = append([]*registry{next}, r.last...)
	r.last = r.last[:min(2, len(r.last))]
	return next
}

func same(a, b *policy.Set) bool {
	return a == b || policy.Same(a, b, serviceKinds()...) && a.Mesh().TrustDomain == b.Mesh().TrustDomain && a.Mesh().RootNamespace == b.Mesh().RootNamespace &&
		reflect.DeepEqual(a.Mesh().ExtensionProviders, b.Mesh().ExtensionProviders)
}

func newRegistry(base *registry, set *policy.Set) *registry {
	r := &registry{set: set, spaces: map[string]*space{}}
	root := set.Mesh().RootNamespace
	if base == nil || base.set.Mesh().TrustDomain != set.Mesh().TrustDomain || base.set.Mesh().RootNamespace != root {
		base = &registry{set: policy.NewSet(set.Mesh()), spaces: map[string]*space{}}
	}
	modes := policy.SameIn(base.set, set, root, policy.KindPeerAuthentication)
	var came, gone []*service
	for _, ns := range set.SpacesOf(serviceKinds()...) {
		was := base.in(ns)
		if modes && base.spaces[ns] != nil && policy.SameIn(base.set, set, ns, serviceKinds()...) {
			r.spaces[ns] = was
			continue
		}
		r.spaces[ns] = newSpace(base.set, was, set, ns)
		x, y := differ(was.services, r.spaces[ns].services)
		gone, came = append(gone, x...), append(came, y...)
	}
	for ns, was := range base.spaces {
		if r.spaces[ns] == nil {
			gone = append(gone, was.services...)
		}
	}
	r.services = replaced(base.services, gone, came)
	return r
}

// compareServices puts a v1 Service before every ServiceEntry that claims its host: nobody may take over the traffic of another namespace.
func compareServices(a, b *service) int {
	return cmp.Or(cmp.Compare(a.host, b.host), compareBool(a.name == "", b.name == ""), cmp.Compare(a.namespace, b.namespace),
		cmp.Compare(a.object, b.object), cmp.Compare(a.nth, b.nth))
}

// replaced is the services of a sorted list without those that are gone, and with those that came.
func replaced(list, gone, came []*service) []*service {
	if len(gone) == 0 && len(came) == 0 {
		return list
	}
	slices.SortFunc(gone, compareServices)
	slices.SortFunc(came, compareServices)
	out := make([]*service, 0, len(list)-len(gone)+len(came))
	for _, s := range came {
		i, _ := slices.BinarySearchFunc(list, s, compareServices)
		out, gone = without(out, list[:i], gone)
		out, list = append(out, s), list[i:]
	}
	out, _ = without(out, list, gone)
	return out
}

// without appends a list to out, without those that are gone; it gives what is left of these.
func without(out, list, gone []*service) (rest, left []*service) {
	for _, s := range list {
		if len(gone) > 0 && s == gone[0] {
			gone = gone[1:]
			continue
		}
		out = append(out, s)
	}
	return out, gone
}

// differ tells which services of one list are not in the other, and the other way about. Both are in the order of a space.
func differ(a, b []*service) (onlyA, onlyB []*service) {
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(a) > 0 && len(b) > 0 && a[0] == b[0]:
			a, b = a[1:], b[1:]
		case len(b) == 0 || len(a) > 0 && compareMade(a[0], b[0]) <= 0:
			onlyA, a = append(onlyA, a[0]), a[1:]
		default:
			onlyB, b = append(onlyB, b[0]), b[1:]
		}
	}
	return onlyA, onlyB
}

// compareMade is the order of the services of one namespace: by the object that makes them, v1 Services first.
func compareMade(a, b *service) int {
	return cmp.Or(compareBool(a.name == "", b.name == ""), cmp.Compare(a.object, b.object), cmp.Compare(a.nth, b.nth))
}

// host is the services of a host.
func (r *registry) host(host string) []*service {
	i, _ := slices.BinarySearchFunc(r.services, host, func(s *service, h string) int { return cmp.Compare(s.host, h) })
	n := i
	for n < len(r.services) && r.services[n].host == host {
		n++
	}
	return slices.Clone(r.services[i:n])
}

// in is the services of a namespace.
func (r *registry) in(namespace string) *space {
	if s := r.spaces[namespace]; s != nil {
		return s
	}
	return &space{}
}

// serviceOf finds the v1 Service of a name.
func (r *registry) serviceOf(namespace, name string) (*service, bool) {
	list := r.in(namespace).services
	i, ok := slices.BinarySearchFunc(list, name, func(s *service, n string) int {
		return cmp.Or(compareBool(s.name == "", false), cmp.Compare(s.object, n))
	})
	if !ok {
		return nil, false
	}
	return list[i], true
}

// named finds a service by a host as users write it. A v1 Service wins, also by a short name, which counts in the given namespace; a
// ServiceEntry must be the one that the client's namespace uses.
func (r *registry) named(client, namespace, host string) (*service, bool) {
	name, rest, dotted := strings.Cut(strings.ToLower(host), ".")
	if dotted {
		namespace = strings.TrimSuffix(strings.TrimSuffix(rest, ".svc."+dnsDomain), ".svc")
	}
	if s, ok := r.serviceOf(namespace, name); ok {
		return s, true
	}
	s, _ := r.chosen(strings.ToLower(host), client)
	return s, s != nil
}

// domain is the trust domain of the mesh; where it is invalid nobody is ever accepted.
func domain(set *policy.Set) identity.TrustDomain {
	td, err := trustDomain(set.Mesh().TrustDomain)
	if err != nil {
		return identity.TrustDomain{}
	}
	return td
}
