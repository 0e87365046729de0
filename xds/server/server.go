package server

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"sync/atomic"
	"time"

	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"go.uber.org/zap"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/snapshot"
)

// Views is where the server finds what proxies must have. *snapshot.Pipeline is one.
type Views interface {
	// Ready is closed when the configuration was read for the first time. Before, proxies are told to come again.
	Ready() <-chan struct{}
	// Subscribe follows a workload; false where there is no such workload.
	Subscribe(w identity.Workload, notify func()) (*snapshot.Subscription, bool)
}

// Limits bound what peers can cost. The zero value of each field means its default.
type Limits struct {
	Connections  int           // at once; default 20,000
	Handshakes   int           // computed at once; default 4: more would only take memory, not finish earlier
	Handshake    time.Duration // for a connection to become a proven peer; default 10 s
	FirstRequest time.Duration // for a stream to say which node it is; default 10 s
	Send         time.Duration // for a proxy to read what it was sent; default 20 s
	Hold         time.Duration // for which listeners wait for their clusters; default 5 s
	Names        int           // subscribed to on one stream; default 65,536
	Message      int           // bytes of a request; default 4 MiB
	Streams      int           // on one connection, with the decisions that other services on the port take; default 1,000
}

func (l Limits) orDefaults() Limits {
	def := func(v *int, d int) {
		if *v <= 0 {
			*v = d
		}
	}
	wait := func(v *time.Duration, d time.Duration) {
		if *v <= 0 {
			*v = d
		}
	}
	def(&l.Connections, 20_000)
	def(&l.Handshakes, 4)
	def(&l.Names, 1<<16)
	def(&l.Message, 4<<20)
	def(&l.Streams, 1000)
	wait(&l.Handshake, 10*time.Second)
	wait(&l.FirstRequest, 10*time.Second)
	wait(&l.Send, 20*time.Second)
	wait(&l.Hold, 5*time.Second)
	return l
}

// Options are what a server is made of.
type Options struct {
	// Credentials prove who a peer is in the handshake; attest.Credentials makes them.
	Credentials credentials.TransportCredentials
	// Authenticate tells who the peer of a call has proved to be; attest.FromContext is it. A peer that it refuses gets nothing.
	Authenticate func(ctx context.Context) (identity.Proven, error)
	Views        Views
	Status       *snapshot.Status
	Secrets      Secrets             // nil: nobody gets a secret
	Log          *zap.Logger         // nil: silent
	Limits       Limits              // zero: the defaults
	GRPC         []grpc.ServerOption // interceptors of the other services on the port
}

// Server is the xDS server, and the gRPC server that it shares with other services.
type Server struct {
	discoveryv3.UnimplementedAggregatedDiscoveryServiceServer
	grpc         *grpc.Server
	authenticate func(ctx context.Context) (identity.Proven, error)
	views        Views
	status       *snapshot.Status
	secrets      Secrets
	edge         edge
	limits       Limits
	conns        *conns
	epoch        string // tells nonces of this process from those of another
	opened       atomic.Uint64
	stop         chan struct{}
	stopped      sync.Once
	running      sync.WaitGroup

	mu      sync.Mutex
	streams map[*stream]struct{}
}

// New makes a server that is not listening yet.
func New(o Options) (*Server, error) {
	if o.Credentials == nil || o.Authenticate == nil || o.Views == nil || o.Status == nil {
		return nil, errors.New("xds server: credentials, authentication, views and status are needed")
	}
	c, err := newCodec()
	if err != nil {
		return nil, fmt.Errorf("xds server: %w", err)
	}
	limits := o.Limits.orDefaults()
	s := &Server{authenticate: o.Authenticate, views: o.Views, status: o.Status, secrets: o.Secrets, edge: newEdge(o.Log), limits: limits,
		conns: newConns(limits.Connections), epoch: strconv.FormatUint(uint64(rand.Uint32()), 36), stop: make(chan struct{}),
		streams: map[*stream]struct{}{}}
	s.grpc = grpc.NewServer(append(transport(o.Credentials, c, limits), o.GRPC...)...)
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(s.grpc, s)
	return s, nil
}

// transport bounds what a connection can cost: small buffers, few streams, dead peers found within 30 s.
func transport(creds credentials.TransportCredentials, c codec, l Limits) []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.Creds(admit(creds, l.Handshakes)),
		grpc.ForceServerCodecV2(c),
		grpc.ConnectionTimeout(l.Handshake),
		grpc.MaxRecvMsgSize(l.Message),
		grpc.MaxConcurrentStreams(uint32(min(l.Streams, 1<<20))),
		grpc.WaitForHandlers(true),
		grpc.MaxHeaderListSize(16 << 10),
		grpc.ReadBufferSize(4 << 10),
		grpc.WriteBufferSize(4 << 10),
		grpc.KeepaliveParams(keepalive.ServerParameters{Time: 20 * time.Second, Timeout: 10 * time.Second}),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}),
	}
}

// Registrar is where other services that share the port are registered, before Serve.
func (s *Server) Registrar() grpc.ServiceRegistrar { return s.grpc }

// Serve serves until ctx ends, then tells every proxy to come again and waits for all to have left. A listener that fails is an error.
func (s *Server) Serve(ctx context.Context, l net.Listener) error {
	failed := make(chan error, 1)
	go func() { failed <- s.grpc.Serve(s.conns.listen(l)) }()
	select {
	case err := <-failed:
		s.halt()
		return fmt.Errorf("xds server: %w", err)
	case <-ctx.Done():
	}
	s.halt()
	if err := <-failed; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
		return fmt.Errorf("xds server: %w", err)
	}
	return nil
}

// graceful is how long calls of other services may still take.
const graceful = 3 * time.Second

func (s *Server) halt() {
	s.stopped.Do(func() { close(s.stop) })
	hard := time.AfterFunc(graceful, s.grpc.Stop)
	s.grpc.GracefulStop()
	hard.Stop()
	s.running.Wait()
}

// Disconnect ends the streams of the peers that match, as when a credential is revoked. It tells how many there were.
func (s *Server) Disconnect(match func(identity.Proven) bool) int {
	s.mu.Lock()
	defer s.mu.Unlock()
	n := 0
	for x := range s.streams {
		if match(x.proven) {
			x.revoked.Store(true)
			x.poke()
			n++
		}
	}
	return n
}

func (s *Server) enter(x *stream) {
	s.mu.Lock()
	s.streams[x] = struct{}{}
	s.mu.Unlock()
}

func (s *Server) leave(x *stream) {
	s.mu.Lock()
	delete(s.streams, x)
	s.mu.Unlock()
}

// DeltaAggregatedResources serves one proxy over the incremental protocol.
func (s *Server) DeltaAggregatedResources(w discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesServer) error {
	return s.newStream(deltaWire{w}).run(w.Context())
}

// StreamAggregatedResources serves one proxy over the state-of-the-world protocol.
func (s *Server) StreamAggregatedResources(w discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesServer) error {
	x := s.newStream(sotwWire{w})
	x.sotw = true
	return x.run(w.Context())
}

func (s *Server) newStream(w wire) *stream {
	return &stream{Server: s, wire: w, log: s.edge, prefix: s.epoch + "." + strconv.FormatUint(s.opened.Add(1), 36) + ".", wake: make(chan struct{}, 1)}
}
