package main

import (
	"context"
	"sync"
	"time"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/snapshot"
	"github.com/credence-mesh/credence/xds/asks"
	"github.com/credence-mesh/credence/xds/resource"
)

const (
	// drainTime is how long a proxy may still ask for what its configuration no longer asks for: connections of a replaced listener keep
	// its filters for as long as Envoy drains it (--drain-time-s, 600 s where nobody says otherwise).
	drainTime = 10 * time.Minute
	// buildWait bounds the wait for the configuration of a workload that asks before it subscribes, as proxies do that come back.
	buildWait = 2 * time.Second
)

// grants is what each workload's proxies may ask of the decision and limit services: what their configuration asks for.
type grants struct {
	pipeline *snapshot.Pipeline
	now      func() time.Time
	mu       sync.Mutex
	of       map[identity.Workload]*grant
}

// grant is what one workload may ask, read once from each of its views.
type grant struct {
	mu   sync.Mutex
	view *snapshot.View
	asks asks.Asks
	used time.Time              // when view was last seen to be in force
	past map[question]time.Time // what an earlier view asked for, and until when it may still be asked
}

// question is a domain of rate limits, or the name of a decision.
type question struct {
	decision bool
	name     string
}

func newGrants(p *snapshot.Pipeline) *grants {
	return &grants{pipeline: p, now: time.Now, of: map[identity.Workload]*grant{}}
}

// limits tells whether a workload may ask about a domain of rate limits.
func (g *grants) limits(ctx context.Context, w identity.Workload, domain string) bool {
	return g.may(ctx, w, question{name: domain})
}

// decides tells whether a workload may ask for a decision; empty: the default one.
func (g *grants) decides(ctx context.Context, w identity.Workload, decision string) bool {
	return g.may(ctx, w, question{decision: true, name: decision})
}

func (g *grants) may(ctx context.Context, w identity.Workload, q question) bool {
	view := g.view(ctx, w)
	mine := g.grant(w, view != nil)
	if mine == nil {
		return false
	}
	mine.mu.Lock()
	defer mine.mu.Unlock()
	return mine.allows(view, g.now(), q)
}

func (g *grant) allows(view *snapshot.View, now time.Time, q question) bool {
	g.see(view, now)
	if q.decision && g.asks.Decisions[q.name] || !q.decision && g.asks.Domains[q.name] {
		return true
	}
	return now.Before(g.past[q])
}

// grant is that of a workload; of one that is not there it is forgotten.
func (g *grants) grant(w identity.Workload, there bool) *grant {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !there {
		delete(g.of, w)
		return nil
	}
	if g.of[w] == nil {
		g.of[w] = &grant{past: map[question]time.Time{}}
	}
	return g.of[w]
}

// see reads a view that was not read yet.
func (g *grant) see(view *snapshot.View, now time.Time) {
	if g.view != view {
		for q, until := range g.past {
			if !now.Before(until) {
				delete(g.past, q)
			}
		}
		for name := range g.asks.Domains {
			g.past[question{name: name}] = g.used.Add(drainTime)
		}
		for name := range g.asks.Decisions {
			g.past[question{decision: true, name: name}] = g.used.Add(drainTime)
		}
		g.view, g.asks = view, asks.Of(bodies(view))
	}
	g.used = now
}

func bodies(view *snapshot.View) (list []*resource.Resource) {
	for _, t := range []resource.Type{resource.ExtensionConfig, resource.Listener, resource.RouteConfig} {
		for _, i := range view.List(t) {
			list = append(list, i.Resource)
		}
	}
	return list
}

// view is the configuration of a workload; nil where there is no such workload. One that nobody needed so far is built now.
func (g *grants) view(ctx context.Context, w identity.Workload) *snapshot.View {
	if s := g.pipeline.State(w); s.View != nil || !s.Exists() {
		return s.View
	}
	wake := make(chan struct{}, 1)
	sub, ok := g.pipeline.Subscribe(w, func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if !ok {
		return nil
	}
	defer sub.Close()
	ctx, cancel := context.WithTimeout(ctx, buildWait)
	defer cancel()
	for {
		if s := sub.State(); s.View != nil || !s.Exists() {
			return s.View
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return nil
		}
	}
}
