package opa

import (
	"context"
	"sync"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/credence-mesh/credence/identity"
)

// Local decides for this process itself, about requests that it made up: no caller is asked for, and none is in the input.
func (s *Service) Local() authv3.AuthorizationServer { return inProcess{s: s} }

type inProcess struct {
	authv3.UnimplementedAuthorizationServer
	s *Service
}

// Check decides about one request.
func (l inProcess) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	return l.s.check(ctx, identity.Proven{}, req), nil
}

// callerTerm is what a policy may know of the proxy that asks, from its credential: nothing that the request says about itself.
func callerTerm(p identity.Proven) *ast.Term {
	var caller, o object
	caller.text("workload", p.Workload.String())
	caller.text("spiffe_id", p.ID.String())
	o.put("caller", caller.term())
	return o.term()
}

// turns lets each caller have a number of evaluations at once, so that one that floods waits for itself and for nobody else.
type turns struct {
	each    int
	mu      sync.Mutex
	callers map[identity.Workload]*turn
}

type turn struct {
	free  chan struct{} // holds one for each evaluation that runs
	users int           // that run or wait
}

func newTurns(each int) *turns {
	return &turns{each: each, callers: map[identity.Workload]*turn{}}
}

// take waits for a turn until ctx ends. What it returns must be called at the end of the turn.
func (t *turns) take(ctx context.Context, w identity.Workload) (done func(), err error) {
	mine := t.join(w)
	select {
	case mine.free <- struct{}{}:
		return func() { <-mine.free; t.leave(w, mine) }, nil
	case <-ctx.Done():
		t.leave(w, mine)
		return nil, ctx.Err()
	}
}

func (t *turns) join(w identity.Workload) *turn {
	t.mu.Lock()
	defer t.mu.Unlock()
	mine := t.callers[w]
	if mine == nil {
		mine = &turn{free: make(chan struct{}, t.each)}
		t.callers[w] = mine
	}
	mine.users++
	return mine
}

func (t *turns) leave(w identity.Workload, mine *turn) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if mine.users--; mine.users == 0 {
		delete(t.callers, w)
	}
}
