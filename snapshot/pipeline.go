package snapshot

import (
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/compile"
	"github.com/credence-mesh/credence/xds/resource"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Builder knows which parts a workload consists of, and builds them. Its methods are pure, and are called from several goroutines at once.
type Builder interface {
	// Parts lists the parts of a workload, in order of precedence.
	Parts(set *policy.Set, w *policy.Workload) []compile.PartKey
	// Build makes all resources of a part. On an error the part's last good resources stay in force.
	Build(set *policy.Set, k compile.PartKey) ([]*resource.Resource, []policy.Problem, error)
	// Affected tells what the changes from old to new touch. It may name too much, never too little.
	Affected(old, new *policy.Set, changes []policy.Change) compile.Affected
}

// The windows of time in which changes are gathered. The first change after a quiet time is published at once.
const (
	minWindow = 10 * time.Millisecond
	maxWindow = 100 * time.Millisecond
)

// Pipeline turns Sets into views. One goroutine, Run, owns all its state; what it publishes is immutable.
type Pipeline struct {
	builder  Builder
	identify func(*policy.Set, *policy.Workload) (identity.ID, error)
	classes  *registry
	intern   *interner
	report   atomic.Pointer[Report]
	ready    chan struct{}

	mu     sync.Mutex // guards the two that follow
	update *update
	demand map[identity.Workload]struct{}
	wake   chan struct{} // holds one: there is an update or a demand

	// Owned by Run.
	set       *policy.Set
	problems  []policy.Problem // of the source
	parts     map[compile.PartKey]*part
	workloads map[policy.Key]*workload
	stale     map[compile.PartKey]struct{} // parts that are
	telling   map[compile.PartKey]struct{} // parts that have problems, or could not be built
	unnamed   map[*workload]struct{}       // workloads without an identity
}

type update struct {
	set      *policy.Set
	problems []policy.Problem
}

// Report is the state of the configuration as a whole.
type Report struct {
	Kept      []compile.PartKey
	Withheld  []compile.PartKey // failed, with no last good: their proxies get nothing of them
	Parts     int
	Workloads int
	Published uint64        // how often views were published
	Took      time.Duration // by the last one, from its arrival to its publication

	told   [][]policy.Problem
	once   sync.Once
	sorted []policy.Problem
}

// Problems is what the source and every part that was built tell, sorted. They are gathered when somebody asks: an edit does not pay for the
// problems of the whole mesh. The result must not be modified.
func (r *Report) Problems() []policy.Problem {
	r.once.Do(func() {
		r.sorted = slices.Concat(r.told...)
		slices.SortFunc(r.sorted, policy.Problem.Compare)
		r.sorted = slices.Compact(r.sorted)
	})
	return r.sorted
}

// New makes a pipeline.
func New(b Builder) *Pipeline {
	p := &Pipeline{
		builder: b, identify: serviceAccountID, classes: newRegistry(), intern: newInterner(), ready: make(chan struct{}),
		demand: map[identity.Workload]struct{}{}, wake: make(chan struct{}, 1),
		parts: map[compile.PartKey]*part{}, workloads: map[policy.Key]*workload{},
		stale: map[compile.PartKey]struct{}{}, telling: map[compile.PartKey]struct{}{}, unnamed: map[*workload]struct{}{},
	}
	p.report.Store(&Report{})
	return p
}

func serviceAccountID(set *policy.Set, w *policy.Workload) (identity.ID, error) {
	td, err := spiffeid.TrustDomainFromString(set.Mesh().TrustDomain)
	if err != nil {
		return identity.ID{}, err
	}
	return identity.ForServiceAccount(td, w.Namespace, w.ServiceAccount)
}

// Put hands over a Set and what its source found wrong with it. It never blocks; of several Sets in a short time the newest wins.
func (p *Pipeline) Put(set *policy.Set, problems []policy.Problem) {
	p.mu.Lock()
	p.update = &update{set, problems}
	p.mu.Unlock()
	p.poke()
}

func (p *Pipeline) poke() {
	select {
	case p.wake <- struct{}{}:
	default:
	}
}

// Ready is closed when the first Set was published.
func (p *Pipeline) Ready() <-chan struct{} { return p.ready }

// Report tells the state of the configuration as of the last publication. It must not be modified.
func (p *Pipeline) Report() *Report { return p.report.Load() }

// State is the newest state of a workload.
func (p *Pipeline) State(w identity.Workload) State {
	if c, ok := p.classes.find(w); ok {
		return c.load()
	}
	return State{}
}

// Subscribe follows a workload that exists; false where it does not. The parts that nobody needed so far are built now: notify is called,
// from any goroutine, when the state differs. It must not block.
func (p *Pipeline) Subscribe(w identity.Workload, notify func()) (*Subscription, bool) {
	c, ok := p.classes.find(w)
	if !ok {
		return nil, false
	}
	s := &Subscription{class: c, notify: notify}
	c.mu.Lock()
	c.subs[s] = struct{}{}
	c.mu.Unlock()
	p.mu.Lock()
	p.demand[w] = struct{}{}
	p.mu.Unlock()
	p.poke()
	return s, true
}

// Run publishes until ctx ends.
func (p *Pipeline) Run(ctx context.Context) error {
	// Four things can happen, one at a time: a Set arrives in a quiet time (publish at once), or soon after another (gather until the
	// window ends); somebody asks for parts that are not built (build at once); the end.
	window := minWindow
	timer := time.NewTimer(0)
	defer timer.Stop()
	quiet := false // whether the window after the last publication has passed
	for {
		select {
		case <-ctx.Done():
			return nil
		case <-p.wake:
		case <-timer.C:
			if p.apply() {
				window = min(2*window, maxWindow)
				timer.Reset(window)
			} else {
				quiet, window = true, minWindow
			}
			continue
		}
		p.satisfy()
		if quiet && p.apply() {
			quiet = false
			timer.Reset(window)
		}
	}
}

// take empties the slot of the newest Set.
func (p *Pipeline) take() *update {
	p.mu.Lock()
	defer p.mu.Unlock()
	u := p.update
	p.update = nil
	return u
}

func (p *Pipeline) takeDemand() map[identity.Workload]struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	d := p.demand
	p.demand = map[identity.Workload]struct{}{}
	return d
}
