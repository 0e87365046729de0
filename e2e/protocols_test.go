package e2e

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/credence-mesh/credence/internal/echo"
	"github.com/credence-mesh/credence/internal/envoytest"
)

// startPair runs the caller, the called and the gateway of testdata/pair.yaml.
func startPair(t *testing.T, more map[string]string) *world {
	t.Helper()
	pair, err := os.ReadFile("testdata/pair.yaml")
	if err != nil {
		t.Fatal(err)
	}
	files := map[string]string{"pair.yaml": string(pair)}
	for name, text := range more {
		files[name] = text
	}
	w := start(t, "", files)
	envoytest.BackendAt(t, "127.0.72.102:8080", "called")
	echoAt(t, "127.0.72.102:9000")
	for _, name := range []string{"called-1", "caller-1", "edge"} {
		w.proxy("shop/" + name)
	}
	return w
}

// echoAt sends back every line that comes to an address, until the test ends.
func echoAt(t *testing.T, addr string) {
	t.Helper()
	l, err := net.Listen("tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = c.Close() }()
				_, _ = io.Copy(c, c) // either side closed: the end of an echo
			}()
		}
	}()
}

// TestProtocols sends every protocol through both shapes of proxy: sidecar to sidecar, and gateway to sidecar, over mutual TLS.
func TestProtocols(t *testing.T) {
	w := startPair(t, nil)
	const host = "called.shop.svc.cluster.local"
	shapes := []struct{ name, addr string }{{"sidecar", "127.0.72.1:15080"}, {"gateway", "127.0.72.5:8080"}}
	for _, s := range shapes {
		t.Run(s.name+"/HTTP/1.1", func(t *testing.T) {
			w.t = t
			a := w.expect(dial("http://"+s.addr, nil), ask{method: "POST", host: host, path: "/x?y=1", body: []byte("hello")}, 200)
			if a.seen.Body != "hello" || a.seen.Path != "/x?y=1" {
				t.Errorf("the back end saw %+v", a.seen)
			}
		})
		t.Run(s.name+"/HTTP/2", func(t *testing.T) { w.http2(t, s.addr, host) })
		t.Run(s.name+"/gRPC", func(t *testing.T) {
			authority := host
			if s.name == "sidecar" {
				authority += ":81"
			}
			w.grpc(t, s.addr, authority)
		})
		t.Run(s.name+"/WebSocket", func(t *testing.T) { w.webSocket(t, s.addr, host) })
	}
	t.Run("sidecar/TCP", func(t *testing.T) { w.tcp(t, "127.0.72.1:9000") })
}

func (w *world) http2(t *testing.T, addr, host string) {
	var protocols http.Protocols
	protocols.SetUnencryptedHTTP2(true)
	c := &http.Client{Transport: &http.Transport{Protocols: &protocols}, Timeout: 10 * time.Second}
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "http://"+addr+"/h2", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK || resp.ProtoMajor != 2 {
		t.Errorf("%s %s, want 200 by HTTP/2", resp.Status, resp.Proto)
	}
}

func (w *world) grpc(t *testing.T, addr, authority string) {
	conn, err := grpc.NewClient("passthrough:///"+addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithAuthority(authority))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	out, err := healthv1.NewHealthClient(conn).Check(ctx, &healthv1.HealthCheckRequest{})
	if err != nil || out.GetStatus() != healthv1.HealthCheckResponse_SERVING {
		t.Fatalf("health: %v, %v", out, err)
	}
	stream, err := healthv1.NewHealthClient(conn).Watch(ctx, &healthv1.HealthCheckRequest{})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := stream.Recv(); err != nil {
		t.Errorf("stream: %v", err)
	}
}

func (w *world) webSocket(t *testing.T, addr, host string) {
	var d net.Dialer
	conn, err := d.DialContext(w.ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "http://"+host+"/ws", nil)
	if err != nil {
		t.Fatal(err)
	}
	ws, err := echo.Upgrade(conn, req)
	if err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		want := fmt.Sprintf("message %d", i)
		if got, err := ws.Echo(want); err != nil || got != want {
			t.Fatalf("echo %q, %v; want %q", got, err, want)
		}
	}
}

func (w *world) tcp(t *testing.T, addr string) {
	var d net.Dialer
	conn, err := d.DialContext(w.ctx, "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		t.Fatal(err)
	}
	fmt.Fprintln(conn, "hello")
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil || line != "hello\n" {
		t.Errorf("echo %q, %v", line, err)
	}
	// Straight to the port, without a certificate: refused.
	raw, err := d.DialContext(w.ctx, "tcp", "127.0.72.2:9000")
	if err != nil {
		return
	}
	defer raw.Close()
	_ = raw.SetDeadline(time.Now().Add(5 * time.Second))
	fmt.Fprintln(raw, "hello")
	if line, err := bufio.NewReader(raw).ReadString('\n'); err == nil {
		t.Errorf("plaintext to a STRICT TCP port was echoed: %q", line)
	}
}
