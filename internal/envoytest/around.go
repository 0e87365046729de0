package envoytest

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http/httptest"
	"sync"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/credence-mesh/credence/internal/echo"
	"github.com/credence-mesh/credence/internal/issuer"
	"github.com/credence-mesh/credence/internal/load"
)

// Backend starts an echo backend on a free port until the test ends; it returns host:port.
func Backend(t testing.TB, name string) string {
	t.Helper()
	return BackendAt(t, "127.0.0.1:0", name)
}

// BackendAt starts an echo backend at an address that the test chose; it returns host:port.
func BackendAt(t testing.TB, addr, name string) string {
	t.Helper()
	s, err := echo.Listen(t.Context(), addr, name)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("backend %s: %v", name, err)
		}
	})
	return s.Addr
}

// TCPEcho starts a server that sends every byte back until the test ends; it returns host:port.
func TCPEcho(t testing.TB) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	ctx, cancel := context.WithCancel(context.Background())
	wg.Go(func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			wg.Go(func() { echoBytes(ctx, conn) })
		}
	})
	t.Cleanup(func() {
		cancel()
		_ = l.Close()
		wg.Wait()
	})
	return l.Addr().String()
}

func echoBytes(ctx context.Context, conn net.Conn) {
	stop := context.AfterFunc(ctx, func() { _ = conn.Close() })
	defer stop()
	defer func() { _ = conn.Close() }()
	_, _ = io.Copy(conn, conn) // either side closed: the end of an echo
}

// Issuer is a token issuer whose JWKS is served at URL until the test ends.
type Issuer struct {
	*issuer.Issuer
	URL string
}

// NewIssuer starts an issuer with the given iss claim, signing with ES256.
func NewIssuer(t testing.TB, name string) Issuer {
	t.Helper()
	i, err := issuer.New(name, jose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewServer(i)
	t.Cleanup(srv.Close)
	return Issuer{Issuer: i, URL: srv.URL + "/jwks.json"}
}

// Sign is a token with these claims; iss, iat and exp are filled in where claims do not say otherwise, and a nil value removes a claim.
func (i Issuer) Sign(t testing.TB, claims issuer.Claims) string {
	t.Helper()
	token, err := i.Token(claims)
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// Load sends requests at a steady rate until Stop or the end of the test. It returns when the first ten have been answered, so that what
// the test does next really happens under load.
func Load(t testing.TB, perSecond int, do func(context.Context) error) *load.Load {
	t.Helper()
	l := load.Start(t.Context(), perSecond, do)
	t.Cleanup(func() { l.Stop() })
	Eventually(t, "load runs", func() error {
		if n := l.Sent(); n < 10 {
			return fmt.Errorf("%d requests answered", n)
		}
		return nil
	})
	return l
}
