package limit

import (
	"sync/atomic"
	"time"
)

// slewShift bounds how fast the clock follows the wall clock: by 1/64 of the time that passes, at most.
const slewShift = 6

// Clock tells the time that windows are aligned to. It starts at the wall clock and runs by the monotonic clock; where the two part, it drifts
// towards the wall clock by at most 1/64 of the time that passes. So a step of the wall clock, by an administrator or by NTP, neither opens a
// new window early (a free quota) nor holds an old one (a lockout): no window is ever more than 1/64 shorter or longer than its unit.
// After a step of one hour the windows are aligned to the wall clock again within 64 hours.
type Clock struct {
	wall   func() time.Time     // what the machine says the time is
	mono   func() time.Duration // never steps
	anchor atomic.Pointer[anchor]
}

type anchor struct {
	mono time.Duration
	time int64 // nanoseconds since the epoch, at mono
}

// NewClock is the clock of this machine.
func NewClock() *Clock {
	start := time.Now()
	return newClock(func() time.Time { return time.Now().Round(0) }, func() time.Duration { return time.Since(start) })
}

func newClock(wall func() time.Time, mono func() time.Duration) *Clock {
	c := &Clock{wall: wall, mono: mono}
	c.anchor.Store(&anchor{mono: mono(), time: wall().UnixNano()})
	return c
}

// Now is the time. It may be called from anywhere, at any rate.
func (c *Clock) Now() time.Time {
	a, mono := c.anchor.Load(), c.mono()
	passed := mono - a.mono
	now := a.time + int64(passed)
	if passed >= time.Second {
		limit := int64(passed) >> slewShift
		now += min(max(c.wall().UnixNano()-now, -limit), limit)
		c.anchor.CompareAndSwap(a, &anchor{mono: mono, time: now})
	}
	return time.Unix(0, now)
}
