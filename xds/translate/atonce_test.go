package translate_test

import (
	"math/rand/v2"
	"sync"
	"testing"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/compile"
	"github.com/credence-mesh/credence/xds/translate"
)

// TestBuildsAtOnce builds all parts of two sets at once with one Builder, as the pipeline does: what they share must be the same for all.
func TestBuildsAtOnce(t *testing.T) {
	t.Parallel()
	m := &model{Rand: rand.New(rand.NewPCG(7, 7))}
	old := policy.NewSet(policy.DefaultMesh())
	for range 80 {
		old = old.Apply([]policy.Resource{m.draw()}, nil)
	}
	next := old.Apply([]policy.Resource{m.service(), m.entry(), m.service()}, nil)
	b := translate.NewBuilder()
	var wg sync.WaitGroup
	for range 4 {
		for _, set := range []*policy.Set{old, next} {
			seen := map[compile.PartKey]bool{}
			for w := range set.Workloads() {
				for _, k := range b.Parts(set, w) {
					if seen[k] {
						continue
					}
					seen[k] = true
					wg.Go(func() {
						if got, want := makePart(b, set, k), makePart(translate.NewBuilder(), set, k); !got.equal(want) {
							t.Errorf("%s differs: %s", k, difference(got, want))
						}
					})
				}
			}
		}
	}
	wg.Wait()
}
