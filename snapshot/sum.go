package snapshot

import (
	"crypto/sha256"
	"encoding/binary"

	"github.com/credence-mesh/credence/xds/resource"
)

// sum is a hash of a set of items: the sum, word by word, of the hashes of their names and versions. Taking an item away or adding one costs
// that item, not the set.
type sum [4]uint64

func sumOf(r *resource.Resource) sum {
	h := sha256.New()
	hashString(h, r.Name)
	hashString(h, r.Version)
	var s sum
	b := h.Sum(nil)
	for i := range s {
		s[i] = binary.LittleEndian.Uint64(b[8*i:])
	}
	return s
}

func (s sum) plus(o sum) sum {
	for i := range s {
		s[i] += o[i]
	}
	return s
}

func (s sum) minus(o sum) sum {
	for i := range s {
		s[i] -= o[i]
	}
	return s
}

// moved is the sum of the items in b, where s is that of those in a. Both are sorted by name.
func (s sum) moved(a, b []*Item) sum {
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(a) > 0 && len(b) > 0 && a[0] == b[0]:
			a, b = a[1:], b[1:]
		case len(b) == 0 || len(a) > 0 && a[0].Name <= b[0].Name:
			s, a = s.minus(a[0].sum), a[1:]
		default:
			s, b = s.plus(b[0].sum), b[1:]
		}
	}
	return s
}

// version names the content of n items; no item at all has the empty version.
func (s sum) version(n int) string {
	if n == 0 {
		return ""
	}
	h := sha256.New()
	var b [8]byte
	for _, word := range s {
		binary.LittleEndian.PutUint64(b[:], word)
		_, _ = h.Write(b[:])
	}
	return shorten(h)
}

// gatherer finds the items of resources: those of the layer before where it has the very resource, at a glance where both are in order.
type gatherer struct {
	prev     *Layer
	intern   *interner
	next     [resource.NumTypes]int  // in prev: where to look next
	last     [resource.NumTypes]int  // in prev: the item that was found last; -1 where the last item is not of prev
	disorder [resource.NumTypes]bool // items did not come sorted by name, each name once
}

func (g *gatherer) item(have []*Item, r *resource.Resource) *Item {
	t := r.Type
	at, found := g.find(r)
	ordered := len(have) == 0 || found && g.last[t] >= 0 && g.last[t] < at || have[len(have)-1].Name < r.Name
	g.disorder[t] = g.disorder[t] || !ordered
	if g.last[t] = -1; found {
		g.last[t] = at
		return g.prev.items[t][at]
	}
	return g.intern.item(r)
}

func (g *gatherer) find(r *resource.Resource) (int, bool) {
	if g.prev == nil {
		return 0, false
	}
	items, i := g.prev.items[r.Type], g.next[r.Type]
	for i < len(items) && items[i].Resource != r && items[i].Name < r.Name {
		i++
	}
	g.next[r.Type] = i
	if i == len(items) || items[i].Resource != r {
		return 0, false
	}
	g.next[r.Type] = i + 1
	return i, true
}
