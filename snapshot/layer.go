package snapshot

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"hash"
	"slices"
	"sync"

	"github.com/credence-mesh/credence/xds/resource"
)

// Layer is what one part of the configuration consists of: an immutable set of items, sorted by name within each type.
type Layer struct {
	items   [resource.NumTypes][]*Item
	version [resource.NumTypes]string
	sum     [resource.NumTypes]sum

	mu    sync.Mutex
	diffs map[*Layer]*[resource.NumTypes]names // from an older layer to this one
	past  bool                                 // superseded: it must not hold on to older layers
}

// names are the names that differ between two layers, sorted.
type names struct{ changed, removed []string }

// newLayer makes a layer of resources. Items of prev whose name and version are the same are taken over, so that what did not change is
// neither encoded nor held twice; where nothing changed at all, prev itself is the result.
func newLayer(prev *Layer, intern *interner, list []*resource.Resource) (*Layer, error) {
	l := &Layer{}
	g := gatherer{prev: prev, intern: intern}
	for t := range g.last {
		g.last[t] = -1
	}
	for _, r := range list {
		if r.Type >= resource.NumTypes || r.Name == "" || r.Body == nil {
			return nil, fmt.Errorf("%s %q: not a finished resource", r.Type, r.Name)
		}
		if r.Type == resource.Secret || r.Private {
			return nil, fmt.Errorf("%s %s: a private resource must not be in a layer", r.Type, r.Name)
		}
		l.items[r.Type] = append(l.items[r.Type], g.item(l.items[r.Type], r))
	}
	same := prev != nil
	for t := range l.items {
		if g.disorder[t] {
			slices.SortFunc(l.items[t], byName)
			for i := 1; i < len(l.items[t]); i++ {
				if l.items[t][i].Name == l.items[t][i-1].Name {
					return nil, fmt.Errorf("%s %s: built twice", resource.Type(t), l.items[t][i].Name)
				}
			}
		}
		if prev != nil {
			l.sum[t] = prev.sum[t].moved(prev.items[t], l.items[t])
		} else {
			l.sum[t] = sum{}.moved(nil, l.items[t])
		}
		l.version[t] = l.sum[t].version(len(l.items[t]))
		same = same && l.version[t] == prev.version[t] && sameSources(l.items[t], prev.items[t])
	}
	if same {
		return prev, nil
	}
	return l, nil
}

// sameSources tells whether the items are the very same: an equal body that now comes from another line of a file is another item.
func sameSources(a, b []*Item) bool { return slices.Equal(a, b) }

func byName(a, b *Item) int { return cmp.Compare(a.Name, b.Name) }

// list are all items of a type.
func (l *Layer) list(t resource.Type) []*Item { return l.items[t] }

// get finds an item by its name.
func (l *Layer) get(t resource.Type, name string) (*Item, bool) { return lookup(l.items[t], name) }

func lookup(items []*Item, name string) (*Item, bool) {
	i, ok := slices.BinarySearchFunc(items, name, func(i *Item, n string) int { return cmp.Compare(i.Name, n) })
	if !ok {
		return nil, false
	}
	return items[i], true
}

// since lists what differs from an older layer. It is computed once for a pair of layers, however many views and proxies hold them.
func (l *Layer) since(old *Layer) *[resource.NumTypes]names {
	l.mu.Lock()
	defer l.mu.Unlock()
	if d := l.diffs[old]; d != nil {
		return d
	}
	d := new([resource.NumTypes]names)
	for t := range d {
		var was []*Item
		if old != nil {
			was = old.items[t]
		}
		d[t] = diffItems(was, l.items[t])
	}
	if l.past {
		return d
	}
	if l.diffs == nil {
		l.diffs = map[*Layer]*[resource.NumTypes]names{}
	}
	l.diffs[old] = d
	return d
}

// supersede drops what leads to older layers, so that they can be collected.
func (l *Layer) supersede() {
	l.mu.Lock()
	l.diffs, l.past = nil, true
	l.mu.Unlock()
}

func diffItems(a, b []*Item) names {
	var d names
	if len(a) > 0 && len(a) == len(b) && &a[0] == &b[0] {
		return d
	}
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(a) > 0 && len(b) > 0 && a[0] == b[0]:
			a, b = a[1:], b[1:]
		case len(b) == 0 || (len(a) > 0 && a[0].Name < b[0].Name):
			d.removed = append(d.removed, a[0].Name)
			a = a[1:]
		case len(a) == 0 || a[0].Name > b[0].Name:
			d.changed = append(d.changed, b[0].Name)
			b = b[1:]
		default:
			if a[0].Version != b[0].Version {
				d.changed = append(d.changed, b[0].Name)
			}
			a, b = a[1:], b[1:]
		}
	}
	return d
}

func hashString(h hash.Hash, s string) {
	var n [4]byte
	n[0], n[1], n[2], n[3] = byte(len(s)>>24), byte(len(s)>>16), byte(len(s)>>8), byte(len(s))
	_, _ = h.Write(n[:])
	_, _ = h.Write([]byte(s))
}

func shorten(h hash.Hash) string { return base64.RawURLEncoding.EncodeToString(h.Sum(nil)[:8]) }
