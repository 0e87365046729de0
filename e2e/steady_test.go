package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync/atomic"
	"testing"
	"time"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/internal/load"
	"github.com/credence-mesh/credence/internal/mesh"
)

// in is the world as a subtest sees it.
func (w *world) in(t *testing.T) *world {
	v := *w
	v.t = t
	return &v
}

// counted is a client that keeps at most some connections and counts those that it had to open: as long as nobody closes one, it never opens another.
type counted struct {
	*client
	opened *atomic.Int64
}

func dialCounted(base string, cfg *tls.Config, connections int) counted {
	c := counted{client: dial(base, cfg), opened: &atomic.Int64{}}
	t := c.http.Transport.(*http.Transport)
	t.MaxConnsPerHost, t.MaxIdleConnsPerHost, t.IdleConnTimeout = connections, connections, 0
	var d net.Dialer
	t.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		c.opened.Add(1)
		return d.DialContext(ctx, network, addr)
	}
	return c
}

// afresh closes what is open and counts from there.
func (c counted) afresh() {
	c.http.CloseIdleConnections()
	c.opened.Store(0)
}

// wants is a load's request: anything but the status is an error.
func wants(c *client, a ask, status int) func(context.Context) error {
	return func(ctx context.Context) error {
		got := c.do(ctx, a)
		if got.err != nil && errors.Is(ctx.Err(), context.Canceled) {
			return nil // the test is over
		}
		if got.err != nil {
			return got.err
		}
		if got.status != status {
			return fmt.Errorf("%s %s: %d %s, want %d", c.base, a.path, got.status, got.body, status)
		}
		return nil
	}
}

// steady keeps asking while the test changes things; check at the end that none failed.
type steady struct {
	*load.Load
	w    *world
	name string
}

func (w *world) steady(name string, perSecond int, do func(context.Context) error) steady {
	w.t.Helper()
	return steady{envoytest.Load(w.t, perSecond, do), w, name}
}

// flows waits until more requests were answered, so that what was just done is followed by load.
func (s steady) flows(more int) {
	s.w.t.Helper()
	mark := s.Sent()
	s.w.until("load "+s.name, func() (bool, error) { return s.Sent() >= mark+more, nil })
}

func (s steady) clean() {
	s.w.t.Helper()
	if r := s.Stop(); r.Failed > 0 || r.Sent == 0 {
		s.w.t.Errorf("%s: %s, slowest %s: %v", s.name, r, r.Slowest, r.Errors)
	}
}

// answers waits until a client gets a status. A connection that fails on the way there is an error at once, unless it may.
func (w *world) answers(c *client, a ask, status int) answer {
	w.t.Helper()
	var last answer
	w.until(fmt.Sprintf("%s%s (host %q) to answer %d", c.base, a.path, a.host, status), func() (bool, error) {
		last = c.do(w.ctx, a)
		if last.err != nil {
			return false, last.err
		}
		return last.status == status, fmt.Errorf("it answers %d %s", last.status, last.body)
	})
	return last
}

// within bounds what may take long.
func (w *world) within(d time.Duration, what string, ok func() (bool, error)) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, d)
	defer cancel()
	if err := mesh.Until(ctx, what, ok); err != nil {
		w.t.Fatal(err)
	}
}
