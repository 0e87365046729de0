package server

import (
	"context"
	"sync"
	"time"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/snapshot"
	"github.com/credence-mesh/credence/xds/resource"
)

// Secrets gives a proxy its certificates. They never enter a view: each is made for one stream.
type Secrets interface {
	// Secret is what a name means to a workload; false where it means nothing to it, or it must not have it.
	Secret(ctx context.Context, who identity.Workload, id identity.ID, name string) (*resource.Resource, bool, error)
	// Watch calls notify, from any goroutine, when the answer of Secret may differ. notify does not block.
	Watch(who identity.Workload, id identity.ID, name string, notify func()) (stop func())
}

// secret is one watched secret of a stream. Its content is not kept.
type secret struct{ stop func() }

// secretRetry is how long a stream waits before it asks again for a secret that could not be had.
const secretRetry = time.Second

// fresh collects the names whose secrets differ, from the goroutines that notify.
type fresh struct {
	mu    sync.Mutex
	names []string
}

func (f *fresh) add(name string) {
	f.mu.Lock()
	f.names = insert(f.names, name)
	f.mu.Unlock()
}

func (f *fresh) take() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	names := f.names
	f.names = nil
	return names
}

// nextSecrets is the response with the secrets that the proxy is owed, or nil.
func (s *stream) nextSecrets(ctx context.Context, sub *subscription, now time.Time) *response {
	for _, name := range s.fresh.take() {
		if sub.covers(name) {
			sub.owed = insert(sub.owed, name)
		}
	}
	for name, q := range sub.bad {
		if !now.Before(q.until) {
			sub.owed = insert(sub.owed, name)
		}
	}
	if len(sub.owed) == 0 {
		return nil
	}
	r := &response{version: "secrets-" + s.nonce()}
	owed := sub.owed
	sub.owed = nil
	for _, name := range owed {
		s.watch(sub, name)
		found, ok, err := s.secrets.Secret(ctx, s.peer.Workload, s.peer.ID, name)
		switch {
		case err != nil:
			s.log.secretUnavailable(s.peer, name, err)
			sub.isolateName(name, now)
		case !ok:
			delete(sub.bad, name)
			if !s.sotw {
				r.removed = append(r.removed, name)
			}
		default:
			i, q := snapshot.NewItem(found), sub.bad[name]
			if q.holds(i, now) {
				continue
			}
			if q != nil && q.version != i.Version {
				delete(sub.bad, name)
			}
			r.items = append(r.items, i)
		}
	}
	if len(r.items) == 0 && len(r.removed) == 0 {
		return nil
	}
	return r
}

// isolateName asks again later for a secret that could not be had.
func (s *subscription) isolateName(name string, now time.Time) {
	if s.bad == nil {
		s.bad = map[string]*quarantine{}
	}
	s.bad[name] = &quarantine{until: now.Add(secretRetry), wait: secretRetry}
}

func (s *stream) watch(sub *subscription, name string) {
	if sub.secrets[name] != nil {
		return
	}
	if sub.secrets == nil {
		sub.secrets = map[string]*secret{}
	}
	sub.secrets[name] = &secret{stop: s.secrets.Watch(s.peer.Workload, s.peer.ID, name, func() {
		s.fresh.add(name)
		s.poke()
	})}
}
