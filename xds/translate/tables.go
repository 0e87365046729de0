package translate

import (
	"runtime"
	"slices"
	"sync"
	"weak"

	"google.golang.org/protobuf/proto"

	"github.com/credence-mesh/credence/xds/compile"
	"github.com/credence-mesh/credence/xds/resource"
)

// tables remembers how the large route tables of each part were packed last, as long as somebody holds them: where only endpoints changed, the
// hosts are the very same, and so is the table.
type tables struct {
	mu   sync.Mutex
	last map[tableKey]*packedTable
}

type tableKey struct {
	part compile.PartKey
	name string
}

type packedTable struct {
	table  *resource.Table // without its packed form
	packed weak.Pointer[resource.Resource]
}

// pack packs the tables of a part, or finds them packed.
func (t *tables) pack(part compile.PartKey, list []*resource.Table) error {
	for _, table := range list {
		k := tableKey{part, table.Config.Name}
		if r := t.find(k, table); r != nil {
			table.Packed = r
			continue
		}
		r, err := table.Pack()
		if err != nil {
			return err
		}
		t.keep(k, &packedTable{&resource.Table{Config: table.Config, Hosts: table.Hosts}, weak.Make(r)}, r)
		table.Packed = r
	}
	return nil
}

func (t *tables) find(k tableKey, table *resource.Table) *resource.Resource {
	t.mu.Lock()
	was := t.last[k]
	t.mu.Unlock()
	if was == nil || !slices.Equal(was.table.Hosts, table.Hosts) || !proto.Equal(was.table.Config, table.Config) {
		return nil
	}
	return was.packed.Value()
}

func (t *tables) keep(k tableKey, p *packedTable, r *resource.Resource) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.last[k] = p
	runtime.AddCleanup(r, func(p *packedTable) {
		t.mu.Lock()
		defer t.mu.Unlock()
		if t.last[k] == p {
			delete(t.last, k)
		}
	}, p)
}
