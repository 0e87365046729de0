package main

import (
	"context"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"go.uber.org/zap"

	"github.com/credence-mesh/credence/console"
	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/internal/validate"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/lint"
	"github.com/credence-mesh/credence/snapshot"
)

// facts is what the running control plane knows of itself. It hands each Set to the parts that need it, and gathers what they find wrong.
type facts struct {
	c       *controlPlane
	log     *zap.Logger
	started time.Time
	set     atomic.Pointer[policy.Set]
	linted  atomic.Pointer[[]policy.Problem]
	relint  chan struct{} // holds one: there is a newer Set

	// Owned by the goroutine that calls apply.
	limited, decided []policy.Problem

	mu   sync.Mutex
	told map[string]map[policy.Problem]bool // what the log already has, by where it was found
}

func newFacts(c *controlPlane) *facts {
	f := &facts{c: c, log: c.logs.For("config"), started: time.Now(), relint: make(chan struct{}, 1), told: map[string]map[policy.Problem]bool{}}
	f.set.Store(policy.NewSet(policy.DefaultMesh()))
	f.linted.Store(&[]policy.Problem{})
	return f
}

// apply puts a Set in force. The decision services come first: a proxy that gets its new configuration finds them ready.
func (f *facts) apply(set *policy.Set, problems []policy.Problem) {
	old := f.set.Load()
	touched := kindsOf(policy.Diff(old, set))
	first := len(touched) == 0
	if first || touched[policy.KindRateLimit] || touched[policy.KindConfigMap] {
		f.limited = f.c.limits.Update(set)
	}
	if first || touched[policy.KindRego] || touched[policy.KindConfigMap] {
		f.decided = f.c.decisions.Update(set)
	}
	f.c.secrets.Update(set)
	f.set.Store(set)
	all := slices.Concat(problems, f.limited, f.decided)
	f.c.pipeline.Put(set, all)
	f.tell("source", all)
	select {
	case f.relint <- struct{}{}:
	default:
	}
}

func kindsOf(changes []policy.Change) map[policy.Kind]bool {
	out := map[policy.Kind]bool{}
	for _, c := range changes {
		r := c.New
		if r == nil {
			r = c.Old
		}
		out[r.Meta().Key.Kind] = true
	}
	return out
}

// lint looks for what surprises, beside the path of a change: it reads the whole Set.
func (f *facts) lint(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-f.relint:
		}
		found := lint.Set(f.set.Load())
		f.linted.Store(&found)
		f.tell("lint", found)
	}
}

// tell logs each problem once for as long as it lasts.
func (f *facts) tell(where string, problems []policy.Problem) {
	f.mu.Lock()
	defer f.mu.Unlock()
	now := map[policy.Problem]bool{}
	for _, p := range problems {
		if p.Severity == policy.Info || now[p] {
			continue
		}
		now[p] = true
		if f.told[where][p] {
			continue
		}
		fields := []zap.Field{zap.Stringer("at", p.At), zap.String("object", p.Object), zap.String("field", p.Field), zap.String("code", p.Code), zap.String("try", p.Try)}
		if p.Severity == policy.Error {
			f.log.Error(p.Says, fields...)
		} else {
			f.log.Warn(p.Says, fields...)
		}
	}
	f.told[where] = now
}

// Status is what `credence status` shows.
func (f *facts) Status() console.Status {
	r := f.c.pipeline.Report()
	s := console.Status{
		Version: versionString(), Started: f.started, Ready: f.Ready() == nil, Objects: f.set.Load().Len(), Workloads: r.Workloads,
		Problems: validate.Merged(lint.Ignored(f.set.Load(), r.Problems()), *f.linted.Load()),
	}
	slices.SortFunc(s.Problems, policy.Problem.Compare)
	s.Problems = slices.Compact(s.Problems)
	s.Proxies = f.c.status.Proxies()
	return s
}

// Dump is the resources of a workload's proxies.
func (f *facts) Dump(ctx context.Context, w identity.Workload) (snapshot.Dump, error) {
	if !f.c.pipeline.State(w).Exists() {
		return snapshot.Dump{}, console.ErrUnknown
	}
	return f.c.pipeline.Dump(ctx, w)
}

// Ready is nil once the first configuration is published.
func (f *facts) Ready() error {
	select {
	case <-f.c.pipeline.Ready():
		return nil
	default:
		return errors.New("the configuration is not read yet")
	}
}
