// Package opa is the decision service: it evaluates the Rego of a policy.Set for Envoy's external authorization, envoy.service.auth.v3, inside
// this process. A policy sees the input document of opa-envoy-plugin, with a canonical path and with claims that were verified on the same
// hop. Whatever is not a clear yes is a no.
package opa

import (
	"context"
	"errors"
	"fmt"
	"runtime"
	"strings"
	"sync/atomic"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/topdown/cache"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"

	"github.com/credence-mesh/credence/identity"
)

// DecisionKey is the context extension by which a provider chooses its decision. Only Envoy's configuration sets context extensions.
const DecisionKey = "credence.decision"

// DefaultTimeout bounds the evaluation of one decision.
const DefaultTimeout = 100 * time.Millisecond

// Options are the settings of a Service. The zero value answers nobody but this process; all else of it is right for production.
type Options struct {
	// Callers are whom Check answers. What they ask about is the decision that the context extension DecisionKey names; empty: the default.
	Callers  identity.Callers
	Decision string         // for example "envoy/authz/allow"; empty: see Service.Update
	Timeout  time.Duration  // of one decision; zero: DefaultTimeout
	AtOnce   int            // decisions of one caller that are made at the same time, others wait; zero: one for each CPU
	Builtins []string       // built-in functions to allow although they reach beyond the request, for example "http.send"
	Log      func(Decision) // called by Run, one decision at a time; nil: no log
	LogQueue int            // decisions that wait for Log before more are dropped; zero: 1024
}

// Service answers envoy.service.auth.v3. Until the first Update it denies everything.
type Service struct {
	authv3.UnimplementedAuthorizationServer
	options  Options
	metrics  *metrics
	values   cache.InterQueryValueCache
	queries  cache.InterQueryCache
	policies atomic.Pointer[policies]
	state    state // owned by Update
	log      chan Decision
	turns    *turns
}

// New makes a service and registers its metrics.
func New(o Options, r prometheus.Registerer) (*Service, error) {
	m, err := newMetrics(r)
	if err != nil {
		return nil, fmt.Errorf("decision metrics: %w", err)
	}
	// Bounded caches between queries: at most 16 MiB of results and 10,000 compiled values (patterns, keys).
	config, err := cache.ParseCachingConfig([]byte(`{"inter_query_builtin_cache":{"max_size_bytes":16777216},"inter_query_builtin_value_cache":{"max_num_entries":10000}}`))
	if err != nil {
		return nil, fmt.Errorf("decision caches: %w", err)
	}
	if o.Timeout <= 0 {
		o.Timeout = DefaultTimeout
	}
	if o.AtOnce <= 0 {
		o.AtOnce = runtime.GOMAXPROCS(0)
	}
	if o.LogQueue <= 0 {
		o.LogQueue = 1024
	}
	o.Decision = decisionPath(o.Decision)
	return &Service{
		options: o, metrics: m, log: make(chan Decision, o.LogQueue), turns: newTurns(o.AtOnce),
		values: cache.NewInterQueryValueCache(context.Background(), config), queries: cache.NewInterQueryCache(config),
	}, nil
}

// Register adds the service to a gRPC server.
func (s *Service) Register(r grpc.ServiceRegistrar) { authv3.RegisterAuthorizationServer(r, s) }

// Run hands decisions to Options.Log until ctx ends. Without a Log there is nothing to run.
func (s *Service) Run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			if errors.Is(ctx.Err(), context.Canceled) {
				return nil
			}
			return ctx.Err()
		case d := <-s.log:
			if s.options.Log != nil {
				s.options.Log(d)
			}
		}
	}
}

// decisionPath accepts "a/b/c", "/a/b/c" and "data.a.b.c", and gives the last form.
func decisionPath(s string) string {
	s = strings.Trim(strings.TrimPrefix(s, "data."), "/")
	if s == "" {
		return ""
	}
	return "data." + strings.ReplaceAll(s, "/", ".")
}
