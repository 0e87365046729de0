// Package jwks fetches the public keys of token issuers, so that no proxy has to. It is a stage between a source of policies and what
// compiles them: it adds a policy.JWKS to every Set for each place that some RequestAuthentication gets its keys from. The last good keys
// are kept on disk and stay in force while an issuer cannot be reached; they are never waited for.
package jwks

import (
	"context"
	"errors"
	"hash/fnv"
	"maps"
	"slices"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"golang.org/x/sync/errgroup"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/jwt"
)

// Source says where the keys of a URI really come from: File, else URL, else URI itself over the network of the operator.
type Source struct {
	URI    string // the jwksUri of a policy, or the discovery document of an issuer without one
	File   string // a JWKS on disk; it is read again when it changes
	URL    string // fetched instead of URI; may be an internal address, because an operator named it
	CAFile string // PEM bundle that the server's certificate must chain to; empty: the system's
}

// Options are what a Stage needs.
type Options struct {
	Dir      string   // where the last good keys are kept; empty: nowhere
	Sources  []Source // settings: places that are not what they are called
	Registry prometheus.Registerer
}

// The times of a fetch. Istio's are the same for refresh.
const (
	refresh    = 20 * time.Minute // between two good fetches
	retryFirst = time.Second      // after the first failure; doubled after each further one
	retryMax   = time.Minute
	pollFile   = time.Second
	saveEvery  = 5 * time.Minute // of a place where nothing changes
	// MaxStale is how long keys stay in force that cannot be fetched again. Then tokens of the issuer fail: a key that was withdrawn because
	// it leaked must not live on by keeping us from learning of it.
	MaxStale = 72 * time.Hour
)

// Put hands on a set and what is wrong with it.
type Put = func(*policy.Set, []policy.Problem)

// Input is where sets come from: a policy source.
type Input interface {
	Run(ctx context.Context, put func(*policy.Set, []policy.Problem)) error
}

// Stage adds keys to sets.
type Stage struct {
	store   store
	mapped  map[string]Source
	metrics *metrics
	fetch   fetcher
}

// New makes a stage.
func New(o Options) (*Stage, error) {
	m, err := newMetrics(o.Registry)
	if err != nil {
		return nil, err
	}
	s := &Stage{store: store{dir: o.Dir}, mapped: map[string]Source{}, metrics: m}
	for _, src := range o.Sources {
		s.mapped[src.URI] = src
	}
	s.fetch = newWeb(s.mapped)
	return s, nil
}

// fetcher gets the document at a place. It may answer errUnchanged where tag still names what is there.
type fetcher interface {
	get(ctx context.Context, p place, tag string) (document []byte, newTag string, err error)
}

// errUnchanged says that the keys are those that were got last.
var errUnchanged = errors.New("unchanged")

// place is where keys come from.
type place struct {
	uri        string
	issuer     string // of a discovery document
	discovered bool
	timeout    time.Duration
	source     Source // zero where it is not mapped
}

// known is what is known of the keys at a place.
type known struct {
	document string
	tag      string
	fetched  time.Time
	saved    time.Time // when fetched was last written to disk
	err      error     // of the last attempt
	tried    bool
}

// usable is the document while it may still be used.
func (k known) usable(now time.Time) string {
	if k.document == "" || now.Sub(k.fetched) > MaxStale {
		return ""
	}
	return k.document
}

// Run passes the sets of input on to put, with keys, until ctx ends or input fails. The first set is put at once with the keys that are on disk.
func (s *Stage) Run(ctx context.Context, input Input, put Put) error {
	g, ctx := errgroup.WithContext(ctx)
	l := &loop{stage: s, put: put, sets: make(chan given), found: make(chan finding), workers: map[string]*worker{}, group: g}
	g.Go(func() error {
		return input.Run(ctx, func(set *policy.Set, problems []policy.Problem) {
			select {
			case l.sets <- given{set, problems}:
			case <-ctx.Done():
			}
		})
	})
	g.Go(func() error { return l.run(ctx) })
	return g.Wait()
}

type given struct {
	set      *policy.Set
	problems []policy.Problem
}

type finding struct {
	uri string
	known
}

// loop owns the state of a running stage.
type loop struct {
	stage   *Stage
	put     Put
	sets    chan given
	found   chan finding
	group   *errgroup.Group
	current given
	wanted  map[string]jwt.Sourced
	workers map[string]*worker
}

// worker keeps the keys of one place.
type worker struct {
	place
	known
	cancel context.CancelFunc
	object *policy.JWKS // as last put
}

func (l *loop) run(ctx context.Context) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case g := <-l.sets:
			l.current = g
			l.want(ctx)
			l.publish()
		case f := <-l.found:
			w := l.workers[f.uri]
			if w == nil {
				continue // nobody wants these keys any more
			}
			problem := w.problem(l.wanted[f.uri]).String()
			w.known = f.known
			if w.usable(time.Now()) != w.object.Document || w.problem(l.wanted[f.uri]).String() != problem {
				l.publish()
			}
		}
	}
}

// want starts and ends workers so that there is one for each place.
func (l *loop) want(ctx context.Context) {
	l.wanted = map[string]jwt.Sourced{}
	for _, i := range jwt.Wanted(l.current.set) {
		l.wanted[i.At()] = i
	}
	for uri, w := range l.workers {
		if i, ok := l.wanted[uri]; !ok || l.stage.place(i) != w.place {
			w.cancel()
			delete(l.workers, uri)
			l.stage.metrics.forget(uri)
		}
	}
	for _, uri := range slices.Sorted(maps.Keys(l.wanted)) {
		if l.workers[uri] == nil {
			l.start(ctx, l.stage.place(l.wanted[uri]))
		}
	}
}

func (s *Stage) place(i jwt.Sourced) place {
	p := place{uri: i.At(), discovered: i.Discovered(), timeout: min(max(i.Timeout, time.Second), 30*time.Second), source: s.mapped[i.At()]}
	if p.discovered {
		p.issuer = i.Issuer.Issuer
	}
	return p
}

// start begins with what is on disk, or in a mapped file: neither makes anybody wait.
func (l *loop) start(ctx context.Context, p place) {
	ctx, cancel := context.WithCancel(ctx)
	w := &worker{place: p, known: l.stage.store.load(p.uri), cancel: cancel}
	if p.source.File != "" {
		w.known = l.stage.attempt(ctx, p, w.known)
	}
	l.workers[p.uri] = w
	first := w.known
	l.group.Go(func() error { l.stage.keep(ctx, p, first, l.found); return nil })
}

// publish puts the current set with what is known of keys.
func (l *loop) publish() {
	now := time.Now()
	problems := slices.Clone(l.current.problems)
	var objects []policy.Resource
	for _, uri := range slices.Sorted(maps.Keys(l.workers)) {
		w := l.workers[uri]
		if doc := w.usable(now); w.object == nil || w.object.Document != doc {
			w.object = object(uri, doc)
		}
		objects = append(objects, w.object)
		if p := w.problem(l.wanted[uri]); p.Code != "" {
			problems = append(problems, p)
		}
	}
	l.put(l.current.set.Apply(objects, nil), problems)
}

func object(uri, document string) *policy.JWKS {
	h := fnv.New64a()
	_, _ = h.Write([]byte(document)) // a hash never fails
	return &policy.JWKS{
		Object:   policy.Object{Key: policy.Key{Kind: policy.KindJWKS, Name: uri}, At: policy.Origin{File: uri}, Digest: h.Sum64()},
		Document: document,
	}
}
