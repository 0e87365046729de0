package main

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"
	"google.golang.org/grpc/connectivity"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/encoding"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

const (
	clusterURL = "type.googleapis.com/envoy.config.cluster.v3.Cluster"
	method     = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources"
	patience   = 5 * time.Minute
	atOnce     = 128 // connections being made at once, as many proxies that start together
)

// fleet is the simulated proxies. Each has a connection of its own, parses no more than the nonce, and acknowledges everything.
type fleet struct {
	conns   []*grpc.ClientConn
	streams []grpc.ClientStream
	ended   sync.WaitGroup
	acked   atomic.Int64 // responses acknowledged
	bytes   atomic.Int64
	changed chan struct{} // holds one: acked has grown
	broken  chan error    // holds one: why a stream ended that should not
	closing atomic.Bool
}

// received is a response of which only the nonce is read.
type received struct {
	nonce string
	size  int
}

// thin reads responses as received, so that the fleet costs the same for every server.
type thin struct{ encoding.CodecV2 }

// Unmarshal implements encoding.CodecV2.
func (t thin) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*received)
	if !ok {
		return t.CodecV2.Unmarshal(data, v)
	}
	b := data.Materialize()
	r.size = len(b)
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
		if num == 5 && typ == protowire.BytesType {
			s, n := protowire.ConsumeString(b)
			if n < 0 {
				return protowire.ParseError(n)
			}
			r.nonce, b = s, b[n:]
			continue
		}
		if n = protowire.ConsumeFieldValue(num, typ, b); n < 0 {
			return protowire.ParseError(n)
		}
		b = b[n:]
	}
	return nil
}

// connect makes the connections, and waits until every handshake is done.
func connect(ctx context.Context, addr string, n int, clients []*tls.Config) (*fleet, error) {
	f := &fleet{conns: make([]*grpc.ClientConn, n), streams: make([]grpc.ClientStream, n), changed: make(chan struct{}, 1), broken: make(chan error, 1)}
	g, ctx := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i := range n {
		g.Go(func() error {
			c, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(clients[i%len(clients)])),
				grpc.WithReadBufferSize(4<<10), grpc.WithWriteBufferSize(4<<10),
				grpc.WithDefaultCallOptions(grpc.ForceCodecV2(thin{encoding.GetCodecV2("proto")}), grpc.MaxCallRecvMsgSize(256<<20)))
			if err != nil {
				return err
			}
			f.conns[i] = c
			c.Connect()
			for s := c.GetState(); s != connectivity.Ready; s = c.GetState() {
				if s == connectivity.TransientFailure {
					return errors.New("a proxy cannot connect")
				}
				if !c.WaitForStateChange(ctx, s) {
					return ctx.Err()
				}
			}
			return nil
		})
	}
	return f, g.Wait()
}

// subscribe opens the streams, and waits until every proxy has acknowledged its first response. held is what each says it has already.
func (f *fleet) subscribe(ctx context.Context, workloads int, held func(workload int) map[string]string) error {
	g, _ := errgroup.WithContext(ctx)
	g.SetLimit(atOnce)
	for i := range f.conns {
		g.Go(func() error {
			st, err := f.conns[i].NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, method)
			if err != nil {
				return err
			}
			f.streams[i] = st
			r := &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: nodeID(i, workloads)}, TypeUrl: clusterURL}
			if held != nil {
				r.InitialResourceVersions = held(i % workloads)
			}
			if err := st.SendMsg(r); err != nil {
				return err
			}
			f.ended.Add(1)
			go f.follow(st)
			return nil
		})
	}
	if err := g.Wait(); err != nil {
		return err
	}
	return f.await(ctx, int64(len(f.conns)))
}

// follow acknowledges until the stream ends.
func (f *fleet) follow(st grpc.ClientStream) {
	defer f.ended.Done()
	for {
		var r received
		if err := st.RecvMsg(&r); err != nil {
			if !f.closing.Load() {
				select {
				case f.broken <- err:
				default: // the first tells enough
				}
			}
			return
		}
		f.bytes.Add(int64(r.size))
		if err := st.SendMsg(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: clusterURL, ResponseNonce: r.nonce}); err != nil {
			return
		}
		f.acked.Add(1)
		select {
		case f.changed <- struct{}{}:
		default:
		}
	}
}

// await waits until so many responses were acknowledged since the fleet began.
func (f *fleet) await(ctx context.Context, n int64) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	for f.acked.Load() < n {
		select {
		case <-f.changed:
		case err := <-f.broken:
			return fmt.Errorf("a stream ended: %w", err)
		case <-ctx.Done():
			return fmt.Errorf("%d of %d answers: %w", f.acked.Load(), n, ctx.Err())
		}
	}
	return nil
}

func (f *fleet) close() {
	f.closing.Store(true)
	for _, c := range f.conns {
		if c != nil {
			_ = c.Close() // the server sees it go, whatever it says
		}
	}
	f.ended.Wait()
}

// versions are what a proxy of a workload holds after its first response, read from the server as a real proxy would.
func versions(ctx context.Context, addr string, workloads, workload int, config *tls.Config) (map[string]string, error) {
	c, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(credentials.NewTLS(config)), grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(256<<20)))
	if err != nil {
		return nil, err
	}
	defer func() { _ = c.Close() }()
	st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(c).DeltaAggregatedResources(ctx)
	if err != nil {
		return nil, err
	}
	if err := st.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: nodeID(workload, workloads)}, TypeUrl: clusterURL}); err != nil {
		return nil, err
	}
	r, err := st.Recv()
	if err != nil {
		return nil, err
	}
	out := map[string]string{}
	for _, x := range r.Resources {
		out[x.Name] = x.Version
	}
	return out, nil
}
