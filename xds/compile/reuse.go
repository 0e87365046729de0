package compile

import (
	"cmp"
	"maps"
	"slices"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
)

// space is what one namespace holds. It is immutable.
type space struct {
	services []*service          // in the order of compareMade
	targets  map[string][]target // workload name -> what services send to it
	made     []*made             // by object, v1 Services first
	members  []*member           // by name
	byLabel  map[label][]*member
	slices   map[string][]*policy.EndpointSlice // by the service that they are of
}

type label struct{ key, value string }

// made is the services of one object, with all that they were made from: while that is the same, so are they.
type made struct {
	object    policy.Resource
	members   []*member
	endpoints *policy.Endpoints
	slices    []*policy.EndpointSlice
	services  []*service
	sends     []sent
	asked     []ask
}

// sent is a target of the workload of a name.
type sent struct {
	workload string
	target   target
}

// ask is what was asked about a port of a workload, and the answer.
type ask struct {
	member *member
	port   uint32
	plain  bool
}

// spaceBuilder makes the space of one namespace from what it was in another set, and makes anew only what differs.
type spaceBuilder struct {
	before *policy.Set
	was    *space
	set    *policy.Set
	ns     string
	td     identity.TrustDomain
	out    *space
	modes  bool // the same PeerAuthentications are in force as before
	plain  map[ask]bool
	sends  []sent // of the object that is being made
	asked  []ask  // for it
}

func newSpace(before *policy.Set, was *space, set *policy.Set, ns string) *space {
	b := &spaceBuilder{before: before, was: was, set: set, ns: ns, td: domain(set), out: &space{}, plain: map[ask]bool{}}
	b.modes = policy.SameIn(before, set, ns, policy.KindPeerAuthentication) && policy.SameIn(before, set, set.Mesh().RootNamespace, policy.KindPeerAuthentication)
	b.addMembers()
	b.addSlices()
	for o := range policy.In[*policy.Service](set, ns) {
		endpoints, _ := policy.Get[*policy.Endpoints](set, ns, o.Key.Name)
		var selector map[string]string
		if o.Spec != nil {
			selector = o.Spec.Selector
		}
		m := &made{object: o, members: b.selected(selector), endpoints: endpoints, slices: b.out.slices[o.Key.Name]}
		b.add(m, func() []*service { return []*service{b.service(o)} })
	}
	for o := range policy.In[*policy.ServiceEntry](set, ns) {
		m := &made{object: o, members: b.selected(o.Spec.GetWorkloadSelector().GetLabels())}
		b.add(m, func() []*service { return b.entry(o) })
	}
	b.aim()
	return b.out
}

// add takes over what an object made before, or makes it.
func (b *spaceBuilder) add(m *made, build func() []*service) {
	i, known := slices.BinarySearchFunc(b.was.made, m, compareObjects)
	if known && b.was.made[i].same(m) && (b.modes || b.unmoved(b.was.made[i])) {
		m = b.was.made[i]
	} else {
		b.sends, b.asked = nil, nil
		m.services = build()
		m.sends, m.asked = b.sends, b.asked
		if known && b.was.made[i].object == m.object {
			for n, s := range m.services { // other members, but the same names and ports
				s.routes = b.was.made[i].services[n].routes
			}
		}
	}
	b.out.made = append(b.out.made, m)
	b.out.services = append(b.out.services, m.services...)
}

func (m *made) same(o *made) bool {
	return m.object == o.object && m.endpoints == o.endpoints && slices.Equal(m.members, o.members) && slices.Equal(m.slices, o.slices)
}

func compareObjects(a, b *made) int {
	x, y := a.object.Meta().Key, b.object.Meta().Key
	return cmp.Or(compareBool(x.Kind != policy.KindService, y.Kind != policy.KindService), cmp.Compare(x.Name, y.Name))
}

// addMembers takes over the members whose WorkloadEntry is the same.
func (b *spaceBuilder) addMembers() {
	if b.was.byLabel != nil && policy.SameIn(b.before, b.set, b.ns, policy.KindWorkloadEntry) {
		b.out.members, b.out.byLabel = b.was.members, b.was.byLabel
		return
	}
	b.out.byLabel = map[label][]*member{}
	for e := range policy.In[*policy.WorkloadEntry](b.set, b.ns) {
		m, ok := b.member(e)
		if !ok {
			continue
		}
		b.out.members = append(b.out.members, m)
		for k, v := range m.workload.Labels {
			b.out.byLabel[label{k, v}] = append(b.out.byLabel[label{k, v}], m)
		}
	}
}

func (b *spaceBuilder) member(e *policy.WorkloadEntry) (*member, bool) {
	i, known := slices.BinarySearchFunc(b.was.members, e.Key.Name, func(m *member, name string) int { return cmp.Compare(m.workload.Name, name) })
	if known && b.was.members[i].workload.Entry == e {
		return b.was.members[i], true
	}
	w, ok := b.set.Workload(b.ns, e.Key.Name)
	if !ok || w.Entry == nil {
		return nil, false
	}
	m := &member{workload: w}
	if id, err := identity.ForServiceAccount(b.td, w.Namespace, w.ServiceAccount); err == nil {
		m.id = id
	}
	return m, true
}

// unmoved tells whether all ports that were asked for are reached as before.
func (b *spaceBuilder) unmoved(m *made) bool {
	return !slices.ContainsFunc(m.asked, func(a ask) bool { return b.plainNow(a) != a.plain })
}

func (b *spaceBuilder) addSlices() {
	if b.was.slices != nil && policy.SameIn(b.before, b.set, b.ns, policy.KindEndpointSlice) {
		b.out.slices = b.was.slices
		return
	}
	b.out.slices = map[string][]*policy.EndpointSlice{}
	for s := range policy.In[*policy.EndpointSlice](b.set, b.ns) {
		if s.Slice != nil {
			name := cmp.Or(s.Slice.Labels["kubernetes.io/service-name"], s.Labels["kubernetes.io/service-name"])
			b.out.slices[name] = append(b.out.slices[name], s)
		}
	}
}

// aim lists what services send to each workload: again for those that a service came to or went from.
func (b *spaceBuilder) aim() {
	gone, touched, came := map[*service]bool{}, map[string]bool{}, map[string][]target{}
	left, now := b.was.made, b.out.made
	for len(left) > 0 || len(now) > 0 {
		switch {
		case len(left) > 0 && len(now) > 0 && left[0] == now[0]:
			left, now = left[1:], now[1:]
		case len(now) == 0 || len(left) > 0 && compareObjects(left[0], now[0]) <= 0:
			for _, s := range left[0].sends {
				gone[s.target.service] = true
				touched[s.workload] = true
			}
			left = left[1:]
		default:
			for _, s := range now[0].sends {
				touched[s.workload] = true
				came[s.workload] = append(came[s.workload], s.target)
			}
			now = now[1:]
		}
	}
	if len(touched) == 0 && b.was.targets != nil {
		b.out.targets = b.was.targets
		return
	}
	b.out.targets = maps.Clone(b.was.targets)
	if b.out.targets == nil {
		b.out.targets = make(map[string][]target, len(touched))
	}
	for name := range touched {
		list := came[name]
		for _, t := range b.was.targets[name] {
			if !gone[t.service] {
				list = append(list, t)
			}
		}
		slices.SortStableFunc(list, func(x, y target) int { return compareMade(x.service, y.service) })
		if b.out.targets[name] = list; len(list) == 0 {
			delete(b.out.targets, name)
		}
	}
}
