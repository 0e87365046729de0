package opa

import (
	"context"
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/credence-mesh/credence/identity"
)

var shop, other = identity.Workload{Namespace: "a", Name: "shop"}, identity.Workload{Namespace: "b", Name: "other"}

type callerKey struct{}

// as is a call of a workload's proxy; of no workload: one that showed an X.509-SVID.
func as(ctx context.Context, w identity.Workload) context.Context {
	return context.WithValue(ctx, callerKey{}, w)
}

// asks are the decisions that each workload's configuration asks for.
type asks map[identity.Workload]string

func (a asks) callers(t *testing.T) identity.Callers {
	t.Helper()
	id, err := spiffeid.FromString("spiffe://cluster.local/ns/a/sa/shop")
	if err != nil {
		t.Fatal(err)
	}
	return identity.Callers{
		Authenticate: func(ctx context.Context) (identity.Proven, error) {
			w, ok := ctx.Value(callerKey{}).(identity.Workload)
			if !ok {
				return identity.Proven{}, errors.New("no certificate")
			}
			return identity.Proven{ID: id, Workload: w}, nil
		},
		May: func(_ context.Context, w identity.Workload, decision string) bool {
			have, ok := a[w]
			return ok && have == decision
		},
	}
}

func TestOnlyThoseWhosePolicyAsksAreAnswered(t *testing.T) {
	t.Parallel()
	var logged []Decision
	done := make(chan struct{})
	text := "package envoy.authz\nallow := true"
	s, _ := newService(t, Options{Callers: asks{shop: "", {}: ""}.callers(t), Log: func(d Decision) {
		logged = append(logged, d)
		close(done)
	}}, module1("a.rego", text), module1("b.rego", "package secret\nallow := true"))
	zero, err := New(Options{}, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	zero.Update(setOf(module1("a.rego", text)))
	for _, c := range []struct {
		name     string
		service  *Service
		ctx      context.Context
		decision string
		want     Reason
	}{
		{"no certificate", s, t.Context(), "", Caller},
		{"an X.509-SVID", s, as(t.Context(), identity.Workload{}), "", Caller},
		{"a workload without such a policy", s, as(t.Context(), other), "", Caller},
		{"a decision that the configuration does not name", s, as(t.Context(), shop), "secret/allow", Caller},
		{"a service for nobody", zero, as(t.Context(), shop), "", Caller},
		{"the workload of the policy", s, as(t.Context(), shop), "", Policy},
	} {
		t.Run(c.name, func(t *testing.T) {
			req := ask(t, "/"+c.name, nil, claims{"roles": []any{"admin"}})
			req.Attributes.ContextExtensions = map[string]string{DecisionKey: c.decision}
			resp, err := c.service.Check(c.ctx, req)
			if err != nil || reason(resp) != string(c.want) || (resp.GetOkResponse() != nil) != (c.want == Policy) {
				t.Errorf("%v, %v, want %s", resp, err, c.want)
			}
		})
	}
	ctx, cancel := context.WithCancel(t.Context())
	go func() { <-done; cancel() }()
	if err := s.Run(ctx); err != nil {
		t.Fatal(err)
	}
	if len(logged) != 1 || len(s.log) != 0 || logged[0].Caller != shop || logged[0].CallerID.String() != "spiffe://cluster.local/ns/a/sa/shop" {
		t.Errorf("%+v and %d more", logged, len(s.log))
	}
}

// A policy may know who asks, whatever the request says about its source; in this process nobody asks.
func TestCallerInTheInput(t *testing.T) {
	t.Parallel()
	s, problems := newService(t, Options{Callers: asks{shop: ""}.callers(t)}, module1("a.rego", `package envoy.authz
import rego.v1
allow if {
	input.credence.caller.workload == "a/shop"
	input.credence.caller.spiffe_id == "spiffe://cluster.local/ns/a/sa/shop"
}
allow if { not input.credence; input.path == "/local" }`))
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	req := ask(t, "/", nil, nil)
	req.Attributes.Source.Principal = "spiffe://cluster.local/ns/forged/sa/forged"
	if resp, err := s.Check(as(t.Context(), shop), req); err != nil || resp.GetOkResponse() == nil {
		t.Errorf("%v, %v", resp, err)
	}
	for path, want := range map[string]bool{"/local": true, "/": false} {
		if resp, err := s.Local().Check(t.Context(), ask(t, path, nil, nil)); err != nil || (resp.GetOkResponse() != nil) != want {
			t.Errorf("%s: %v, %v", path, resp, err)
		}
	}
}

// One caller that has all its turns taken waits, then is denied; another is decided meanwhile, and the first again once a turn is free.
func TestFloodByOneCallerLeavesOthersTheirTurn(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, Options{Callers: asks{shop: "", other: ""}.callers(t), AtOnce: 2, Timeout: time.Minute}, module1("a.rego", "package envoy.authz\nallow := true"))
	var ends []func()
	for range 2 {
		end, err := s.turns.take(t.Context(), shop)
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, end)
	}
	s.options.Timeout = 20 * time.Millisecond
	if resp, err := s.Check(as(t.Context(), shop), ask(t, "/", nil, nil)); err != nil || reason(resp) != string(Busy) || resp.GetOkResponse() != nil {
		t.Errorf("a third at once: %v, %v", resp, err)
	}
	s.options.Timeout = time.Minute
	if resp, err := s.Check(as(t.Context(), other), ask(t, "/", nil, nil)); err != nil || resp.GetOkResponse() == nil {
		t.Errorf("another caller: %v, %v", resp, err)
	}
	ends[0]()
	if resp, err := s.Check(as(t.Context(), shop), ask(t, "/", nil, nil)); err != nil || resp.GetOkResponse() == nil {
		t.Errorf("after a turn is free: %v, %v", resp, err)
	}
	ends[1]()
	if n := len(s.turns.callers); n != 0 {
		t.Errorf("%d callers are remembered", n)
	}
}

func TestTurnsAreHandedOn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		turns, running, most := newTurns(3), 0, 0
		var mu sync.Mutex
		var wg sync.WaitGroup
		for range 30 {
			wg.Go(func() {
				end, err := turns.take(t.Context(), shop)
				if err != nil {
					t.Error(err)
					return
				}
				mu.Lock()
				running++
				most = max(most, running)
				mu.Unlock()
				<-time.After(time.Second)
				mu.Lock()
				running--
				mu.Unlock()
				end()
			})
		}
		wg.Wait()
		if most != 3 || len(turns.callers) != 0 {
			t.Errorf("%d at once, %d callers are remembered", most, len(turns.callers))
		}
	})
}
