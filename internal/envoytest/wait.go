package envoytest

import (
	"errors"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
	"testing"
	"time"
)

// Eventually waits until check returns nil, and fails the test with its last error if that takes longer than Patience.
func Eventually(t testing.TB, what string, check func() error) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	limit := time.NewTimer(Patience)
	defer limit.Stop()
	for {
		err := check()
		if err == nil {
			return
		}
		if ended := (Gone{}); errors.As(err, &ended) {
			t.Fatalf("%s: %v", what, err)
		}
		select {
		case <-tick.C:
		case <-limit.C:
			t.Fatalf("%s: not within %s: %v", what, Patience, err)
		case <-t.Context().Done():
			t.Fatalf("%s: the test ended: %v", what, err)
		}
	}
}

// ports that this process has given out.
var ports = struct {
	sync.Mutex
	given map[int]bool
}{given: map[int]bool{}}

// FreePort is a TCP port that nobody uses on 127.0.0.1. It lies below the ranges from which systems take ports for outgoing connections,
// and none is given out twice, so that it is still free when Envoy binds it.
func FreePort(t testing.TB) int {
	t.Helper()
	ports.Lock()
	defer ports.Unlock()
	for range 1000 {
		port := 10000 + rand.IntN(22000)
		if ports.given[port] {
			continue
		}
		var lc net.ListenConfig
		l, err := lc.Listen(t.Context(), "tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port)))
		if err != nil {
			continue
		}
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		ports.given[port] = true
		return port
	}
	t.Fatal("no free port found")
	return 0
}

// FreeAddr is "127.0.0.1:port" with a FreePort.
func FreeAddr(t testing.TB) string {
	t.Helper()
	return net.JoinHostPort("127.0.0.1", strconv.Itoa(FreePort(t)))
}
