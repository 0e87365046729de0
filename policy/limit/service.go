package limit

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"sync/atomic"

	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
)

// Service answers envoy.service.ratelimit.v3. Until the first Update it answers Unavailable.
type Service struct {
	rlsv3.UnimplementedRateLimitServiceServer
	callers identity.Callers // about domains
	store   Store
	clock   *Clock
	metrics *metrics
	rules   atomic.Pointer[rules]
	good    map[string]Config // last good configuration by Source; owned by Update
}

// rules is everything that is in force. It is never changed.
type rules struct {
	domains map[string]*node // nil: the domain's configuration is void
}

// NewService makes a service that counts in store, and registers its metrics. It answers callers about the domains that they may ask for.
func NewService(store Store, clock *Clock, callers identity.Callers, r prometheus.Registerer) (*Service, error) {
	m, err := newMetrics(r)
	if err != nil {
		return nil, fmt.Errorf("rate limit metrics: %w", err)
	}
	return &Service{callers: callers, store: store, clock: clock, metrics: m, good: map[string]Config{}}, nil
}

// Register adds the service to a gRPC server.
func (s *Service) Register(r grpc.ServiceRegistrar) { rlsv3.RegisterRateLimitServiceServer(r, s) }

// Update puts the configurations of a set in force, all at once, and tells what is wrong with them. A configuration that is void now and was
// good before stays as it was; one that was never good makes its domain answer Unavailable, so that Envoy's failure_mode_deny decides.
// Counters are kept: a changed limit holds from the next request on, in the window that runs. It must not be called twice at a time.
func (s *Service) Update(set *policy.Set) []policy.Problem {
	configs, problems := ConfigsIn(set)
	good := map[string]Config{}
	next := &rules{domains: map[string]*node{}}
	for i, c := range configs {
		if old, ok := s.good[c.Source]; c.Void && ok {
			c, configs[i] = old, old
		}
		if !c.Void {
			good[c.Source] = c
		}
	}
	for _, c := range configs {
		if c.Domain == "" || next.domains[c.Domain] != nil {
			continue
		}
		next.domains[c.Domain] = nil
		if !c.Void {
			next.domains[c.Domain] = compile(c)
		}
	}
	s.good = good
	s.rules.Store(next)
	s.metrics.configs(len(configs), len(good))
	return problems
}

// Domains lists the domains that are configured.
func (s *Service) Domains() []string {
	r := s.rules.Load()
	if r == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(r.domains))
}

// ShouldRateLimit tells whether a request is within its limits, and counts it. Limits come from the configuration alone: one that the request
// brings along is ignored.
func (s *Service) ShouldRateLimit(ctx context.Context, req *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	caller, err := s.callers.Admit(ctx, req.GetDomain())
	if err != nil {
		return nil, s.refuse(codes.PermissionDenied, err.Error())
	}
	r := s.rules.Load()
	root, known := (*node)(nil), false
	if r != nil {
		root, known = r.domains[req.GetDomain()]
	}
	switch {
	case r == nil:
		return nil, s.refuse(codes.Unavailable, "no configuration is loaded yet")
	case req.GetDomain() == "":
		return nil, s.refuse(codes.InvalidArgument, "the domain must not be empty")
	case len(req.GetDescriptors()) == 0:
		return nil, s.refuse(codes.InvalidArgument, "the list of descriptors must not be empty")
	case known && root == nil:
		return nil, s.refuse(codes.Unavailable, "the configuration of domain "+req.GetDomain()+" is void")
	}
	d := newDecision(caller.Workload.String(), req, root, known)
	d.find()
	now := s.clock.Now().Unix()
	if err := s.store.Add(ctx, now, d.hits, d.counts); err != nil {
		return nil, s.refuse(codes.Unavailable, "the store does not answer: "+err.Error())
	}
	resp := d.answer(now)
	s.metrics.decided(req.GetDomain(), d, resp)
	return resp, nil
}

func (s *Service) refuse(code codes.Code, says string) error {
	s.metrics.errors.WithLabelValues(code.String()).Inc()
	return status.Error(code, says)
}
