package limit

import (
	"fmt"
	"math"
	"strconv"
	"sync"
	"testing"
	"time"
)

func hit(t testing.TB, m *Memory, now int64, h Hit) uint64 {
	t.Helper()
	var counts [1]uint64
	if err := m.Add(t.Context(), now, []Hit{h}, counts[:]); err != nil {
		t.Fatal(err)
	}
	return counts[0]
}

func TestMemoryCountsByWindow(t *testing.T) {
	t.Parallel()
	m := NewMemory(0)
	h := Hit{Key: "k", Seconds: 60, Add: 1, Limit: 10}
	for i, c := range []struct {
		now  int64
		add  uint32
		want uint64
	}{{600, 1, 1}, {659, 2, 3}, {659, 0, 3}, {660, 1, 1}, {659, 1, 2}, {6000, 0, 0}, {6000, math.MaxUint32, math.MaxUint32}} {
		h.Add = c.add
		if got := hit(t, m, c.now, h); got != c.want {
			t.Errorf("step %d: %d, want %d", i, got, c.want)
		}
	}
}

func TestMemorySaturates(t *testing.T) {
	t.Parallel()
	c := cell{count: math.MaxUint64 - 1, start: 60}
	if got := c.hit(60, Hit{Seconds: 60, Add: 5}); got != math.MaxUint64 {
		t.Errorf("counted %d", got)
	}
}

// D53: a flood of random keys takes bounded memory and buys no offender a new quota.
func TestFloodOfKeysResetsNoOffender(t *testing.T) {
	t.Parallel()
	const capacity, offenders = 1 << 14, 500 // one owner: a quarter is theirs
	keys := 10_000_000
	if testing.Short() || raceEnabled {
		keys = 300_000
	}
	m := NewMemory(capacity)
	offend := func(i int) uint64 {
		return hit(t, m, 600, Hit{Key: "offender" + strconv.Itoa(i), Seconds: 60, Add: 1, Limit: 3})
	}
	for i := range offenders {
		for range 3 {
			offend(i)
		}
	}
	for i := range keys {
		hit(t, m, 600, Hit{Key: strconv.Itoa(i), Seconds: 60, Add: 1, Limit: 3})
	}
	for i := range offenders {
		if n := offend(i); n != 4 {
			t.Fatalf("offender %d has used %d of its quota, and asks for the fourth time", i, n)
		}
	}
	if m.Len() > capacity+shards*overflows {
		t.Errorf("%d counters", m.Len())
	}
}

func TestFullOfOffendersSharesOneQuotaAmongNewcomers(t *testing.T) {
	t.Parallel()
	m := NewMemory(shards) // one cell a shard
	refused := 0
	for i := range 100 * shards {
		if hit(t, m, 600, Hit{Key: strconv.Itoa(i), Seconds: 60, Add: 1, Limit: 1}) > 1 {
			refused++
		}
	}
	if allowed := 100*shards - refused; allowed > 2*shards {
		t.Errorf("%d allowed, more than one a counter", allowed)
	}
	if n := hit(t, m, 660, Hit{Key: "new", Seconds: 60, Add: 1, Limit: 1}); n != 1 {
		t.Errorf("in the next window a newcomer counts %d", n)
	}
}

func TestMemoryConcurrently(t *testing.T) {
	t.Parallel()
	m := NewMemory(0)
	var wg sync.WaitGroup
	for range 4 {
		wg.Go(func() {
			for range 1000 {
				hit(t, m, 600, Hit{Key: "k", Seconds: 60, Add: 1, Limit: 10})
			}
		})
	}
	wg.Wait()
	if n := hit(t, m, 600, Hit{Key: "k", Seconds: 60, Limit: 10}); n != 4000 {
		t.Errorf("counted %d", n)
	}
}

// D52: a step of the wall clock opens no window early and holds none.
func TestClockSteps(t *testing.T) {
	t.Parallel()
	for _, step := range []time.Duration{time.Hour, -time.Hour, 1000 * time.Hour} {
		t.Run(step.String(), func(t *testing.T) {
			t.Parallel()
			wall, mono := time.Unix(1_000_000, 0), time.Duration(0)
			c := newClock(func() time.Time { return wall }, func() time.Duration { return mono })
			before := c.Now()
			wall = wall.Add(step)
			if !c.Now().Equal(before) {
				t.Fatalf("the clock jumped by %s", c.Now().Sub(before))
			}
			for range 600 {
				last := c.Now()
				wall, mono = wall.Add(time.Second), mono+time.Second
				if d := c.Now().Sub(last); d < 984*time.Millisecond || d > 1016*time.Millisecond {
					t.Fatalf("a second took %s", d)
				}
			}
			for range 70 * 60 {
				wall, mono = wall.Add(time.Minute), mono+time.Minute
				c.Now()
			}
			if off := wall.Sub(c.Now()).Abs(); step.Abs() <= time.Hour && off > time.Second {
				t.Errorf("after 70 hours the clock is still off by %s", off)
			}
		})
	}
}

func BenchmarkMemory(b *testing.B) {
	for _, keys := range []int{1, 100_000} {
		b.Run(fmt.Sprintf("keys=%d", keys), func(b *testing.B) {
			m := NewMemory(0)
			names := make([]string, keys)
			for i := range names {
				names[i] = "a customer of some length " + strconv.Itoa(i)
			}
			var counts [1]uint64
			hits := []Hit{{Seconds: 60, Add: 1, Limit: 100}}
			b.ResetTimer()
			for i := range b.N {
				hits[0].Key = names[(i*7919)%keys]
				_ = m.Add(b.Context(), 600, hits, counts[:])
			}
		})
	}
}
