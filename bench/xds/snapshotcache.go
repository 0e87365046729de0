package main

import (
	"context"
	"net"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	resourcev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
)

// snapshotCache is go-control-plane used in the way that favours it most: replicas of a workload share one snapshot, and one edit sets one
// snapshot a workload. gRPC has the same small buffers as ours.
type snapshotCache struct {
	cache      cachev3.SnapshotCache
	grpc       *grpc.Server
	workloads  int
	resources  int
	generation int
	shared     []types.Resource
}

// byWorkload gives all replicas of a workload one key.
type byWorkload struct{}

// ID is the workload of a node.
func (byWorkload) ID(n *corev3.Node) string {
	w, _, _ := strings.Cut(n.GetId(), "~")
	return w
}

func newSnapshotCache(ctx context.Context, dir string, workloads, resources int) (*snapshotCache, error) {
	s := &snapshotCache{cache: cachev3.NewSnapshotCache(true, byWorkload{}, nil), workloads: workloads, resources: resources}
	for n := range resources - 1 {
		s.shared = append(s.shared, shared(n))
	}
	config, err := serverTLS(dir)
	if err != nil {
		return nil, err
	}
	s.grpc = grpc.NewServer(grpc.Creds(credentials.NewTLS(config)), grpc.ReadBufferSize(4<<10), grpc.WriteBufferSize(4<<10))
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(s.grpc, serverv3.NewServer(ctx, s.cache, nil))
	return s, s.edit(workloads)
}

func (s *snapshotCache) edit(n int) error {
	s.generation++
	for w := range n {
		list := append([]types.Resource{own(w, s.generation)}, s.shared...)
		snap, err := cachev3.NewSnapshot(strconv.Itoa(s.generation), map[resourcev3.Type][]types.Resource{resourcev3.ClusterType: list})
		if err != nil {
			return err
		}
		if err := s.cache.SetSnapshot(context.Background(), "prod/"+workloadName(w), snap); err != nil {
			return err
		}
	}
	return nil
}

func (s *snapshotCache) editAll() error { return s.edit(s.workloads) }
func (s *snapshotCache) editOne() error { return s.edit(1) }

func (s *snapshotCache) serve(ctx context.Context, l net.Listener) error {
	stop := context.AfterFunc(ctx, s.grpc.Stop)
	defer stop()
	return s.grpc.Serve(l)
}
