package server

import (
	"slices"
	"strings"
	"time"

	"github.com/credence-mesh/credence/snapshot"
	"github.com/credence-mesh/credence/xds/resource"
)

// everything is the name that subscribes to all resources of a type.
const everything = "*"

// subscription is what a stream has of one type. The proxy holds what base says for all that it subscribed to, but for what owed, gone and
// bad tell: so a proxy with a thousand resources costs no more than one with ten.
type subscription struct {
	t        resource.Type
	sotw     bool
	wildcard bool
	names    []string         // subscribed by name, sorted
	base     *snapshot.View   // what was sent last; nil before the first response
	taken    *snapshot.View   // what was acknowledged last
	owed     []string         // to be sent whatever the proxy holds, sorted
	gone     []*snapshot.Item // held by the proxy, not in base: to be removed once nothing refers to it, sorted
	held     []holding        // what the proxy held before the stream; nil after the first response
	again    bool             // state of the world: what is subscribed to differs, so the whole must be sent
	pending  *response
	bad      map[string]*quarantine
	oneByOne bool   // a response was refused and nobody knows for which of its resources
	last     string // the nonce of the response that was answered last
	secrets  map[string]*secret
}

// response is one response that the proxy has not answered yet.
type response struct {
	nonce, version string
	items          []*snapshot.Item
	removed        []string
	view           *snapshot.View
	size           int
}

func (s *subscription) covers(name string) bool {
	if s.wildcard {
		return true
	}
	_, ok := slices.BinarySearch(s.names, name)
	return ok
}

// selects are the items of a list that the proxy subscribed to.
func (s *subscription) selects(items []*snapshot.Item) []*snapshot.Item {
	if s.wildcard {
		return items
	}
	var out []*snapshot.Item
	for _, i := range items {
		if s.covers(i.Name) {
			out = append(out, i)
		}
	}
	return out
}

// subscribe adds a name. The specification: a resource that is asked for again must be sent again, because the proxy may have forgotten it.
func (s *subscription) subscribe(name string) {
	if name == everything {
		s.wildcard = s.wildcard || s.t != resource.Secret
		return
	}
	s.names = insert(s.names, name)
	if s.base != nil || s.t == resource.Secret {
		s.owed = insert(s.owed, name)
	}
}

// unsubscribe takes a name away. The specification: where the wildcard still covers it, the proxy must be told what it is now.
func (s *subscription) unsubscribe(name string) {
	if name == everything {
		s.wildcard = false
		s.gone = slices.DeleteFunc(s.gone, func(i *snapshot.Item) bool { return !s.covers(i.Name) })
		return
	}
	s.names = withdraw(s.names, name)
	s.owed = withdraw(s.owed, name)
	if s.wildcard {
		s.owed = insert(s.owed, name)
		return
	}
	delete(s.bad, name)
	s.gone = slices.DeleteFunc(s.gone, func(i *snapshot.Item) bool { return i.Name == name })
	if x := s.secrets[name]; x != nil {
		x.stop()
		delete(s.secrets, name)
	}
}

// next is the response that brings the proxy from base to a view, or nil where nothing that it asked for differs. What is no longer there
// is put aside in gone.
func (s *subscription) next(to *snapshot.View, now time.Time) *response {
	first := s.base == nil
	var items []*snapshot.Item
	var removed []string
	switch {
	case first:
		items, removed = s.initial(to)
	case s.base != to:
		items = s.advance(to)
	}
	s.base = to
	items, removed = s.settleOwed(to, items, removed)
	items = s.withhold(items, to, now)
	if s.t == resource.Listener {
		for _, i := range s.gone {
			removed = append(removed, i.Name)
		}
		s.gone = nil
	}
	if s.sotw && s.whole() && (first || s.again || len(items) > 0 || len(removed) > 0) {
		return s.all(to, now)
	}
	s.again = false
	if s.sotw {
		removed = nil
	}
	if len(items) == 0 && len(removed) == 0 && !(first && s.wildcard) {
		return nil
	}
	return &response{items: s.cautiously(items), removed: removed, view: to, version: to.Version(s.t)}
}

// initial is the first response of a stream: what differs from what a proxy holds that was connected before.
func (s *subscription) initial(to *snapshot.View) (items []*snapshot.Item, removed []string) {
	for _, name := range s.names {
		if i, ok := to.Get(s.t, name); ok {
			items = append(items, i)
		} else if !s.keeps(name) {
			removed = append(removed, name)
		}
	}
	if s.wildcard {
		items = to.List(s.t)
	}
	if len(s.held) == 0 {
		return items, removed
	}
	same := make([]bool, len(items))
	for _, h := range s.held {
		if i := s.place(to, items, h.name); i >= 0 {
			same[i] = items[i].Version == h.version
		} else if _, ok := to.Get(s.t, h.name); !ok && s.covers(h.name) && !s.keeps(h.name) {
			removed = insert(removed, strings.Clone(h.name))
		}
	}
	var differ []*snapshot.Item
	for i, is := range same {
		if !is {
			differ = append(differ, items[i])
		}
	}
	s.held = nil
	return differ, removed
}

// keeps tells whether a proxy that held a resource before the stream is left with it, though there is none of the name any more; see advance.
func (s *subscription) keeps(name string) bool {
	return s.t == resource.ExtensionConfig && slices.ContainsFunc(s.held, func(h holding) bool { return h.name == name })
}

// place is where an item of a name is in the list of what is subscribed to, or -1.
func (s *subscription) place(to *snapshot.View, items []*snapshot.Item, name string) int {
	if s.wildcard {
		return to.Place(s.t, name)
	}
	if i, ok := findItem(items, name); ok {
		return i
	}
	return -1
}

// advance is what base lacks of a newer view. The configuration of a filter is never taken away: the connections of a listener that drains
// still pass the filter, and Envoy would answer 500 on them. Envoy drops its subscription with the last listener that has the filter.
func (s *subscription) advance(to *snapshot.View) []*snapshot.Item {
	d := &to.Since(s.base)[s.t]
	for _, name := range d.Removed {
		delete(s.bad, name)
		if i, ok := s.base.Get(s.t, name); ok && s.covers(name) && s.t != resource.ExtensionConfig {
			s.gone = insertItem(s.gone, i)
		}
	}
	if len(s.gone) > 0 {
		s.gone = slices.DeleteFunc(s.gone, func(i *snapshot.Item) bool { _, ok := to.Get(s.t, i.Name); return ok })
	}
	return s.selects(d.Changed)
}

// settleOwed adds what must be sent whatever the proxy holds. A name that does not exist is said to be removed, so that the proxy need not
// wait for its timeout.
func (s *subscription) settleOwed(to *snapshot.View, items []*snapshot.Item, removed []string) ([]*snapshot.Item, []string) {
	if len(s.owed) == 0 {
		return items, removed
	}
	items = slices.Clone(items)
	for _, name := range s.owed {
		i, ok := to.Get(s.t, name)
		switch {
		case !ok:
			removed = insert(removed, name)
			s.gone = slices.DeleteFunc(s.gone, func(i *snapshot.Item) bool { return i.Name == name })
		default:
			items = insertItem(items, i)
		}
	}
	s.owed = nil
	return items, removed
}

// cautiously cuts a response to one resource while it is unknown which one the proxy refuses.
func (s *subscription) cautiously(items []*snapshot.Item) []*snapshot.Item {
	if !s.oneByOne || len(items) < 2 {
		s.oneByOne = false
		return items
	}
	for _, i := range items[1:] {
		s.owed = insert(s.owed, i.Name)
	}
	return items[:1]
}

// removals is the response that takes away what nothing refers to any longer.
func (s *subscription) removals(now time.Time) *response {
	if len(s.gone) == 0 {
		return nil
	}
	gone := s.gone
	s.gone = nil
	if s.sotw {
		if !s.whole() {
			return nil
		}
		return s.all(s.base, now)
	}
	r := &response{view: s.base, version: s.base.Version(s.t)}
	for _, i := range gone {
		r.removed = append(r.removed, i.Name)
	}
	return r
}

func insert(list []string, name string) []string {
	i, ok := slices.BinarySearch(list, name)
	if ok {
		return list
	}
	return slices.Insert(list, i, name)
}

func withdraw(list []string, name string) []string {
	if i, ok := slices.BinarySearch(list, name); ok {
		return slices.Delete(list, i, i+1)
	}
	return list
}

// insertItem puts an item into a list that is sorted by name; an item of the same name is replaced.
func insertItem(list []*snapshot.Item, item *snapshot.Item) []*snapshot.Item {
	i, ok := findItem(list, item.Name)
	if ok {
		list[i] = item
		return list
	}
	return slices.Insert(list, i, item)
}
