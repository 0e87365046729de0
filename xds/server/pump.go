package server

import (
	"context"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/credence-mesh/credence/snapshot"
	"github.com/credence-mesh/credence/xds/resource"
)

// The order in which a change reaches a proxy: first what others refer to, then what refers to it, and what nothing refers to any longer
// is removed last.
var (
	makeTypes  = [...]resource.Type{resource.Cluster, resource.Endpoints, resource.Secret, resource.ExtensionConfig}
	useTypes   = [...]resource.Type{resource.Listener, resource.RouteConfig}
	breakTypes = [...]resource.Type{resource.RouteConfig, resource.Cluster, resource.Endpoints}
)

// unreadBound is how many bytes may be under way before a send could block: gRPC buffers 64 KiB a stream.
const unreadBound = 32 << 10

// pump sends what can be sent now. There is never more than one unanswered response of a type; changes meanwhile coalesce.
func (s *stream) pump(ctx context.Context) error {
	if s.target == nil {
		return nil
	}
	now := time.Now()
	for _, t := range makeTypes {
		if err := s.advance(ctx, t, now); err != nil {
			return err
		}
	}
	if s.waits(now) {
		return nil
	}
	for _, t := range useTypes {
		if err := s.advance(ctx, t, now); err != nil {
			return err
		}
	}
	if s.underWay(makeTypes[:]) || s.underWay(useTypes[:]) {
		return nil
	}
	for _, t := range breakTypes {
		if sub := s.types[t]; sub != nil {
			if err := s.send(ctx, sub, sub.removals(now)); err != nil {
				return err
			}
		}
	}
	return nil
}

// advance sends what a type lacks of the target.
func (s *stream) advance(ctx context.Context, t resource.Type, now time.Time) error {
	sub := s.types[t]
	if sub == nil || sub.pending != nil {
		return nil
	}
	if t == resource.Secret {
		if s.secrets == nil {
			return nil
		}
		return s.send(ctx, sub, s.nextSecrets(ctx, sub, now))
	}
	if sub.base == s.target && len(sub.owed) == 0 && len(sub.bad) == 0 && !sub.again {
		return nil
	}
	r := sub.next(s.target, now)
	if r == nil {
		s.account.Reached(t, s.target.Version(t), len(sub.bad) == 0)
		return nil
	}
	s.follow(t, r)
	return s.send(ctx, sub, r)
}

// follow owes a proxy what it warms a changed resource with. Envoy does not ask again for the endpoints of a cluster that it already
// follows, nor, after a reconnect, for the secrets of a listener.
func (s *stream) follow(t resource.Type, r *response) {
	if eds := s.types[resource.Endpoints]; t == resource.Cluster && eds != nil && eds.base != nil {
		eds.owe(r.items)
	}
	if sds := s.types[resource.Secret]; t == resource.Listener && sds != nil && len(r.items) > 0 {
		for _, n := range sds.names {
			sds.owed = insert(sds.owed, n)
		}
		s.poke()
	}
}

// owe adds those of the items' names that are subscribed to.
func (s *subscription) owe(items []*snapshot.Item) {
	for _, i := range items {
		if s.covers(i.Name) && !s.wildcard {
			s.owed = insert(s.owed, i.Name)
		}
	}
}

// waits tells whether listeners and routes must wait, because the proxy has not yet taken the clusters, endpoints and filters that they
// refer to. It does not wait for ever: a cluster that never gets warm must not keep back everything else.
func (s *stream) waits(now time.Time) bool {
	lag := false
	for _, t := range useTypes {
		sub := s.types[t]
		lag = lag || (sub != nil && sub.pending == nil && sub.base != s.target)
	}
	if !lag || !s.underWay(makeTypes[:]) {
		s.held = time.Time{}
		return false
	}
	if s.held.IsZero() {
		s.held = now
	}
	return now.Sub(s.held) < s.limits.Hold
}

func (s *stream) underWay(types []resource.Type) bool {
	for _, t := range types {
		if sub := s.types[t]; sub != nil && sub.pending != nil {
			return true
		}
	}
	return false
}

// send sends a response, if there is one. A proxy that does not read is dropped at a deadline.
func (s *stream) send(ctx context.Context, sub *subscription, r *response) error {
	if r == nil {
		return nil
	}
	r.nonce = s.nonce()
	f := newFrame(r.version, sub.t.URL(), r.nonce, r, s.sotw)
	sub.pending = r
	r.size = f.size
	s.account.Sent(sub.t, r.version, f.size)
	before := s.unread
	s.unread += f.size
	if before < unreadBound {
		return s.wire.SendMsg(f)
	}
	return s.sendSlowly(ctx, f)
}

func (s *stream) sendSlowly(ctx context.Context, f *frame) error {
	done := make(chan error, 1)
	s.running.Go(func() { done <- s.wire.SendMsg(f) })
	timer := time.NewTimer(s.limits.Send)
	defer timer.Stop()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.stop:
		return status.Error(codes.Unavailable, "the server stops")
	case <-timer.C:
		s.log.stalled(s.peer)
		s.conns.drop(s.peer.Address)
		return status.Error(codes.DeadlineExceeded, "the proxy does not read")
	}
}
