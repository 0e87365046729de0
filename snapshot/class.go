package snapshot

import (
	"sync"
	"sync/atomic"

	"github.com/credence-mesh/credence/identity"
)

// State is what is known of a workload at one moment. The zero value is a workload that does not exist: it gets nothing.
type State struct {
	ID   identity.ID // who its proxies must be
	View *View       // nil until every part was built, or tried, once
}

// Exists tells whether there is such a workload.
func (s State) Exists() bool { return !s.ID.IsZero() }

// class is all that the proxies of one workload share.
type class struct {
	state atomic.Pointer[State]
	mu    sync.Mutex
	subs  map[*Subscription]struct{}
}

func (c *class) load() State {
	if s := c.state.Load(); s != nil {
		return *s
	}
	return State{}
}

// publish replaces the state, and wakes the subscribers where it differs.
func (c *class) publish(s State) {
	if c.load() == s {
		return
	}
	c.state.Store(&s)
	c.mu.Lock()
	defer c.mu.Unlock()
	for sub := range c.subs {
		sub.notify()
	}
}

func (c *class) wanted() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.subs) > 0
}

// Subscription follows one workload until Close.
type Subscription struct {
	class  *class
	notify func()
}

// State is the newest state of the workload.
func (s *Subscription) State() State { return s.class.load() }

// Close ends the notifications.
func (s *Subscription) Close() {
	s.class.mu.Lock()
	delete(s.class.subs, s)
	s.class.mu.Unlock()
}

// registry holds the classes of all workloads that exist or that somebody follows.
type registry struct {
	mu      sync.Mutex
	classes map[identity.Workload]*class
}

func newRegistry() *registry { return &registry{classes: map[identity.Workload]*class{}} }

func (r *registry) find(w identity.Workload) (*class, bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.classes[w]
	return c, ok
}

func (r *registry) class(w identity.Workload) *class {
	r.mu.Lock()
	defer r.mu.Unlock()
	c, ok := r.classes[w]
	if !ok {
		c = &class{subs: map[*Subscription]struct{}{}}
		r.classes[w] = c
	}
	return c
}

// drop forgets a workload that is gone; whoever still follows it is told.
func (r *registry) drop(w identity.Workload) {
	r.mu.Lock()
	c, ok := r.classes[w]
	delete(r.classes, w)
	r.mu.Unlock()
	if ok {
		c.publish(State{})
	}
}
