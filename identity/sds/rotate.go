package sds

import (
	"container/heap"
	"context"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/ca"
	"github.com/credence-mesh/credence/xds/resource"
)

// mintTimeout bounds one attempt to make an SVID.
const mintTimeout = 5 * time.Second

// certificate is the SVID of one workload. minting is held while one is made, so that a crowd of replicas causes one; mu of Secrets guards
// the rest.
type certificate struct {
	owner   owner
	minting sync.Mutex

	secret *resource.Resource // nil until the first was made
	ends   time.Time
	due    time.Time // when Run renews it
	place  int       // in the queue
	tries  int       // failed renewals since the last good one
}

// svid is the current SVID of a workload.
func (s *Secrets) svid(ctx context.Context, o owner) (*resource.Resource, error) {
	switch {
	case identity.Reserved(o.id):
		return nil, none("the identity %s is kept for the control plane", o.id)
	case !o.id.MemberOf(s.config.Domain):
		return nil, none("%s is not of the trust domain %s", o.id, s.config.Domain.Name())
	}
	c := s.certificate(o)
	if r, ok := s.fresh(c); ok {
		return r, nil
	}
	return s.renew(ctx, c)
}

func (s *Secrets) certificate(o owner) *certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	c := s.own[o]
	if c == nil {
		c = &certificate{owner: o, place: -1}
		s.own[o] = c
	}
	return c
}

// fresh is the secret of c where it need not be renewed yet.
func (s *Secrets) fresh(c *certificate) (*resource.Resource, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	now := time.Now()
	return c.secret, c.secret != nil && now.Before(c.due) && now.Before(c.ends)
}

// renew makes a new SVID, unless somebody else just did. Where none can be made, the old one is given until it ends.
func (s *Secrets) renew(ctx context.Context, c *certificate) (*resource.Resource, error) {
	c.minting.Lock()
	defer c.minting.Unlock()
	if r, ok := s.fresh(c); ok {
		return r, nil
	}
	r, ends, err := s.mint(ctx, c.owner)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.retry(c, err)
		if c.secret != nil && time.Now().Before(c.ends) {
			return c.secret, nil
		}
		return nil, err
	}
	if c.secret != nil || c.tries > 0 { // somebody has the old one, or an error
		s.pending[watched{c.owner, Own}] = struct{}{}
	}
	c.secret, c.ends, c.tries = r, ends, 0
	s.schedule(c, time.Now().Add(jitter(time.Until(ends)/2)))
	return r, nil
}

func (s *Secrets) mint(ctx context.Context, o owner) (*resource.Resource, time.Time, error) {
	ctx, cancel := context.WithTimeout(ctx, mintTimeout)
	defer cancel()
	svid, err := s.config.Issuer.Mint(ctx, ca.Request{ID: o.id, TTL: s.config.TTL})
	if err != nil {
		return nil, time.Time{}, err
	}
	chain, key, err := svid.Marshal()
	if err != nil {
		return nil, time.Time{}, err
	}
	r, err := tlsCertificate(Own, chain, key)
	return r, svid.Certificates[0].NotAfter, err
}

// retry is called with mu held. The first attempt to follow comes after a second, the later ones after twice as long each, to a minute.
func (s *Secrets) retry(c *certificate, err error) {
	wait := min(time.Second<<min(c.tries, 6), time.Minute)
	c.tries++
	s.schedule(c, time.Now().Add(jitter(wait)))
	s.config.Failed(c.owner.who, c.owner.id, c.ends, err)
}

// jitter is d, up to a tenth more or less: proxies that started together do not renew together.
func jitter(d time.Duration) time.Duration {
	return time.Duration(float64(d) * (0.9 + 0.2*rand.Float64()))
}

// schedule is called with mu held.
func (s *Secrets) schedule(c *certificate, due time.Time) {
	switch s.own[c.owner] {
	case nil: // forgotten while it was being made
		s.own[c.owner] = c
	case c:
	default: // forgotten, and made anew by somebody else
		return
	}
	c.due = due
	if c.place < 0 {
		heap.Push(&s.queue, c)
	} else {
		heap.Fix(&s.queue, c.place)
	}
	s.poke()
}

// Run renews SVIDs at half of their life, more or less, and notifies watchers, until ctx ends. It is the only goroutine of Secrets.
func (s *Secrets) Run(ctx context.Context) error {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-s.wake:
		case <-timer.C:
		}
		for c := s.next(); c != nil && ctx.Err() == nil; c = s.next() {
			_, _ = s.renew(ctx, c) // told to Failed
		}
		s.deliver()
		timer.Reset(s.wait())
	}
}

// next is a certificate that is due and that somebody watches. Those that nobody watches any more are forgotten.
func (s *Secrets) next() *certificate {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 && !time.Now().Before(s.queue[0].due) {
		c := s.queue[0]
		if len(s.watches[watched{c.owner, Own}]) > 0 {
			return c
		}
		heap.Pop(&s.queue)
		delete(s.own, c.owner)
	}
	return nil
}

func (s *Secrets) wait() time.Duration {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.queue) == 0 {
		return time.Hour
	}
	return time.Until(s.queue[0].due)
}

// deliver notifies without holding mu: those who are notified may ask for the secret at once.
func (s *Secrets) deliver() {
	s.mu.Lock()
	var all []*watch
	for key := range s.pending {
		for w := range s.watches[key] {
			all = append(all, w)
		}
	}
	clear(s.pending)
	s.mu.Unlock()
	for _, w := range all {
		w.notify()
	}
}

// queue is a heap of certificates, the next to renew first.
type queue []*certificate

func (q queue) Len() int           { return len(q) }
func (q queue) Less(i, j int) bool { return q[i].due.Before(q[j].due) }
func (q queue) Swap(i, j int) {
	q[i], q[j] = q[j], q[i]
	q[i].place, q[j].place = i, j
}

// Push is called by package heap, as Pop is.
func (q *queue) Push(x any) {
	if c, ok := x.(*certificate); ok {
		c.place = len(*q)
		*q = append(*q, c)
	}
}

// Pop takes the last element off.
func (q *queue) Pop() any {
	old := *q
	c := old[len(old)-1]
	old[len(old)-1] = nil
	*q = old[:len(old)-1]
	c.place = -1
	return c
}
