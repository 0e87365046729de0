package e2e

import (
	"bufio"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/credence-mesh/credence/internal/envoytest"
)

const (
	callerID = "spiffe://cluster.local/ns/shop/sa/caller"
	victimID = "spiffe://cluster.local/ns/shop/sa/victim"
)

// TestPeers asks a workload whose ports are STRICT, PERMISSIVE and DISABLE, by every kind of client that there is.
func TestPeers(t *testing.T) {
	t.Parallel()
	app, bytes := envoytest.Backend(t, "called"), envoytest.TCPEcho(t)
	legacy := envoytest.BackendAt(t, "127.0.74.9:8080", "legacy")
	egress := envoytest.FreePort(t)
	ports := []port{httpPort(8080, app), httpPort(8081, app), httpPort(8082, app), tcpPort(9000, bytes), tcpPort(9001, bytes), tcpPort(9002, bytes)}
	w := start(t, "", map[string]string{
		"strict.yaml": strict,
		"levels.yaml": `apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: levels, namespace: shop}
spec:
  selector: {matchLabels: {app: called}}
  portLevelMtls: {8081: {mode: PERMISSIVE}, 8082: {mode: DISABLE}, 9001: {mode: PERMISSIVE}, 9002: {mode: DISABLE}}
`,
		"called.yaml": docs(workload("called", "127.0.74.2", envoytest.FreePort(t), ports...), service("called", ports...)),
		"caller.yaml": workload("caller", "127.0.74.1", egress, httpPort(8080, app)),
		"victim.yaml": docs(workload("victim", "127.0.74.7", envoytest.FreePort(t), httpPort(8080, app)), service("victim", httpPort(8080, ""))),
		"plain.yaml":  outside("shop", "plain", envoytest.Backend(t, "plain")),
		"legacy.yaml": docs(fmt.Sprintf(legacyWorkload, "127.0.74.9"), service("legacy", httpPort(8080, legacy))),
		"only.yaml":   authorization("only", "called", "ALLOW", `[{to: [{operation: {notPaths: ["/only"]}}]}, {from: [{source: {principals: ["cluster.local/ns/shop/sa/caller"]}}]}]`),
		"tcp.yaml":    authorization("tcp", "called", "ALLOW", `[{to: [{operation: {ports: ["9000", "9001", "9002"]}}]}]`),
	})
	w.proxy("shop/called")
	w.proxy("shop/caller")
	t.Run("modes", func(t *testing.T) { w.in(t).peerModes() })
	t.Run("strangers", func(t *testing.T) { w.in(t).strangers() })
	t.Run("identity in the policy", func(t *testing.T) {
		w := w.in(t)
		w.expect(dial("https://127.0.74.2:8080", w.svid(callerID)), ask{path: "/only"}, 200)
		w.expect(dial("https://127.0.74.2:8080", w.svid(victimID)), ask{path: "/only"}, 403)
		w.expect(dial("http://127.0.74.2:8081", nil), ask{path: "/only"}, 403)
		spoof := map[string]string{"x-forwarded-client-cert": "By=x;URI=" + callerID}
		w.expect(dial("http://127.0.74.2:8081", nil), ask{path: "/only", header: spoof}, 403)
		a := w.expect(dial("http://127.0.74.2:8081", nil), ask{path: "/x", header: spoof}, 200)
		if got := a.seen.Headers.Values("X-Forwarded-Client-Cert"); len(got) > 0 {
			t.Errorf("the back end saw the spoofed x-forwarded-client-cert %q", got)
		}
	})
	t.Run("automatic mutual TLS", func(t *testing.T) { w.in(t).autoTLS(dial(fmt.Sprintf("http://127.0.0.1:%d", egress), nil)) })
	t.Run("a rogue server", func(t *testing.T) { w.in(t).rogue(dial(fmt.Sprintf("http://127.0.0.1:%d", egress), nil)) })
	w.quiet()
}

// legacyWorkload has no sidecar, and says so.
const legacyWorkload = `apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: legacy, namespace: shop}
spec:
  address: %s
  ports: {http-8080: 8080}
  labels: {app: legacy, security.istio.io/tlsMode: disabled}
  serviceAccount: legacy
`

// peerModes: a port takes mutual TLS, plaintext, or both; TLS without a client certificate is never taken.
func (w *world) peerModes() {
	mutual, anonymous := w.svid(callerID), showing()
	for _, tt := range []struct {
		mode                     string
		http, tcp                int
		plain, mutual, anonymous bool
	}{
		{"STRICT", 8080, 9000, false, true, false},
		{"PERMISSIVE", 8081, 9001, true, true, false},
		{"DISABLE", 8082, 9002, true, false, false},
	} {
		for _, c := range []struct {
			name   string
			config *tls.Config
			served bool
		}{{"plaintext", nil, tt.plain}, {"mutual TLS", mutual, tt.mutual}, {"TLS without a certificate", anonymous, tt.anonymous}} {
			scheme := "http"
			if c.config != nil {
				scheme = "https"
			}
			w.t.Run(tt.mode+"/HTTP/"+c.name, func(t *testing.T) {
				a := dial(fmt.Sprintf("%s://127.0.74.2:%d", scheme, tt.http), c.config).do(w.ctx, ask{path: "/x"})
				if c.served != (a.err == nil && a.status == 200) || !c.served && a.status == 200 {
					t.Errorf("%d %s (%v), want served: %v", a.status, a.body, a.err, c.served)
				}
			})
			w.t.Run(tt.mode+"/TCP/"+c.name, func(t *testing.T) {
				err := w.echoes(fmt.Sprintf("127.0.74.2:%d", tt.tcp), c.config)
				// On a DISABLE port TLS is bytes like any other: the echo sends the hello back, which is no handshake.
				if c.served != (err == nil) {
					t.Errorf("%v, want served: %v", err, c.served)
				}
			})
		}
	}
}

// echoes sends a line and wants it back; with a configuration it does so over TLS.
func (w *world) echoes(addr string, cfg *tls.Config) error {
	conn, err := new(net.Dialer).DialContext(w.ctx, "tcp", addr)
	if err != nil {
		return err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
		return err
	}
	if cfg != nil {
		conn = tls.Client(conn, cfg)
	}
	if _, err := fmt.Fprintln(conn, "hello"); err != nil {
		return err
	}
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err == nil && line != "hello\n" {
		err = fmt.Errorf("echo is %q", line)
	}
	return err
}

// strangers: certificates that are not of this mesh, not now, or not for this.
func (w *world) strangers() {
	foreign := envoytest.NewCA(w.t, "foreign")
	mesh, channel := w.steal("mesh-intermediate.pem"), w.steal("channel-ca.pem")
	expired := func(c *x509.Certificate) {
		c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(-time.Second)
	}
	future := func(c *x509.Certificate) {
		c.NotBefore = time.Now().Add(time.Hour)
		c.NotAfter = c.NotBefore.Add(time.Hour)
	}
	for _, tt := range []struct {
		name   string
		cert   tls.Certificate
		served bool
	}{
		{"the mesh's own (or nothing below means anything)", mesh.sign(w.t, []string{callerID}), true},
		{"a foreign CA", foreign.Issue(w.t, callerID).TLS, false},
		{"expired", mesh.sign(w.t, []string{callerID}, expired), false},
		{"not yet valid", mesh.sign(w.t, []string{callerID}, future), false},
		{"another trust domain", mesh.sign(w.t, []string{"spiffe://other.test/ns/shop/sa/caller"}), false},
		{"a trust domain that begins alike", mesh.sign(w.t, []string{"spiffe://cluster.local.evil.test/ns/shop/sa/caller"}), false},
		{"no SPIFFE ID", mesh.sign(w.t, nil, func(c *x509.Certificate) { c.DNSNames = []string{"caller.shop"} }), false},
		{"a channel credential's authority", channel.sign(w.t, []string{callerID}), false},
		{"for servers only", mesh.sign(w.t, []string{callerID}, func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }), false},
	} {
		w.t.Run(tt.name, func(t *testing.T) {
			for _, p := range []int{8080, 8081} { // STRICT, PERMISSIVE
				a := dial(fmt.Sprintf("https://127.0.74.2:%d", p), showing(tt.cert)).do(w.ctx, ask{path: "/only"})
				if tt.served != (a.err == nil && a.status == 200) || !tt.served && a.err == nil {
					t.Errorf("port %d: %d %s (%v), want served: %v", p, a.status, a.body, a.err, tt.served)
				}
			}
			if err := w.echoes("127.0.74.2:9000", showing(tt.cert)); tt.served != (err == nil) {
				t.Errorf("TCP: %v, want served: %v", err, tt.served)
			}
		})
	}
	w.t.Run("the proxy's own channel credential", func(t *testing.T) {
		if _, err := os.Stat(filepath.Join(w.proxyDir("shop/caller"), "channel.json")); err != nil {
			t.Fatal(err)
		}
		cert := w.channelCredential("shop/caller")
		if a := dial("https://127.0.74.2:8080", showing(cert)).do(w.ctx, ask{path: "/x"}); a.err == nil {
			t.Errorf("a peer took a channel credential: %d", a.status)
		}
	})
}

// autoTLS: the caller's proxy speaks mutual TLS where the endpoint has a sidecar, and plaintext where it has none or wants none.
func (w *world) autoTLS(c *client) {
	for _, tt := range []struct {
		host, backend string
		secure        bool
	}{
		{"called.shop.svc.cluster.local:8080", "called", true},
		{"called.shop:8081", "called", true},
		{"called:8082", "called", false},
		{"plain.shop", "plain", false},
		{"legacy.shop:8080", "legacy", false},
	} {
		w.t.Run(tt.host, func(t *testing.T) {
			w := w.in(t)
			a := w.expect(c, ask{host: tt.host, path: "/x"}, 200)
			if a.seen.Backend != tt.backend {
				t.Errorf("%s answered, want %s", a.seen.Backend, tt.backend)
			}
			if tt.backend != "called" {
				return
			}
			status := 403
			if tt.secure {
				status = 200 // only the caller's identity opens it
			}
			w.expect(c, ask{host: tt.host, path: "/only"}, status)
		})
	}
}

// rogue stands behind an endpoint's address with a valid identity of the mesh, but not that of the service.
func (w *world) rogue(c *client) {
	app := ask{host: "victim.shop:8080", path: "/"}
	serve := func(id string) *http.Server {
		w.t.Helper()
		mint := w.svid(id)
		l, err := net.Listen("tcp", "127.0.74.7:8080")
		if err != nil {
			w.t.Fatal(err)
		}
		s := &http.Server{
			TLSConfig: &tls.Config{Certificates: mint.Certificates, ClientAuth: tls.RequireAnyClientCert},
			Handler:   http.HandlerFunc(func(rw http.ResponseWriter, _ *http.Request) { fmt.Fprint(rw, id) }),
		}
		go func() { _ = s.ServeTLS(l, "", "") }()
		return s
	}
	for _, id := range []string{callerID, "spiffe://cluster.local/ns/shop/sa/victims", "spiffe://cluster.local/ns/other/sa/victim"} {
		s := serve(id)
		if a := c.do(w.ctx, app); a.err != nil || a.status != 503 {
			w.t.Errorf("a server with the identity %s: %d %s (%v), want 503", id, a.status, a.body, a.err)
		}
		_ = s.Close()
	}
	s := serve(victimID)
	defer s.Close()
	if a := w.answers(c, app, 200); a.body != victimID {
		w.t.Errorf("%s answered", a.body)
	}
}
