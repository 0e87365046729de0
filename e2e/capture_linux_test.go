package e2e

import (
	"bufio"
	"crypto/tls"
	"fmt"
	"io"
	"net"
	"net/http"
	"testing"
	"time"

	"github.com/credence-mesh/credence/internal/echo"
)

// captured is a WorkloadEntry whose proxy gets all traffic from iptables.
func captured(name, addr string) string {
	return fmt.Sprintf(`apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata:
  name: %[1]s
  namespace: shop
  annotations: {sidecar.istio.io/interceptionMode: REDIRECT}
spec:
  address: %[2]s
  ports: {http: 8080, tcp: 9000}
  labels: {app: %[1]s}
  serviceAccount: %[1]s
`, name, addr)
}

// TestCapture puts two workloads on two hosts, as far as the network can tell, and captures their traffic by iptables: applications know
// nothing of proxies.
func TestCapture(t *testing.T) {
	t.Parallel()
	needNamespaces(t)
	a, b := newNetns(t, "a"), newNetns(t, "b")
	link(a, b, "10.77.0.1", "10.77.0.2")
	w := start(t, "", map[string]string{
		"strict.yaml": strict,
		"a.yaml":      captured("caller", "10.77.0.1"),
		"b.yaml":      captured("called", "10.77.0.2"),
		"service.yaml": `apiVersion: v1
kind: Service
metadata: {name: called, namespace: shop}
spec:
  clusterIP: 10.77.1.10
  selector: {app: called}
  ports:
  - {name: http, port: 80, targetPort: http}
  - {name: tcp, port: 9000, targetPort: tcp}
`,
		"policy.yaml": authorization("callers", "called", "ALLOW", `[{from: [{source: {principals: ["cluster.local/ns/shop/sa/caller"]}}]}]`),
	})
	serveHTTP(b.listen("127.0.0.1:8080"), "called")
	serveEcho(b.listen("127.0.0.1:9000"))
	serveHTTP(b.listen("10.77.0.2:7777"), "not a port of the workload")
	for _, h := range []struct {
		n        netns
		workload string
	}{{a, "shop/caller"}, {b, "shop/called"}} {
		h.n.forward(w.XDS)
		h.n.capture()
		w.proxyIn(h.n, h.workload)
	}
	app := func(base string) *client { return from(a, 0, base, nil) }
	t.Run("HTTP to the service's address", func(t *testing.T) {
		w := w.in(t)
		for _, host := range []string{"called.shop", "called", "called.shop.svc.cluster.local:80", "10.77.1.10"} {
			if got := w.answers(app("http://10.77.1.10:80"), ask{host: host, path: "/x"}, 200); got.seen.Backend != "called" {
				t.Errorf("host %s: %s answered", host, got.seen.Backend)
			}
		}
	})
	t.Run("TCP to the service's address", func(t *testing.T) { captureTCP(t, a, "10.77.1.10:9000", true) })
	t.Run("a host that no service has", func(t *testing.T) {
		w.in(t).expect(app("http://10.77.1.10:80"), ask{host: "elsewhere.test", path: "/"}, 502)
	})
	t.Run("TCP to an address that no service has", func(t *testing.T) { captureTCP(t, a, "10.77.0.2:7778", false) })
	t.Run("plaintext past the caller's proxy", func(t *testing.T) {
		if got := from(a, uncaptured, "http://10.77.0.2:8080", nil).do(w.ctx, ask{path: "/x"}); got.err == nil {
			t.Errorf("answered %d %s", got.status, got.body)
		}
		if err := echoed(from9000(t, a, "10.77.0.2:9000")); err == nil {
			t.Error("plaintext TCP was echoed")
		}
	})
	t.Run("mutual TLS past the caller's proxy", func(t *testing.T) {
		w := w.in(t)
		w.expect(from(a, uncaptured, "https://10.77.0.2:8080", w.svid(callerID)), ask{path: "/x"}, 200)
		w.expect(from(a, uncaptured, "https://10.77.0.2:8080", w.svid(victimID)), ask{path: "/x"}, 403)
	})
	t.Run("a port that is not the workload's", func(t *testing.T) {
		if got := from(a, uncaptured, "http://10.77.0.2:7777", nil).do(w.ctx, ask{path: "/"}); got.err == nil {
			t.Errorf("answered %d %s", got.status, got.body)
		}
	})
	t.Run("the capture port itself", func(t *testing.T) {
		for _, port := range []int{15001, 15006} {
			if got := from(a, uncaptured, fmt.Sprintf("http://10.77.0.2:%d", port), nil).do(w.ctx, ask{host: "called.shop", path: "/"}); got.err == nil {
				t.Errorf("%d answered %d %s", port, got.status, got.body)
			}
		}
	})
	w.quiet()
}

// from is a client in a namespace.
func from(n netns, mark int, base string, cfg *tls.Config) *client {
	c := dial(base, cfg)
	c.http.Transport.(*http.Transport).DialContext = n.dial(mark)
	c.http.Timeout = 10 * time.Second
	return c
}

func from9000(t *testing.T, n netns, addr string) net.Conn {
	t.Helper()
	conn, err := n.dial(uncaptured)(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// echoed sends a line and wants it back.
func echoed(conn net.Conn) error {
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if _, err := fmt.Fprintln(conn, "hello"); err != nil {
		return err
	}
	got, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && got != "hello\n" {
		return fmt.Errorf("echo is %q", got)
	}
	return err
}

func captureTCP(t *testing.T, n netns, addr string, served bool) {
	t.Helper()
	conn, err := n.dial(0)(t.Context(), "tcp", addr)
	if err == nil {
		defer conn.Close()
		err = echoed(conn)
	}
	if served != (err == nil) {
		t.Errorf("%s: %v, want served: %v", addr, err, served)
	}
}

func serveHTTP(l net.Listener, name string) {
	s := &http.Server{Handler: echo.Handler(name), ReadHeaderTimeout: 10 * time.Second}
	go func() { _ = s.Serve(l) }() // ends with the listener
}

func serveEcho(l net.Listener) {
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = conn.Close() }()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
}
