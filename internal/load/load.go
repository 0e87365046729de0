// Package load sends requests at a steady rate and counts what fails. It is how tests and the demo show that a change cost no request.
package load

import (
	"context"
	"fmt"
	"sync"
	"time"
)

// Result is what a load came to.
type Result struct {
	Sent, Failed int
	Errors       []error       // the first few, in the order they happened
	Slowest      time.Duration // of the requests that succeeded
}

// String is "1200 sent, 0 failed".
func (r Result) String() string { return fmt.Sprintf("%d sent, %d failed", r.Sent, r.Failed) }

const (
	keptErrors  = 10
	maxInFlight = 512
)

// Load is a running load.
type Load struct {
	mu     sync.Mutex
	result Result
	stop   chan struct{}
	done   chan struct{}
	once   sync.Once
}

// Start calls do perSecond times a second, each in its own goroutine, until Stop or the end of ctx. Requests start on time whether or
// not earlier ones have answered (up to 512 at once), so a stall shows as failures and not as a lower rate. do returns an error for
// every outcome that the caller does not expect.
func Start(ctx context.Context, perSecond int, do func(context.Context) error) *Load {
	l := &Load{stop: make(chan struct{}), done: make(chan struct{})}
	go l.run(ctx, time.Second/time.Duration(max(perSecond, 1)), do)
	return l
}

func (l *Load) run(ctx context.Context, every time.Duration, do func(context.Context) error) {
	defer close(l.done)
	var wg sync.WaitGroup
	defer wg.Wait()
	places := make(chan struct{}, maxInFlight)
	tick := time.NewTicker(every)
	defer tick.Stop()
	for {
		select {
		case <-l.stop:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		select {
		case places <- struct{}{}:
			wg.Go(func() {
				defer func() { <-places }()
				begin := time.Now()
				l.count(do(ctx), time.Since(begin))
			})
		default:
			l.count(fmt.Errorf("%d requests are waiting for an answer", maxInFlight), 0)
		}
	}
}

func (l *Load) count(err error, took time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.result.Sent++
	if err == nil {
		l.result.Slowest = max(l.result.Slowest, took)
		return
	}
	l.result.Failed++
	if len(l.result.Errors) < keptErrors {
		l.result.Errors = append(l.result.Errors, err)
	}
}

// Sent is how many requests have been answered so far: wait for it to grow to know that load really runs.
func (l *Load) Sent() int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.result.Sent
}

// Stop ends the load, waits for the answers that are under way, and says what it came to.
func (l *Load) Stop() Result {
	l.once.Do(func() { close(l.stop) })
	<-l.done
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.result
}
