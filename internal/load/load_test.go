package load_test

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credence-mesh/credence/internal/load"
)

func TestLoadCountsWhatFails(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		do           func(n int) (time.Duration, error)
		sent, failed int
	}{
		"all is well": {func(int) (time.Duration, error) { return time.Millisecond, nil }, 200, 0},
		"every tenth fails": {func(n int) (time.Duration, error) {
			if n%10 == 0 {
				return 0, errors.New("refused")
			}
			return 0, nil
		}, 200, 20},
		"slow answers do not slow the load": {func(int) (time.Duration, error) { return time.Second, nil }, 200, 0},
		"a stall is a failure":              {func(int) (time.Duration, error) { return time.Hour, nil }, 0, 0},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				n := make(chan int, 1)
				n <- 0
				ctx, cancel := context.WithCancel(t.Context())
				l := load.Start(ctx, 100, func(ctx context.Context) error {
					i := <-n + 1
					n <- i
					wait, err := c.do(i)
					select {
					case <-time.After(wait):
					case <-ctx.Done():
						return ctx.Err()
					}
					return err
				})
				time.Sleep(2*time.Second + time.Millisecond)
				if name == "a stall is a failure" {
					if sent := l.Sent(); sent != 0 {
						t.Errorf("%d requests answered during a stall", sent)
					}
					cancel()
					if r := l.Stop(); r.Failed < 190 {
						t.Errorf("a stall: %s", r)
					}
					return
				}
				r := l.Stop()
				cancel()
				if r.Sent != c.sent || r.Failed != c.failed || len(r.Errors) != min(c.failed, 10) {
					t.Errorf("%s, %d errors; want %d and %d", r, len(r.Errors), c.sent, c.failed)
				}
			})
		})
	}
}

func TestLoadIsBounded(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		l := load.Start(ctx, 1000, func(ctx context.Context) error { <-ctx.Done(); return ctx.Err() })
		time.Sleep(3*time.Second + time.Microsecond)
		if sent := l.Sent(); sent != 3000-512 {
			t.Errorf("%d failures beyond the 512 that wait", sent)
		}
		cancel()
		if r := l.Stop(); r.Sent != 3000 || r.Failed != 3000 {
			t.Errorf("%s", r)
		}
	})
}
