package snapshot

import (
	"slices"
	"sync"
	"weak"

	"github.com/credence-mesh/credence/xds/resource"
)

// interner finds the item that an equal resource already has, so that parts which build the same resource hold it once. It does not keep
// items alive.
type interner struct {
	mu    sync.Mutex
	items map[internKey]weak.Pointer[Item]
	sweep int // the size at which dead entries are thrown out
}

type internKey struct {
	t             resource.Type
	name, version string
}

const firstSweep = 4096

func newInterner() *interner {
	return &interner{items: map[internKey]weak.Pointer[Item]{}, sweep: firstSweep}
}

// item is the shared item of a resource. Equal content that came from other objects of the user is another item: a NACK must be traced to
// the right file.
func (n *interner) item(r *resource.Resource) *Item {
	n.mu.Lock()
	defer n.mu.Unlock()
	k := internKey{r.Type, r.Name, r.Version}
	if i := n.items[k].Value(); i != nil && slices.Equal(i.Sources, r.Sources) {
		return i
	}
	i := NewItem(r)
	n.items[internKey{r.Type, i.Name, i.Version}] = weak.Make(i)
	if len(n.items) > n.sweep {
		n.collect()
	}
	return i
}

func (n *interner) collect() {
	for k, p := range n.items {
		if p.Value() == nil {
			delete(n.items, k)
		}
	}
	n.sweep = max(firstSweep, 2*len(n.items))
}
