package server

import (
	"context"
	"errors"
	"io"
	"strconv"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/snapshot"
	"github.com/credence-mesh/credence/xds/resource"
)

// request is a request of either protocol.
type request struct {
	node        *corev3.Node
	url         string
	nonce       string
	refusal     string // what a NACK says; only where refused
	refused     bool
	subscribe   []string // state of the world: all names
	unsubscribe []string
	held        []holding
	version     string // state of the world: the version that is acknowledged
}

// wire is a stream of either protocol, without its differences.
type wire interface {
	receive() (*request, error)
	SendMsg(m any) error
	Context() context.Context
}

// stream serves one proxy. Its goroutine owns all that follows; views and secrets only poke it.
type stream struct {
	*Server
	wire    wire
	sotw    bool
	log     edge
	prefix  string
	count   uint64
	node    string
	peer    snapshot.Peer
	proven  identity.Proven
	sub     *snapshot.Subscription
	account *snapshot.Proxy
	target  *snapshot.View
	types   [resource.NumTypes]*subscription
	names   int // subscribed by name, over all types
	unread  int // bytes sent that the proxy has not answered: it may not even have read them
	held    time.Time
	fresh   fresh
	revoked atomic.Bool
	wake    chan struct{} // holds one
}

func (s *stream) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *stream) nonce() string {
	s.count++
	return s.prefix + strconv.FormatUint(s.count, 36)
}

// run serves until the stream ends. Only this goroutine sends; another one receives.
func (s *stream) run(ctx context.Context) error {
	requests, failed := s.listen(ctx)
	first, err := s.firstRequest(ctx, requests, failed)
	if err != nil {
		return err
	}
	if err := s.open(ctx, first); err != nil {
		return err
	}
	defer s.close()
	if err := s.handle(first); err != nil {
		return err
	}
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		if err := s.look(); err != nil {
			return err
		}
		if err := s.pump(ctx); err != nil {
			return err
		}
		timer.Reset(time.Until(s.deadline()))
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-s.stop:
			return status.Error(codes.Unavailable, "the server stops")
		case err := <-failed:
			return err
		case r := <-requests:
			if err := s.handle(r); err != nil {
				return err
			}
		case <-s.wake:
		case <-timer.C:
			if !s.peer.NotAfter.IsZero() && !time.Now().Before(s.peer.NotAfter) {
				return status.Error(codes.Unauthenticated, "the credential that the stream was opened with has ended")
			}
		}
	}
}

// listen receives in a goroutine of its own, which ends with the stream.
func (s *stream) listen(ctx context.Context) (<-chan *request, <-chan error) {
	requests, failed := make(chan *request), make(chan error, 1)
	s.running.Go(func() {
		for {
			r, err := s.wire.receive()
			if err != nil {
				if errors.Is(err, io.EOF) {
					err = nil
				}
				failed <- err
				return
			}
			select {
			case requests <- r:
			case <-ctx.Done():
				return
			}
		}
	})
	return requests, failed
}

// firstRequest waits for the request that says who the proxy is, and not for ever.
func (s *stream) firstRequest(ctx context.Context, requests <-chan *request, failed <-chan error) (*request, error) {
	timer := time.NewTimer(s.limits.FirstRequest)
	defer timer.Stop()
	select {
	case r := <-requests:
		return r, nil
	case err := <-failed:
		return nil, err
	case <-s.stop:
		return nil, status.Error(codes.Unavailable, "the server stops")
	case <-ctx.Done():
		return nil, ctx.Err()
	case <-timer.C:
		return nil, status.Error(codes.DeadlineExceeded, "no request came")
	}
}

// open binds the stream to the workload that the peer has proved to be.
func (s *stream) open(ctx context.Context, r *request) error {
	proven, err := s.authenticate(ctx)
	if err != nil {
		return status.Error(codes.Unauthenticated, err.Error())
	}
	if r.node.GetId() == "" {
		return status.Error(codes.InvalidArgument, "the first request must have a node with an id")
	}
	who, instance, err := parseNode(r.node.GetId())
	if err != nil {
		return err
	}
	select {
	case <-s.views.Ready():
	default:
		return status.Error(codes.Unavailable, "the configuration has not been read yet")
	}
	sub, ok := s.views.Subscribe(who, s.poke)
	if !ok {
		return authorize(proven, who, identity.ID{})
	}
	if err := authorize(proven, who, sub.State().ID); err != nil {
		sub.Close()
		return err
	}
	s.node, s.sub, s.proven = r.node.GetId(), sub, proven
	s.peer = snapshot.Peer{Workload: who, Instance: instance, ID: proven.ID, Serial: proven.Serial, NotAfter: proven.NotAfter,
		Address: remote(ctx), Version: envoyVersion(r.node), SotW: s.sotw}
	s.account = s.status.Connect(s.peer)
	s.enter(s)
	s.log.connected(s.peer)
	return nil
}

func (s *stream) close() {
	s.leave(s)
	s.sub.Close()
	s.account.Close()
	if sub := s.types[resource.Secret]; sub != nil {
		for _, x := range sub.secrets {
			x.stop()
		}
	}
	s.log.disconnected(s.peer)
}

// look takes the newest view, and ends the stream of a workload that is gone or is somebody else now.
func (s *stream) look() error {
	state := s.sub.State()
	if err := authorize(s.proven, s.peer.Workload, state.ID); err != nil {
		return err
	}
	if s.revoked.Load() {
		return status.Error(codes.PermissionDenied, "the credential was revoked")
	}
	if state.View != nil {
		s.target = state.View
	}
	return nil
}

// deadline is when the stream must act although nothing happens.
func (s *stream) deadline() time.Time {
	at := time.Now().Add(time.Hour)
	sooner := func(t time.Time) {
		if !t.IsZero() && t.Before(at) {
			at = t
		}
	}
	sooner(s.peer.NotAfter)
	if !s.held.IsZero() {
		sooner(s.held.Add(s.limits.Hold))
	}
	for _, sub := range s.types {
		if sub != nil && sub.pending == nil {
			sooner(sub.retryAt())
		}
	}
	return at
}
