package snapshot

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/credence-mesh/credence/xds/resource"
)

// TestLayersInSteps: a layer that was made from another one has the versions and the items of one that was made from nothing, in whatever
// order its resources come.
func TestLayersInSteps(t *testing.T) {
	t.Parallel()
	draw := rand.New(rand.NewPCG(1, 2))
	intern, pool := newInterner(), map[string]*resource.Resource{}
	var prev *Layer
	for step := range 300 {
		for range draw.IntN(4) {
			name := fmt.Sprint("c", draw.IntN(20))
			if delete(pool, name); draw.IntN(3) > 0 {
				r, err := resource.New(resource.Cluster, name, &clusterv3.Cluster{Name: name, AltStatName: fmt.Sprint(draw.IntN(3))})
				if err != nil {
					t.Fatal(err)
				}
				pool[name] = r
			}
		}
		var list []*resource.Resource
		for _, r := range pool {
			list = append(list, r)
		}
		if draw.IntN(2) == 0 {
			slices.SortFunc(list, resource.Compare)
		}
		next, err := newLayer(prev, intern, list)
		if err != nil {
			t.Fatal(err)
		}
		cold, err := newLayer(nil, intern, list)
		if err != nil {
			t.Fatal(err)
		}
		if next.version != cold.version || !slices.Equal(next.items[resource.Cluster], cold.items[resource.Cluster]) {
			t.Fatalf("step %d: %v %v, want %v %v", step, next.version, next.items, cold.version, cold.items)
		}
		prev = next
	}
	if _, err := newLayer(prev, intern, []*resource.Resource{pool[prev.items[0][0].Name], pool[prev.items[0][0].Name]}); err == nil {
		t.Error("a resource twice is let pass")
	}
}
