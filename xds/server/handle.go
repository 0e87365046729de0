package server

import (
	"slices"
	"strings"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/credence-mesh/credence/snapshot"
	"github.com/credence-mesh/credence/xds/resource"
)

// Bounds on what a proxy may ask for.
const (
	maxName = 4096 // bytes of a resource name
	maxSays = 4096 // bytes of a NACK that are kept
)

// handle takes a request into the state of the stream. It sends nothing.
func (s *stream) handle(r *request) error {
	if err := sameNode(s.node, r.node); err != nil {
		return err
	}
	t, ok := resource.TypeOf(r.url)
	if !ok {
		return status.Errorf(codes.InvalidArgument, "resources of type %q are not served", cut(r.url, 200))
	}
	if err := s.bound(r); err != nil {
		return err
	}
	sub := s.types[t]
	fresh := sub == nil
	if fresh {
		sub = &subscription{t: t, sotw: s.sotw}
		s.types[t] = sub
	}
	before := len(sub.names)
	current := s.answer(sub, r)
	switch {
	case !s.sotw:
		s.subscribeDelta(sub, r, fresh)
	case current || fresh:
		sub.replace(r.subscribe)
	}
	if s.names += len(sub.names) - before; s.names > s.limits.Names {
		return status.Errorf(codes.ResourceExhausted, "more than %d resource names on one stream", s.limits.Names)
	}
	return nil
}

func (s *stream) bound(r *request) error {
	if len(r.subscribe)+len(r.unsubscribe)+len(r.held) > 3*s.limits.Names {
		return status.Error(codes.ResourceExhausted, "too many resource names in one request")
	}
	for _, list := range [][]string{r.subscribe, r.unsubscribe} {
		if slices.ContainsFunc(list, func(n string) bool { return len(n) > maxName }) {
			return status.Errorf(codes.InvalidArgument, "a resource name is longer than %d bytes", maxName)
		}
	}
	return nil
}

// answer takes an ACK or a NACK. It tells whether the request answers the newest response of its type: one with an older nonce, or one that
// was never sent, changes nothing.
func (s *stream) answer(sub *subscription, r *request) bool {
	p := sub.pending
	if p == nil || r.nonce != p.nonce {
		return r.nonce == "" || (p == nil && sub.answered(r.nonce))
	}
	if s.sotw && !r.refused && r.version != p.version {
		return false
	}
	sub.pending, sub.last = nil, p.nonce
	s.unread -= p.size
	if r.refused {
		s.refused(sub, p, r.refusal)
		return true
	}
	sub.accept(p)
	s.account.Acked(sub.t, p.version, len(sub.bad) == 0)
	return true
}

// answered tells whether a nonce is that of the response which was answered last: a proxy that subscribes to more in state-of-the-world form
// repeats it.
func (s *subscription) answered(nonce string) bool { return s.last == nonce }

func (s *stream) refused(sub *subscription, p *response, says string) {
	says = cut(says, maxSays)
	culprits := sub.refuse(p, says, time.Now())
	n := snapshot.Nack{When: time.Now(), Type: sub.t.String(), Says: says}
	if len(culprits) == 0 {
		culprits = p.items
	}
	for _, i := range culprits {
		n.Resources = append(n.Resources, i.Name)
		for _, from := range i.Sources {
			if !slices.Contains(n.Sources, from.String()) {
				n.Sources = append(n.Sources, from.String())
			}
		}
	}
	s.account.Nacked(sub.t, n)
	s.log.refused(s.peer, n)
}

// subscribeDelta takes the changes of a delta subscription. They are changes, so they count whatever the nonce says.
func (s *stream) subscribeDelta(sub *subscription, r *request, fresh bool) {
	if fresh {
		if sub.t != resource.Secret { // secrets are sent again in any case
			sub.held = r.held
		}
		sub.wildcard = sub.whole() && len(r.subscribe) == 0
	}
	if added := compact(r.subscribe); len(sub.names) == 0 && len(added) > 0 && sub.base == nil && sub.t != resource.Secret {
		sub.wildcard = sub.wildcard || slices.Contains(added, everything)
		sub.names = withdraw(s.shared(sub.t, added), everything)
	} else {
		for _, n := range added {
			sub.subscribe(s.canonical(sub.t, n))
		}
	}
	for _, n := range r.unsubscribe {
		sub.unsubscribe(n)
	}
}

func compact(names []string) []string {
	names = slices.Clone(names)
	slices.Sort(names)
	return slices.Compact(names)
}

// shared replaces names by the strings that the view holds anyway: a thousand proxies that subscribe to a thousand names hold them once.
func (s *stream) shared(t resource.Type, names []string) []string {
	for i, n := range names {
		names[i] = s.canonical(t, n)
	}
	return names
}

func (s *stream) canonical(t resource.Type, name string) string {
	if v := s.sub.State().View; v != nil {
		if i, ok := v.Get(t, name); ok {
			return i.Name
		}
	}
	return strings.Clone(name)
}

// cut bounds a text that a peer sent.
func cut(s string, n int) string {
	if len(s) > n {
		s = s[:n]
	}
	return strings.ToValidUTF8(s, "\uFFFD")
}
