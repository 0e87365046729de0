package server

import (
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/credence-mesh/credence/snapshot"
	"github.com/credence-mesh/credence/xds/resource"
)

// whole tells whether a response of this type must hold everything that is subscribed to: what it lacks is deleted by the proxy.
func (s *subscription) whole() bool { return s.t == resource.Cluster || s.t == resource.Listener }

// all is a response in state-of-the-world form: all that is subscribed to, what is gone but may still be referred to, and the last good
// version of what the proxy refused.
func (s *subscription) all(to *snapshot.View, now time.Time) *response {
	var items []*snapshot.Item
	if s.wildcard {
		items = slices.Clone(to.List(s.t))
	} else {
		for _, name := range s.names {
			if i, ok := to.Get(s.t, name); ok {
				items = append(items, i)
			}
		}
	}
	for _, i := range s.gone {
		items = insertItem(items, i)
	}
	withheld := 0
	items = slices.DeleteFunc(items, func(i *snapshot.Item) bool { return s.bad[i.Name].holds(i, now) && s.bad[i.Name].good == nil })
	for n, i := range items {
		if q := s.bad[i.Name]; q.holds(i, now) {
			items[n] = q.good
			withheld++
		}
	}
	s.again = false
	version := to.Version(s.t)
	if len(s.gone) > 0 || withheld > 0 {
		version += "+" + strconv.Itoa(len(s.gone)) + "-" + strconv.Itoa(withheld)
	}
	return &response{items: items, view: to, version: version}
}

// replace sets the names of a state-of-the-world subscription to those of a request.
func (s *subscription) replace(names []string) {
	fresh := make([]string, 0, len(names))
	wildcard := s.wildcardOf(names)
	for _, n := range names {
		if n != everything {
			fresh = append(fresh, strings.Clone(n))
		}
	}
	slices.Sort(fresh)
	fresh = slices.Compact(fresh)
	if wildcard == s.wildcard && slices.Equal(fresh, s.names) {
		return
	}
	for _, n := range slices.Clone(s.names) {
		if _, kept := slices.BinarySearch(fresh, n); !kept {
			s.unsubscribe(n)
		}
	}
	for _, n := range fresh {
		if _, had := slices.BinarySearch(s.names, n); !had {
			s.subscribe(n)
		}
	}
	s.wildcard = wildcard
	s.again = s.again || s.base != nil
}

// wildcardOf tells whether a request's names subscribe to everything. The specification: no name at all does so, until a name was asked for.
func (s *subscription) wildcardOf(names []string) bool {
	if s.t == resource.Secret {
		return false
	}
	if slices.Contains(names, everything) {
		return true
	}
	return len(names) == 0 && s.whole() && (s.base == nil || s.wildcard)
}
