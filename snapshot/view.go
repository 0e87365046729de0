package snapshot

import (
	"crypto/sha256"
	"slices"
	"sync"

	"github.com/credence-mesh/credence/xds/resource"
)

// View is all that the proxies of one scope must have: the layers of their parts, in order. It is immutable and shared. Where two parts
// hold a resource of the same name, the part that was listed first wins.
type View struct {
	layers  []*Layer
	version [resource.NumTypes]string

	mu    sync.Mutex
	full  [resource.NumTypes][]*Item
	place [resource.NumTypes]map[string]int32 // in full; made when a proxy comes back
	since map[*View]*[resource.NumTypes]Delta // from an older view to this one
	past  bool                                // superseded: it must not hold on to older views
}

// Delta is what leads from one view to another, for one type.
type Delta struct {
	Changed []*Item  // new or other than before, sorted by name
	Removed []string // no longer there, sorted
}

func newView(layers []*Layer) *View {
	v := &View{layers: layers}
	for t := range v.version {
		v.version[t] = v.versionOf(resource.Type(t))
	}
	return v
}

// NewView is a view of finished resources that come from no pipeline, for tests and for benchmarks of servers.
func NewView(list ...*resource.Resource) (*View, error) {
	l, err := newLayer(nil, newInterner(), list)
	if err != nil {
		return nil, err
	}
	return newView([]*Layer{l}), nil
}

func (v *View) versionOf(t resource.Type) string {
	h, some := sha256.New(), ""
	held := 0
	for _, l := range v.layers {
		hashString(h, l.version[t])
		if l.version[t] != "" {
			held, some = held+1, l.version[t]
		}
	}
	if held <= 1 {
		return some
	}
	return shorten(h)
}

// Version names the content of a type: equal content has an equal version, also after a restart. It is empty where there is none.
func (v *View) Version(t resource.Type) string { return v.version[t] }

// Get finds an item by its name.
func (v *View) Get(t resource.Type, name string) (*Item, bool) {
	for _, l := range v.layers {
		if i, ok := l.get(t, name); ok {
			return i, true
		}
	}
	return nil, false
}

// List is all items of a type, sorted by name. It must not be modified.
func (v *View) List(t resource.Type) []*Item {
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.full[t] == nil {
		v.full[t] = v.merge(t)
	}
	return v.full[t]
}

// Place is where the item of a name is in List, or -1. It is for the many names that a proxy which comes back says it holds: a look costs
// no search.
func (v *View) Place(t resource.Type, name string) int {
	items := v.List(t)
	v.mu.Lock()
	at := v.place[t]
	if at == nil {
		at = make(map[string]int32, len(items))
		for i, item := range items {
			at[item.Name] = int32(i)
		}
		v.place[t] = at
	}
	v.mu.Unlock()
	if i, ok := at[name]; ok {
		return int(i)
	}
	return -1
}

func (v *View) merge(t resource.Type) []*Item {
	var holders [][]*Item
	for _, l := range v.layers {
		if items := l.list(t); len(items) > 0 {
			holders = append(holders, items)
		}
	}
	if len(holders) == 1 {
		return holders[0]
	}
	var out []*Item
	for n, items := range holders {
		for _, i := range items {
			if !slices.ContainsFunc(holders[:n], func(h []*Item) bool { _, ok := lookup(h, i.Name); return ok }) {
				out = append(out, i)
			}
		}
	}
	slices.SortFunc(out, byName)
	return out
}

// Since is what leads from an older view to this one. It is computed once for a pair of views, from the layers that differ: its cost does
// not grow with what stayed the same.
func (v *View) Since(old *View) *[resource.NumTypes]Delta {
	if v == old {
		return &[resource.NumTypes]Delta{}
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if d := v.since[old]; d != nil {
		return d
	}
	d := v.diff(old)
	if v.past {
		return d
	}
	if v.since == nil {
		v.since = map[*View]*[resource.NumTypes]Delta{}
	}
	v.since[old] = d
	return d
}

func (v *View) diff(old *View) *[resource.NumTypes]Delta {
	d := new([resource.NumTypes]Delta)
	for n := range max(len(v.layers), len(old.layers)) {
		was, is := old.layer(n), v.layer(n)
		if was == is {
			continue
		}
		if is == nil {
			is = &Layer{}
		}
		for t, touched := range is.since(was) {
			d[t].add(v, old, resource.Type(t), touched)
		}
	}
	for t := range d {
		d[t].tidy()
	}
	return d
}

func (v *View) layer(n int) *Layer {
	if n < len(v.layers) {
		return v.layers[n]
	}
	return nil
}

// add resolves touched names through both views: another layer may hold the same name.
func (d *Delta) add(v, old *View, t resource.Type, touched names) {
	for _, list := range [][]string{touched.changed, touched.removed} {
		for _, name := range list {
			was, had := old.Get(t, name)
			is, has := v.Get(t, name)
			switch {
			case has && (!had || was.Version != is.Version):
				d.Changed = append(d.Changed, is)
			case had && !has:
				d.Removed = append(d.Removed, was.Name)
			}
		}
	}
}

func (d *Delta) tidy() {
	slices.SortFunc(d.Changed, byName)
	d.Changed = slices.CompactFunc(d.Changed, func(a, b *Item) bool { return a.Name == b.Name })
	slices.Sort(d.Removed)
	d.Removed = slices.Compact(d.Removed)
}

// supersede drops what leads to older views, so that they can be collected.
func (v *View) supersede() {
	v.mu.Lock()
	v.since, v.past = nil, true
	v.mu.Unlock()
}
