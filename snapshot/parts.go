package snapshot

import (
	"cmp"
	"fmt"
	"maps"
	"runtime"
	"slices"
	"sync"
	"time"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/compile"
	"github.com/credence-mesh/credence/xds/resource"
)

// part is one part of the configuration as last built.
type part struct {
	layer    *Layer // the last good one; nil where there was never one
	problems []policy.Problem
	err      error // of the last build
	stale    bool  // what it depends on has changed since it was built
	tried    bool
	users    map[*workload]struct{}
}

// workload is a workload of the set in force.
type workload struct {
	name  identity.Workload
	id    identity.ID
	err   error // why it has no identity
	at    *policy.Object
	parts []compile.PartKey
	class *class
}

// apply publishes the newest Set; false where none is waiting.
func (p *Pipeline) apply() bool {
	u := p.take()
	if u == nil {
		return false
	}
	start := time.Now()
	old := p.set
	p.set, p.problems = u.set, u.problems
	dirty := map[*workload]struct{}{}
	if old == nil {
		for w := range u.set.Workloads() {
			p.enlist(w, dirty)
		}
	} else {
		p.invalidate(p.affected(old), dirty)
	}
	p.build(dirty)
	p.publish(dirty)
	p.tell(start)
	if old == nil {
		close(p.ready)
	}
	return true
}

// invalidate marks what a change touches.
func (p *Pipeline) invalidate(a compile.Affected, dirty map[*workload]struct{}) {
	for k := range a.Parts {
		p.spoil(k)
	}
	if a.Wide() {
		for k := range p.parts {
			if a.Touches(k) {
				p.spoil(k)
			}
		}
	}
	for k := range a.Workloads {
		w, ok := p.set.Workload(k.Namespace, k.Name)
		if ok {
			p.enlist(w, dirty)
			continue
		}
		for _, kind := range []policy.Kind{policy.KindWorkloadEntry, policy.KindGateway} {
			p.discharge(policy.Key{Kind: kind, Namespace: k.Namespace, Name: k.Name}, dirty)
		}
	}
}

// spoil marks a part, where there is one, to be built again.
func (p *Pipeline) spoil(k compile.PartKey) {
	if part := p.parts[k]; part != nil {
		part.stale = true
		p.stale[k] = struct{}{}
	}
}

// enlist takes a workload of the set, with the parts that it lists now.
func (p *Pipeline) enlist(w *policy.Workload, dirty map[*workload]struct{}) {
	key := w.Meta().Key
	for _, kind := range []policy.Kind{policy.KindWorkloadEntry, policy.KindGateway} {
		if kind != key.Kind {
			p.remove(policy.Key{Kind: kind, Namespace: key.Namespace, Name: key.Name}, dirty)
		}
	}
	entry, ok := p.workloads[key]
	if !ok {
		name := identity.Workload{Namespace: w.Namespace, Name: w.Name}
		entry = &workload{name: name, class: p.classes.class(name)}
		p.workloads[key] = entry
	}
	entry.at = w.Meta()
	entry.id, entry.err = p.identify(p.set, w)
	if delete(p.unnamed, entry); entry.err != nil {
		p.unnamed[entry] = struct{}{}
	}
	list := p.partsOf(w, entry.parts)
	for _, k := range list {
		if p.parts[k] == nil {
			p.parts[k] = &part{users: map[*workload]struct{}{}}
			p.spoil(k)
		}
		p.parts[k].users[entry] = struct{}{}
	}
	was := entry.parts
	entry.parts = list
	p.release(entry, was)
	dirty[entry] = struct{}{}
}

// release takes a workload off the parts that it no longer lists. Parts without a workload are forgotten.
func (p *Pipeline) release(w *workload, was []compile.PartKey) {
	for _, k := range was {
		if slices.Contains(w.parts, k) {
			continue
		}
		delete(p.parts[k].users, w)
		if len(p.parts[k].users) == 0 {
			delete(p.parts, k)
			delete(p.stale, k)
			delete(p.telling, k)
		}
	}
}

// discharge forgets a workload that is gone, and tells its proxies.
func (p *Pipeline) discharge(k policy.Key, dirty map[*workload]struct{}) {
	if w := p.remove(k, dirty); w != nil {
		p.classes.drop(w.name)
	}
}

func (p *Pipeline) remove(k policy.Key, dirty map[*workload]struct{}) *workload {
	w := p.workloads[k]
	if w == nil {
		return nil
	}
	delete(p.workloads, k)
	delete(p.unnamed, w)
	delete(dirty, w)
	was := w.parts
	w.parts = nil
	p.release(w, was)
	return w
}

// due tells whether a part must be built now. Inbound and gateway parts always are: they carry what users wrote about security, and its
// problems must be told at once. An outbound part names every service of the mesh, so it waits for the first proxy that needs it.
func (p *Pipeline) due(k compile.PartKey, part *part) bool {
	if !part.stale {
		return false
	}
	if k.Kind != compile.OutboundPart {
		return true
	}
	for w := range part.users {
		if w.class.wanted() {
			return true
		}
	}
	return false
}

// build builds the parts that are due, and marks the workloads whose view that changes.
func (p *Pipeline) build(dirty map[*workload]struct{}) {
	var keys []compile.PartKey
	for k := range p.stale {
		switch part := p.parts[k]; {
		case p.due(k, part):
			keys = append(keys, k)
		case part.stale && part.tried:
			maps.Copy(dirty, part.users) // nobody needs it: it is not shown to anybody until it is built again
		}
	}
	slices.SortFunc(keys, comparePart)
	next := make([]part, len(keys))
	var wg sync.WaitGroup
	turn := make(chan struct{}, runtime.GOMAXPROCS(0))
	for i, k := range keys {
		turn <- struct{}{}
		wg.Go(func() {
			next[i] = p.buildPart(k, p.parts[k])
			<-turn
		})
	}
	wg.Wait()
	for i, k := range keys {
		was := p.parts[k]
		if was.layer != next[i].layer || !was.tried {
			maps.Copy(dirty, was.users)
		}
		if was.layer != nil && was.layer != next[i].layer {
			was.layer.supersede()
		}
		p.parts[k] = &next[i]
		delete(p.stale, k)
		if delete(p.telling, k); next[i].err != nil || len(next[i].problems) > 0 {
			p.telling[k] = struct{}{}
		}
	}
}

func comparePart(a, b compile.PartKey) int {
	order := func(is bool) int {
		if is {
			return 1
		}
		return 0
	}
	return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Namespace, b.Namespace), cmp.Compare(a.Name, b.Name),
		cmp.Compare(order(a.Alone), order(b.Alone)), cmp.Compare(order(a.Redirect), order(b.Redirect)), cmp.Compare(a.EgressPort, b.EgressPort))
}

// buildPart is the part after a build. On a failure its last good layer stays.
func (p *Pipeline) buildPart(k compile.PartKey, was *part) part {
	next := part{layer: was.layer, users: was.users, tried: true}
	list, problems, err := p.tryBuild(k)
	if err == nil {
		var l *Layer
		if l, err = newLayer(was.layer, p.intern, list); err == nil {
			next.layer = l
		}
	}
	next.problems, next.err = problems, err
	return next
}

// tryBuild is Build; a panic in it is an error, because bad input must never take down good state.
func (p *Pipeline) tryBuild(k compile.PartKey) (list []*resource.Resource, problems []policy.Problem, err error) {
	defer func() {
		if r := recover(); r != nil {
			list, err = nil, fmt.Errorf("panic: %v", r)
		}
	}()
	return p.builder.Build(p.set, k)
}

// satisfy builds what new subscribers need.
func (p *Pipeline) satisfy() {
	want := p.takeDemand()
	if p.set == nil || len(want) == 0 {
		return
	}
	start := time.Now()
	dirty, lacking := map[*workload]struct{}{}, false
	for name := range want {
		for _, kind := range []policy.Kind{policy.KindWorkloadEntry, policy.KindGateway} {
			w := p.workloads[policy.Key{Kind: kind, Namespace: name.Namespace, Name: name.Name}]
			if w == nil {
				continue
			}
			dirty[w] = struct{}{}
			lacking = lacking || slices.ContainsFunc(w.parts, func(k compile.PartKey) bool { return p.parts[k].stale })
		}
	}
	if lacking {
		p.build(dirty)
	}
	p.publish(dirty)
	if lacking {
		p.tell(start)
	}
}

// affected is Affected; where it panics, everything is.
func (p *Pipeline) affected(old *policy.Set) (a compile.Affected) {
	changes := policy.Diff(old, p.set)
	defer func() {
		if r := recover(); r == nil {
			return
		}
		a = compile.Affected{Outbound: true, Gateways: true, Inbound: true, Workloads: map[policy.Key]bool{}}
		for k := range p.workloads {
			a.Workloads[k] = true
		}
		for w := range p.set.Workloads() {
			a.Workloads[w.Meta().Key] = true
		}
	}()
	return p.builder.Affected(old, p.set, changes)
}

// partsOf is Parts; where it panics, the workload keeps the parts that it had.
func (p *Pipeline) partsOf(w *policy.Workload, had []compile.PartKey) (list []compile.PartKey) {
	defer func() {
		if r := recover(); r != nil {
			list = had
		}
	}()
	return p.builder.Parts(p.set, w)
}
