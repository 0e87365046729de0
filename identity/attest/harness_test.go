package attest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"net"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"go.uber.org/goleak"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/attest/attestv1"
	"github.com/credence-mesh/credence/identity/ca"
	"github.com/credence-mesh/credence/identity/state"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	domain = spiffeid.RequireTrustDomainFromString("cluster.local")
	orders = identity.Workload{Namespace: "production", Name: "orders"}
	spy    = identity.Workload{Namespace: "production", Name: "spy"}
	known  = map[identity.Workload]identity.ID{
		orders:                                   spiffeid.RequireFromString("spiffe://cluster.local/ns/production/sa/orders"),
		spy:                                      spiffeid.RequireFromString("spiffe://cluster.local/ns/production/sa/spy"),
		{Namespace: "production", Name: "crown"}: identity.ServerID(domain),
	}
)

// plane is a control plane: a real gRPC server over TLS, with one method beside Attestation that tells its callers who they are.
type plane struct {
	addr    string
	ca      *ca.Authority
	dir     *state.Dir
	tokens  *Tokens
	revoked *Revocations
	seen    chan identity.Proven
}

// whoami answers Check (unary) and Watch (stream).
type whoami struct {
	grpc_health_v1.UnimplementedHealthServer
	seen chan identity.Proven
}

func (w whoami) Check(ctx context.Context, _ *grpc_health_v1.HealthCheckRequest) (*grpc_health_v1.HealthCheckResponse, error) {
	p, err := FromContext(ctx)
	if err == nil {
		w.seen <- p
	}
	return &grpc_health_v1.HealthCheckResponse{}, err
}

func (w whoami) Watch(_ *grpc_health_v1.HealthCheckRequest, s grpc_health_v1.Health_WatchServer) error {
	p, err := FromContext(s.Context())
	if err != nil {
		return err
	}
	w.seen <- p
	return s.Send(&grpc_health_v1.HealthCheckResponse{})
}

func newAuthority(t testing.TB, td identity.TrustDomain) (*ca.Authority, *state.Dir) {
	t.Helper()
	dir, err := state.Open(t.TempDir() + "/state")
	if err != nil {
		t.Fatal(err)
	}
	a, err := ca.Open(t.Context(), dir, td)
	if err != nil {
		t.Fatal(err)
	}
	return a, dir
}

func newPlane(t *testing.T) *plane {
	t.Helper()
	a, dir := newAuthority(t, domain)
	p := &plane{ca: a, dir: dir, seen: make(chan identity.Proven, 8)}
	var err error
	if p.tokens, err = OpenTokens(dir); err != nil {
		t.Fatal(err)
	}
	if p.revoked, err = OpenRevocations(dir); err != nil {
		t.Fatal(err)
	}
	p.addr = p.listen(t, a)
	return p
}

// listen serves with an identity of the given authority.
func (p *plane) listen(t *testing.T, as *ca.Authority) string {
	t.Helper()
	source, err := ca.NewSource(t.Context(), as, ca.Request{ID: identity.ServerID(domain), DNS: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	trust := Trust{Domain: domain, Mesh: as, Revoked: p.revoked.Revoked, Channel: func() []*x509.Certificate { return []*x509.Certificate{p.ca.ChannelRoot()} }}
	s := grpc.NewServer(grpc.Creds(Credentials(source, trust)), grpc.UnaryInterceptor(trust.Unary), grpc.StreamInterceptor(trust.Stream))
	attestv1.RegisterAttestationServer(s, NewServer(ServerConfig{Issuer: p.ca, Tokens: p.tokens, Workload: func(w identity.Workload) (identity.ID, bool) {
		id, ok := known[w]
		return id, ok
	}}))
	grpc_health_v1.RegisterHealthServer(s, whoami{seen: p.seen})
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	t.Cleanup(func() { s.Stop(); <-done })
	return l.Addr().String()
}

func (p *plane) token(t *testing.T, w identity.Workload) string {
	t.Helper()
	text, err := CreateToken(t.Context(), p.tokens, p.ca.Root(), w, 0)
	if err != nil {
		t.Fatal(err)
	}
	return text
}

func (p *plane) join(t *testing.T, w identity.Workload, ttl time.Duration) Credential {
	t.Helper()
	c, err := Join(t.Context(), p.addr, p.token(t, w), w, ttl)
	if err != nil {
		t.Fatal(err)
	}
	return c
}

// client connects with any certificate, or with none.
func (p *plane) client(t *testing.T, config *tls.Config) *grpc.ClientConn {
	t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+p.addr, grpc.WithTransportCredentials(credentials.NewTLS(config)))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

// tlsWith shows a certificate and trusts any server: attackers do.
func tlsWith(svid *x509svid.SVID) *tls.Config {
	config := clientTLS(func([]*x509.Certificate) error { return nil })
	if svid == nil {
		return config
	}
	cert := tls.Certificate{PrivateKey: svid.PrivateKey}
	for _, c := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	// Shown even where the server's list of authorities does not name its issuer.
	config.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) { return &cert, nil }
	return config
}

// check calls the unary method and the streaming one.
func check(t *testing.T, conn *grpc.ClientConn) error {
	t.Helper()
	health := grpc_health_v1.NewHealthClient(conn)
	_, err := health.Check(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	stream, serr := health.Watch(t.Context(), &grpc_health_v1.HealthCheckRequest{})
	if serr == nil {
		_, serr = stream.Recv()
	}
	if (err == nil) != (serr == nil) {
		t.Errorf("unary and stream differ: %v, %v", err, serr)
	}
	return err
}
