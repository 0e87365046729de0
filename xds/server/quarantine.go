package server

import (
	"cmp"
	"slices"
	"strings"
	"time"

	"github.com/credence-mesh/credence/snapshot"
)

// The back-off of a resource that a proxy refuses: it doubles with each refusal.
const (
	firstRetry = 5 * time.Second
	lastRetry  = 5 * time.Minute
)

// quarantine withholds one version of one resource from one proxy. The others of the proxy's resources, and other proxies, advance.
type quarantine struct {
	version string
	good    *snapshot.Item // the last one that the proxy took; nil where it never took one
	until   time.Time
	wait    time.Duration
}

// holds tells whether an item is withheld now.
func (q *quarantine) holds(i *snapshot.Item, now time.Time) bool {
	return q != nil && q.version == i.Version && now.Before(q.until)
}

// withhold takes what the proxy refused out of a response, and puts in what is to be tried again.
func (s *subscription) withhold(items []*snapshot.Item, to *snapshot.View, now time.Time) []*snapshot.Item {
	if len(s.bad) == 0 {
		return items
	}
	items = slices.Clone(items)
	for name, q := range s.bad {
		i, ok := to.Get(s.t, name)
		switch {
		case !ok:
			delete(s.bad, name)
		case i.Version != q.version:
			delete(s.bad, name)
			items = insertItem(items, i)
		case !now.Before(q.until):
			items = insertItem(items, i)
			q.until = now.Add(q.wait) // not again before the proxy has answered
		default:
			items = slices.DeleteFunc(items, func(x *snapshot.Item) bool { return x.Name == name })
		}
	}
	return items
}

// retryAt is when something that was refused is to be tried again; zero where nothing is.
func (s *subscription) retryAt() time.Time {
	var at time.Time
	for _, q := range s.bad {
		if at.IsZero() || q.until.Before(at) {
			at = q.until
		}
	}
	return at
}

// accept notes that the proxy took a response.
func (s *subscription) accept(r *response) {
	if len(s.bad) > 0 {
		for _, i := range r.items {
			if q := s.bad[i.Name]; q != nil && q.version == i.Version {
				delete(s.bad, i.Name)
			}
		}
	}
	s.taken = r.view
}

// refuse withholds what the proxy refused, and owes it the rest of the response. The culprits are those that the error names; where it
// names none, a response of one resource tells, and a larger one is sent again one by one.
func (s *subscription) refuse(r *response, says string, now time.Time) []*snapshot.Item {
	suspects := slices.DeleteFunc(slices.Clone(s.changedIn(r)), func(i *snapshot.Item) bool { return !s.covers(i.Name) })
	culprits := named(suspects, says)
	known := !slices.ContainsFunc(suspects, func(i *snapshot.Item) bool { return s.bad[i.Name] == nil })
	if len(culprits) == 0 && (len(suspects) == 1 || known || (s.sotw && s.whole())) {
		culprits = suspects
	}
	s.oneByOne = len(culprits) == 0
	for _, i := range suspects {
		if !slices.Contains(culprits, i) {
			s.owed = insert(s.owed, i.Name)
		}
	}
	if len(r.items) > 0 { // a refused removal alone is not repeated: it would be for ever
		for _, name := range r.removed {
			if s.covers(name) {
				s.owed = insert(s.owed, name)
			}
		}
	}
	for _, i := range culprits {
		s.isolate(i, now)
	}
	s.again = true
	return culprits
}

func (s *subscription) isolate(i *snapshot.Item, now time.Time) {
	if s.bad == nil {
		s.bad = map[string]*quarantine{}
	}
	q := s.bad[i.Name]
	switch {
	case q == nil:
		q = &quarantine{wait: firstRetry}
		if s.taken != nil {
			q.good, _ = s.taken.Get(s.t, i.Name)
		}
		s.bad[i.Name] = q
	case q.version == i.Version:
		q.wait = min(2*q.wait, lastRetry)
	default:
		q.wait = firstRetry
	}
	q.version, q.until = i.Version, now.Add(q.wait)
}

// changedIn are the items of a response that the proxy had not taken before: a response in state-of-the-world form repeats the others.
func (s *subscription) changedIn(r *response) []*snapshot.Item {
	if !s.sotw || s.taken == nil {
		return r.items
	}
	var out []*snapshot.Item
	for _, i := range r.items {
		if had, ok := s.taken.Get(s.t, i.Name); !ok || had.Version != i.Version || s.bad[i.Name] != nil {
			out = append(out, i)
		}
	}
	return out
}

// named are the items whose whole name occurs in a text.
func named(items []*snapshot.Item, text string) []*snapshot.Item {
	var out []*snapshot.Item
	for _, i := range items {
		if mentions(text, i.Name) {
			out = append(out, i)
		}
	}
	return out
}

func mentions(text, name string) bool {
	for from := 0; ; {
		at := strings.Index(text[from:], name)
		if at < 0 {
			return false
		}
		start, end := from+at, from+at+len(name)
		if (start == 0 || !inName(text[start-1])) && (end == len(text) || !inName(text[end])) {
			return true
		}
		from = start + 1
	}
}

func inName(c byte) bool {
	return c == '_' || c == '-' || c == '/' || c == '|' || '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z'
}

func findItem(list []*snapshot.Item, name string) (int, bool) {
	return slices.BinarySearchFunc(list, name, func(i *snapshot.Item, n string) int { return cmp.Compare(i.Name, n) })
}
