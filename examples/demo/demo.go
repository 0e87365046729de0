package demo

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"github.com/go-jose/go-jose/v4"

	"github.com/credence-mesh/credence/internal/echo"
	"github.com/credence-mesh/credence/internal/issuer"
	"github.com/credence-mesh/credence/internal/mesh"
)

// Options say how the demo runs.
type Options struct {
	Binary string // the credence binary
	Envoy  string // the Envoy binary
	Out    io.Writer
	Color  bool
	Log    io.Writer // gets what every process says; nil: none
	Hold   bool      // stay after the story, until the context ends
}

// ErrDiffers says that a row of the table was not as expected.
var ErrDiffers = errors.New("a row is not as expected")

// world is the running mesh and what the story needs of it.
type world struct {
	ctx    context.Context
	dir    string // everything temporary
	config string // the mesh directory that the story edits
	mesh   *mesh.Mesh
	issuer *issuer.Issuer

	gateway, order, intruder *client

	roots *x509.CertPool
	peer  *tls.Config // of a peer with an SVID, to look at what a proxy shows
	close []func()
}

// Run plays the story. The error is ErrDiffers where a row was not as expected.
func Run(ctx context.Context, o Options) error {
	w, err := newWorld(ctx)
	if err != nil {
		return err
	}
	defer w.stop()
	begin := time.Now()
	if err := w.start(o); err != nil {
		return err
	}
	fmt.Fprintf(o.Out, "four Envoys are ready after %.1f s\n", time.Since(begin).Seconds())
	rows := story()
	t := newTable(o.Out, o.Color, rows)
	for _, r := range rows {
		from := time.Now()
		got, err := r.try(w)
		if ctx.Err() != nil {
			return ctx.Err()
		}
		t.add(r, got, err, time.Since(from))
	}
	fmt.Fprintf(o.Out, "\n%d of %d as expected, in %.0f s\n", t.count-t.bad, t.count, time.Since(begin).Seconds())
	if o.Hold {
		w.invite(o.Out)
		<-ctx.Done()
	}
	if t.bad > 0 {
		return ErrDiffers
	}
	return nil
}

func newWorld(ctx context.Context) (*world, error) {
	dir, err := os.MkdirTemp("", "credence-demo-")
	if err != nil {
		return nil, err
	}
	w := &world{ctx: ctx, dir: dir, config: filepath.Join(dir, "mesh")}
	w.later(func() { _ = os.RemoveAll(dir) })
	return w, nil
}

func (w *world) later(f func()) { w.close = append(w.close, f) }

func (w *world) stop() {
	for i := len(w.close) - 1; i >= 0; i-- {
		w.close[i]()
	}
}

func (w *world) start(o Options) error {
	if err := errors.Join(os.Mkdir(w.config, 0o700), free()); err != nil {
		return err
	}
	if err := copyMesh(w.config); err != nil {
		return err
	}
	if err := errors.Join(w.startBackends(), w.startIssuer()); err != nil {
		return err
	}
	fmt.Fprintln(o.Out, "starting the control plane …")
	m, err := mesh.Start(w.ctx, mesh.Options{
		Binary: o.Binary, Envoy: o.Envoy, Dir: w.dir, Config: w.config, Settings: filepath.Join(w.dir, "credence.yaml"), Log: o.Log,
	})
	if m != nil {
		w.mesh = m
		w.later(m.Stop)
	}
	if err != nil {
		return err
	}
	for _, name := range []string{gatewayWorkload, orderWorkload, paymentWorkload, intruderWorkload} {
		fmt.Fprintf(o.Out, "starting an Envoy for %s …\n", name)
		ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
		_, err := m.StartProxy(ctx, name)
		cancel()
		if err != nil {
			return err
		}
	}
	w.gateway = newClient("https://"+gatewayAddr, w.roots)
	w.order = newClient("http://"+orderEgress, nil)
	w.intruder = newClient("http://"+intruderEgress, nil)
	return w.startPeer()
}

// free says which of the addresses that the mesh directory names is taken.
func free() error {
	var errs []error
	for _, a := range []string{
		gatewayAddr, orderInbound, paymentInbound, intruderInbound, orderEgress, paymentEgress, intruderEgress, orderBackend, paymentBackend, intruderBackend,
	} {
		l, err := net.Listen("tcp", a) //nolint:noctx // closed at once
		if err != nil {
			errs = append(errs, fmt.Errorf("the demo needs %s, which is taken: %w", a, err))
			continue
		}
		errs = append(errs, l.Close())
	}
	return errors.Join(errs...)
}

func (w *world) startBackends() error {
	for addr, name := range map[string]string{orderBackend: "order-service", paymentBackend: "payment-service", intruderBackend: "intruder"} {
		s, err := echo.Listen(w.ctx, addr, name)
		if err != nil {
			return err
		}
		w.later(func() { _ = s.Close() })
	}
	return nil
}

// startIssuer serves the token issuer's keys over HTTPS, and writes the gateway's certificate and the settings that name both.
func (w *world) startIssuer() error {
	var err error
	if w.issuer, err = issuer.New(issuerName, jose.ES256); err != nil {
		return err
	}
	public, err := newPublicCA()
	if err != nil {
		return err
	}
	w.roots = public.pool()
	edge, err := public.issue("localhost", "api.example.com")
	if err != nil {
		return err
	}
	keys, err := public.issue("localhost")
	if err != nil {
		return err
	}
	l, err := tls.Listen("tcp", "127.0.0.1:0", &tls.Config{Certificates: []tls.Certificate{keys.tls}, MinVersion: tls.VersionTLS12})
	if err != nil {
		return err
	}
	server := &http.Server{Handler: w.issuer, ReadHeaderTimeout: 5 * time.Second}
	go func() { _ = server.Serve(l) }()
	w.later(func() { _ = server.Close() })
	settings := fmt.Sprintf(settingsText, issuerKeysURI, l.Addr().(*net.TCPAddr).Port)
	return errors.Join(
		os.WriteFile(filepath.Join(w.dir, "credence.yaml"), []byte(settings), 0o600),
		os.WriteFile(filepath.Join(w.dir, "public-ca.pem"), public.pem, 0o600),
		os.WriteFile(filepath.Join(w.config, "edge-tls.yaml"), []byte(edge.secret("production", "edge-tls")), 0o600),
	)
}

// settingsText is the demo's credence.yaml. The SVIDs live 20 s, so that one rotates while you watch.
const settingsText = `jwks:
- uri: %s
  url: https://localhost:%d/jwks.json
  caFile: public-ca.pem
identity:
  svidTTL: 20s
`

// startPeer mints an SVID of a stranger, to look at the certificate that a proxy shows.
func (w *world) startPeer() error {
	out := filepath.Join(w.dir, "peer")
	if _, err := w.mesh.Run(w.ctx, "svid", "mint", "--state", w.mesh.State(), "--spiffe-id", "spiffe://cluster.local/ns/demo/sa/observer", "--out", out); err != nil {
		return err
	}
	pair, err := tls.LoadX509KeyPair(filepath.Join(out, "svid.pem"), filepath.Join(out, "key.pem"))
	if err != nil {
		return err
	}
	bundle, err := os.ReadFile(filepath.Join(out, "bundle.pem"))
	if err != nil {
		return err
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	w.peer = &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, // an SVID has no DNS name: the chain and the SPIFFE ID are verified below
		VerifyConnection: func(s tls.ConnectionState) error {
			between := x509.NewCertPool()
			for _, c := range s.PeerCertificates[1:] {
				between.AddCert(c)
			}
			leaf := s.PeerCertificates[0]
			if _, err := leaf.Verify(x509.VerifyOptions{Roots: roots, Intermediates: between}); err != nil {
				return err
			}
			if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://cluster.local/ns/production/sa/payment-service" {
				return fmt.Errorf("payment-service's proxy shows %v", leaf.URIs)
			}
			return nil
		},
	}
	return nil
}

// errors counts the problems of severity error that the control plane knows.
func (w *world) errors(ctx context.Context) (int, error) {
	var status struct {
		Problems []struct{ Severity string } `json:"problems"`
	}
	err := w.mesh.Get(ctx, "/api/v1/status", &status)
	n := 0
	for _, p := range status.Problems {
		if p.Severity == "error" {
			n++
		}
	}
	return n, err
}

// user is the claims of a user of a tenant.
func user(tenant, tier string, edit issuer.Claims) issuer.Claims {
	c := issuer.Claims{"sub": "user-of-" + tenant, "aud": audience, "tenant_id": tenant, "tier": tier, "role": "user", "roles": []string{"user"}}
	maps.Copy(c, edit)
	return c
}

func (w *world) token(tenant, tier string, edit issuer.Claims) (string, error) {
	return w.issuer.Token(user(tenant, tier, edit))
}

// tampered is a good token with another payload: the signature no longer fits.
func tampered(w *world) (string, error) {
	good, err := w.token("acme", "free", nil)
	if err != nil {
		return "", err
	}
	other, err := w.token("acme", "enterprise", issuer.Claims{"role": "admin"})
	if err != nil {
		return "", err
	}
	g, o := strings.Split(good, "."), strings.Split(other, ".")
	return g[0] + "." + o[1] + "." + g[2], nil
}

// invite prints how to talk to the mesh that is left running.
func (w *world) invite(out io.Writer) {
	token, err := w.token("tenant-a", "enterprise", nil)
	if err != nil {
		token = "…"
	}
	ca := filepath.Join(w.dir, "public-ca.pem")
	fmt.Fprintf(out, `
The mesh is running until you press Ctrl-C. Its resources are in
    %s
Edit them and watch. Talk to it:
    export TOKEN=%s
    curl --cacert %s -H "Authorization: Bearer $TOKEN" https://localhost:%s/api/v1/tenants/tenant-a/orders
    curl --cacert %s -H "Authorization: Bearer $TOKEN" https://localhost:%s/api/v1/tenants/tenant-b/orders
    curl -H "Host: %s" http://%s%s        # as order-service
    curl -H "Host: %s" http://%s%s        # as the intruder
    credence status --admin-addr %s
    credence config-dump --admin-addr %s --workload %s
`, w.config, token, ca, port(gatewayAddr), ca, port(gatewayAddr), paymentHost, orderEgress, onePayment, paymentHost, intruderEgress, onePayment,
		w.mesh.Admin, w.mesh.Admin, paymentWorkload)
}

func port(addr string) string {
	_, p, _ := net.SplitHostPort(addr)
	return p
}
