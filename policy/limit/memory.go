package limit

import (
	"context"
	"hash/maphash"
	"math"
	"sync"
)

const (
	shards    = 64
	probes    = 16   // cells looked at for one to give up
	overflows = 1024 // counters of a shard that newcomers share when every cell belongs to an offender
	portions  = 4    // one owner holds at most a cell in so many
)

// DefaultCapacity is how many counters a Memory of unset size holds, at about 100 bytes each.
const DefaultCapacity = 1 << 18

// Memory counts in this process, in bounded space.
//
// A full store gives up the counter whose window has ended, else the one furthest from its limit, among those that it looks at. It never gives up
// one that has reached its limit in the running window, so no flood of other keys buys an offender a new quota. Where only such counters are
// found, newcomers of the same owner with the same limit share one counter: their quota shrinks, and nobody's is reset.
//
// One owner holds at most a quarter of the counters. An owner that has them all is full for itself: its newcomers displace its own counters
// only, and what is left stays for others.
type Memory struct {
	high, low, owner maphash.Seed
	shard            [shards]shard
}

type shard struct {
	mu       sync.Mutex
	index    map[cellKey]int32
	cells    []cell
	hand     int // where the search for a cell to give up goes on
	capacity int
	overflow map[overflowKey]*cell
	held     map[uint64]int // cells by owner
	_        [16]byte       // keeps locks of neighbours off one cache line
}

// cellKey is a keyed hash of 128 bits: nobody outside can choose keys that share a counter.
type cellKey struct{ high, low uint64 }

type overflowKey struct {
	owner   uint64
	seconds int64
	limit   uint32
}

type cell struct {
	key     cellKey
	owner   uint64 // a keyed hash of who made it
	start   int64
	seconds int64
	count   uint64
	limit   uint32
}

// NewMemory is an empty store of at most capacity counters; zero means DefaultCapacity.
func NewMemory(capacity int) *Memory {
	if capacity <= 0 {
		capacity = DefaultCapacity
	}
	m := &Memory{high: maphash.MakeSeed(), low: maphash.MakeSeed(), owner: maphash.MakeSeed()}
	for i := range m.shard {
		m.shard[i] = shard{index: map[cellKey]int32{}, overflow: map[overflowKey]*cell{}, held: map[uint64]int{}, capacity: max(1, capacity/shards)}
	}
	return m
}

var _ Store = (*Memory)(nil)

// Add never fails.
func (m *Memory) Add(_ context.Context, now int64, hits []Hit, counts []uint64) error {
	for i, h := range hits {
		owner := maphash.String(m.owner, h.Owner)
		key := cellKey{maphash.String(m.high, h.Key), maphash.String(m.low, h.Key)}
		s := &m.shard[key.high%shards]
		s.mu.Lock()
		counts[i] = s.add(key, owner, now, h)
		s.mu.Unlock()
	}
	return nil
}

// Len is how many counters are held.
func (m *Memory) Len() int {
	n := 0
	for i := range m.shard {
		s := &m.shard[i]
		s.mu.Lock()
		n += len(s.cells) + len(s.overflow)
		s.mu.Unlock()
	}
	return n
}

func (s *shard) add(key cellKey, owner uint64, now int64, h Hit) uint64 {
	if i, ok := s.index[key]; ok {
		return s.cells[i].hit(now, h)
	}
	if h.Add == 0 {
		return 0 // reading makes no counter
	}
	full := s.held[owner] >= max(1, s.capacity/portions)
	if !full && len(s.cells) < s.capacity {
		s.cells = append(s.cells, cell{})
		return s.place(len(s.cells)-1, key, owner, now-now%h.Seconds).hit(now, h)
	}
	i, ok := s.victim(now, owner, full)
	if !ok {
		return s.crowded(owner, now, h)
	}
	delete(s.index, s.cells[i].key)
	if was := s.cells[i].owner; s.held[was] > 1 {
		s.held[was]--
	} else {
		delete(s.held, was)
	}
	return s.place(i, key, owner, now-now%h.Seconds).hit(now, h)
}

func (s *shard) place(i int, key cellKey, owner uint64, start int64) *cell {
	s.cells[i] = cell{key: key, owner: owner, start: start}
	s.index[key] = int32(i)
	s.held[owner]++
	return &s.cells[i]
}

// hit counts in the window of now, or in a later one that the cell has already seen: the clocks of two callers may differ by a little.
func (c *cell) hit(now int64, h Hit) uint64 {
	if start := now - now%h.Seconds; start > c.start {
		c.start, c.count = start, 0
	}
	c.seconds, c.limit = h.Seconds, h.Limit
	if c.count > math.MaxUint64-uint64(h.Add) {
		c.count = math.MaxUint64
	} else {
		c.count += uint64(h.Add)
	}
	return c.count
}

// victim is the cell to give up; with own, one of the owner's. A counter of limit 0 tells nothing, since all is refused anyway.
func (s *shard) victim(now int64, owner uint64, own bool) (int, bool) {
	best, at := 1.0, -1
	for range min(probes, len(s.cells)) {
		s.hand = (s.hand + 1) % len(s.cells)
		c := &s.cells[s.hand]
		if own && c.owner != owner {
			continue
		}
		if c.start+c.seconds <= now {
			return s.hand, true
		}
		if spent := float64(c.count) / float64(max(c.limit, 1)); spent < best || c.limit == 0 {
			best, at = spent, s.hand
		}
	}
	return at, at >= 0
}

// crowded counts a newcomer for whom there is no cell, together with all others of the same owner and limit.
func (s *shard) crowded(owner uint64, now int64, h Hit) uint64 {
	key := overflowKey{owner, h.Seconds, h.Limit}
	c := s.overflow[key]
	if c == nil {
		if len(s.overflow) >= overflows {
			s.sweep(now)
		}
		if len(s.overflow) >= overflows {
			return math.MaxUint64
		}
		c = &cell{start: now - now%h.Seconds}
		s.overflow[key] = c
	}
	return c.hit(now, h)
}

func (s *shard) sweep(now int64) {
	for k, c := range s.overflow {
		if c.start+c.seconds <= now {
			delete(s.overflow, k)
		}
	}
}
