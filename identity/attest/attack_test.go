package attest

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"math/big"
	"net/url"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/attest/attestv1"
	"github.com/credence-mesh/credence/identity/ca"
)

func newTestKey(t testing.TB) *ecdsa.PrivateKey {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return key
}

// forge makes certificates as nobody should: signed by parent, or by itself.
func forge(t testing.TB, tmpl *x509.Certificate, parent *x509.Certificate, signer crypto.Signer) *x509svid.SVID {
	t.Helper()
	key := newTestKey(t)
	if parent == nil {
		parent, signer = tmpl, key
	}
	der, err := x509.CreateCertificate(rand.Reader, tmpl, parent, key.Public(), signer)
	if err != nil {
		t.Fatal(err)
	}
	cert, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	return &x509svid.SVID{Certificates: []*x509.Certificate{cert}, PrivateKey: key}
}

// good is a template that is accepted if a trusted authority signs it.
func good(edit func(*x509.Certificate)) *x509.Certificate {
	c := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), URIs: []*url.URL{known[orders].URL()}, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageDigitalSignature,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth, x509.ExtKeyUsageServerAuth},
		Subject:     pkix.Name{CommonName: orders.String()},
	}
	edit(c)
	return c
}

// hierarchy is a root of our own making that Trust trusts for the mesh or for channels, so that everything but the leaf is in order.
func hierarchy(t testing.TB) (*x509.Certificate, crypto.Signer) {
	t.Helper()
	root := forge(t, &x509.Certificate{SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign,
		Subject: pkix.Name{CommonName: "root"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), URIs: []*url.URL{domain.ID().URL()}}, nil, nil)
	return root.Certificates[0], root.PrivateKey
}

func bundleOf(roots ...*x509.Certificate) *x509bundle.Bundle {
	return x509bundle.FromX509Authorities(domain, roots)
}

func TestVerifyRefuses(t *testing.T) {
	t.Parallel()
	root, key := hierarchy(t)
	mesh := bundleOf(root)
	asMesh := Trust{Domain: domain, Mesh: mesh, Channel: func() []*x509.Certificate { return nil }}
	asChannel := Trust{Domain: domain, Mesh: bundleOf(), Channel: func() []*x509.Certificate { return []*x509.Certificate{root} }}
	uri := func(s ...string) func(*x509.Certificate) {
		return func(c *x509.Certificate) {
			c.URIs = nil
			for _, u := range s {
				p, err := url.Parse(u)
				if err != nil {
					t.Fatal(err)
				}
				c.URIs = append(c.URIs, p)
			}
		}
	}
	id := known[orders].String()
	for _, c := range []struct {
		name string
		edit func(*x509.Certificate)
		want string // empty: accepted
	}{
		{"nothing wrong", func(*x509.Certificate) {}, ""},
		{"no URI", uri(), "no URI"},
		{"two URIs", uri(id, id), "more than one URI"},
		{"two identities", uri(id, known[spy].String()), "more than one URI"},
		{"not SPIFFE", uri("https://cluster.local/ns/production/sa/orders"), "scheme"},
		{"another trust domain", uri("spiffe://evil.example/ns/production/sa/orders"), "trust domain"},
		{"upper case", uri("spiffe://CLUSTER.LOCAL/ns/production/sa/orders"), "trust domain"},
		{"no path", uri("spiffe://cluster.local"), "without a path"},
		{"dots", uri("spiffe://cluster.local/ns/../ns/production/sa/orders"), "path"},
		{"escaped", uri("spiffe://cluster.local/ns/%2e%2e/sa/orders"), "path"},
		{"trailing slash", uri(id + "/"), "path"},
		{"port", uri("spiffe://cluster.local:80/ns/production/sa/orders"), "trust domain"},
		{"query", uri(id + "?a=b"), "path"},
		{"an authority", func(c *x509.Certificate) { c.IsCA = true }, "authority"},
		{"signs certificates", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCertSign; c.IsCA = true }, "authority"},
		{"signs revocation lists", func(c *x509.Certificate) { c.KeyUsage |= x509.KeyUsageCRLSign }, "authority"},
		{"no signatures", func(c *x509.Certificate) { c.KeyUsage = x509.KeyUsageKeyAgreement }, "signatures"},
		{"for servers only", func(c *x509.Certificate) { c.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth} }, "clients"},
		{"ended", func(c *x509.Certificate) { c.NotAfter = time.Now().Add(-time.Second) }, "ended"},
		{"not begun", func(c *x509.Certificate) { c.NotBefore = time.Now().Add(time.Minute) }, "begins"},
		{"an unknown critical extension", func(c *x509.Certificate) {
			c.ExtraExtensions = []pkix.Extension{{Id: []int{1, 2, 3, 4}, Critical: true, Value: []byte{5, 0}}}
		}, "x509"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			chain := forge(t, good(c.edit), root, key).Certificates
			for as, trust := range map[string]Trust{"mesh": asMesh, "channel": asChannel} {
				p, err := trust.Verify(chain)
				if c.want == "" {
					if err != nil || p.ID != known[orders] || (p.Workload == orders) != (as == "channel") {
						t.Errorf("%s: got %+v, %v", as, p, err)
					}
					continue
				}
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Errorf("%s: got %v, want %q", as, err, c.want)
				}
			}
		})
	}
	for _, cn := range []string{"", "orders", "/orders", "production/", "production/orders/x"} {
		chain := forge(t, good(func(c *x509.Certificate) { c.Subject.CommonName = cn }), root, key).Certificates
		if p, err := asChannel.Verify(chain); err == nil {
			t.Errorf("a channel credential of %q proves %+v", cn, p)
		}
	}
	if _, err := asMesh.Verify(nil); err == nil {
		t.Error("an empty chain proves something")
	}
	if _, err := (Trust{Channel: asMesh.Channel, Mesh: mesh}).Verify(forge(t, good(func(*x509.Certificate) {}), root, key).Certificates); err == nil {
		t.Error("the zero trust domain trusts somebody")
	}
}

// Strangers are refused in the handshake, on the unary and on the streaming way.
func TestHandshakesThatAreRefused(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	foreign, _ := newAuthority(t, domain)
	elsewhere, _ := newAuthority(t, spiffeid.RequireTrustDomainFromString("evil.example"))
	mint := func(a *ca.Authority, id string) *x509svid.SVID {
		svid, err := a.Mint(t.Context(), ca.Request{ID: spiffeid.RequireFromString(id)})
		if err != nil {
			t.Fatal(err)
		}
		return svid
	}
	id := known[orders].String()
	foreignChannel := forge(t, good(func(*x509.Certificate) {}), nil, nil)
	stolen := mint(p.ca, id)
	stolen.PrivateKey = newTestKey(t)
	joined := p.join(t, orders, 0)
	// A channel credential is no authority: what it signs is worth nothing.
	child := forge(t, good(func(*x509.Certificate) {}), joined.Chain[0], joined.Key)
	child.Certificates = append(child.Certificates, joined.Chain...)
	own := mint(p.ca, id)
	grandchild := forge(t, good(func(*x509.Certificate) {}), own.Certificates[0], own.PrivateKey)
	grandchild.Certificates = append(grandchild.Certificates, own.Certificates...)
	for _, c := range []struct {
		name string
		svid *x509svid.SVID
	}{
		{"no certificate", nil},
		{"another authority of the same name", mint(foreign, id)},
		{"another trust domain", mint(elsewhere, "spiffe://evil.example/ns/production/sa/orders")},
		{"self-signed channel credential", foreignChannel},
		{"certificate without its key", stolen},
		{"signed by a channel credential", child},
		{"signed by an SVID", grandchild},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			err := check(t, p.client(t, tlsWith(c.svid)))
			if err == nil {
				t.Fatal("accepted")
			}
			if c.svid == nil && status.Code(err) != codes.Unauthenticated {
				t.Errorf("got %v", err)
			}
		})
	}
	if err := check(t, p.client(t, tlsWith(own))); err != nil {
		t.Errorf("an SVID of the mesh is refused: %v", err)
	}
	if got := <-p.seen; got.ID != known[orders] || got.Workload != (identity.Workload{}) {
		t.Errorf("an SVID proves %+v", got)
	}
}

func TestOldTLSIsRefused(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	config := p.join(t, orders, 0).ClientTLS()
	config.MinVersion, config.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	if err := check(t, p.client(t, config)); err == nil {
		t.Error("TLS 1.2 is accepted")
	}
}

// Without a certificate every method but Join is refused, also those that the server does not have, however they are spelled.
func TestOnlyJoinIsOpen(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	conn := p.client(t, tlsWith(nil))
	join := strings.TrimPrefix(attestv1.Attestation_Join_FullMethodName, "/")
	for _, method := range []string{attestv1.Attestation_Renew_FullMethodName, "/grpc.health.v1.Health/Check", "/" + join + "/", "//" + join, "/x/Join", "/" + strings.ToLower(join)} {
		err := conn.Invoke(t.Context(), method, &attestv1.JoinRequest{}, &attestv1.JoinResponse{})
		if code := status.Code(err); code != codes.Unauthenticated && code != codes.Unimplemented {
			t.Errorf("%s: %v", method, err)
		}
	}
}

func TestAnSVIDCannotBecomeAChannelCredential(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	svid, err := p.ca.Mint(t.Context(), ca.Request{ID: known[orders]})
	if err != nil {
		t.Fatal(err)
	}
	_, csr, err := newRequest()
	if err != nil {
		t.Fatal(err)
	}
	_, err = attestv1.NewAttestationClient(p.client(t, tlsWith(svid))).Renew(t.Context(), &attestv1.RenewRequest{Csr: csr})
	if status.Code(err) != codes.PermissionDenied {
		t.Errorf("got %v", err)
	}
}

func TestRevocation(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		what  func(Credential) Revocation
		other bool // whether another credential of the same workload is revoked too
	}{
		{"by serial", func(c Credential) Revocation { return Revocation{Serial: c.Chain[0].SerialNumber.Text(16)} }, false},
		{"by identity", func(c Credential) Revocation { return Revocation{ID: c.ID.String()} }, true},
		{"by workload", func(c Credential) Revocation { return Revocation{Workload: c.Workload.String()} }, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			p := newPlane(t)
			lost, other, neighbour := p.join(t, orders, 0), p.join(t, orders, 0), p.join(t, spy, 0)
			open := p.client(t, lost.ClientTLS())
			if err := check(t, open); err != nil {
				t.Fatal(err)
			}
			beside, err := OpenRevocations(p.dir) // as another process has it
			if err != nil {
				t.Fatal(err)
			}
			if err := beside.Add(t.Context(), c.what(lost)); err != nil {
				t.Fatal(err)
			}
			if err := check(t, open); status.Code(err) != codes.PermissionDenied {
				t.Errorf("the open connection: %v", err)
			}
			if _, err := Renew(t.Context(), p.addr, lost, 0); err == nil {
				t.Error("renewed")
			}
			if err := check(t, p.client(t, other.ClientTLS())); (err != nil) != c.other {
				t.Errorf("another credential of the workload: %v", err)
			}
			if err := check(t, p.client(t, neighbour.ClientTLS())); err != nil {
				t.Errorf("another workload: %v", err)
			}
		})
	}
}

func TestRevocationsThatCannotBeReadAreAnError(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	if err := p.revoked.Add(t.Context(), Revocation{Serial: "1"}); err != nil {
		t.Fatal(err)
	}
	if err := p.dir.Write(revokedFile, []byte("[{")); err != nil {
		t.Fatal(err)
	}
	if !p.revoked.Revoked(identity.Proven{Serial: "1"}) {
		t.Error("what was revoked came back")
	}
	if _, err := OpenRevocations(p.dir); err == nil {
		t.Error("no error")
	}
	if err := p.revoked.Add(t.Context(), Revocation{Serial: "2"}); err == nil {
		t.Error("the damaged list was replaced")
	}
	if err := p.revoked.Add(t.Context(), Revocation{Serial: "2", ID: "x"}); err == nil {
		t.Error("an ambiguous revocation was accepted")
	}
}

// FromContext trusts the handshake of this package and nothing that looks like it.
func TestFromContextTrustsOnlyItsOwnHandshake(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	svid, err := p.ca.Mint(t.Context(), ca.Request{ID: known[orders]})
	if err != nil {
		t.Fatal(err)
	}
	unverified := credentials.TLSInfo{State: tls.ConnectionState{PeerCertificates: svid.Certificates}}
	for name, ctx := range map[string]context.Context{
		"no peer": t.Context(),
		"no auth": peer.NewContext(t.Context(), &peer.Peer{}),
		"tls":     peer.NewContext(t.Context(), &peer.Peer{AuthInfo: unverified}),
		"nobody":  peer.NewContext(t.Context(), &peer.Peer{AuthInfo: proof{}}),
	} {
		if got, err := FromContext(ctx); err == nil {
			t.Errorf("%s: %+v", name, got)
		}
	}
}

func TestAConnectionDoesNotOutliveItsCertificate(t *testing.T) {
	t.Parallel()
	ended := peer.NewContext(t.Context(), &peer.Peer{AuthInfo: proof{
		leaf: &x509.Certificate{}, proven: identity.Proven{ID: known[orders], NotAfter: time.Now().Add(-time.Second)}}})
	if err := (Trust{}).guard(ended, "/any/Method"); status.Code(err) != codes.Unauthenticated {
		t.Errorf("got %v", err)
	}
}

func TestOpenStreamsHearOfARevocation(t *testing.T) {
	a, dir := newAuthority(t, domain)
	c, err := a.IssueChannel(t.Context(), orders, known[orders], newTestKey(t).Public(), 0)
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		r, err := OpenRevocations(dir)
		if err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		revoked, done := 0, make(chan struct{})
		go func() {
			defer close(done)
			_ = r.Run(ctx, func() {
				if r.Revoked(identity.Proven{Serial: c[0].SerialNumber.Text(16)}) {
					revoked++
				}
			})
		}()
		<-time.After(time.Minute)
		if err := r.Add(ctx, Revocation{Serial: c[0].SerialNumber.Text(16)}); err != nil {
			t.Fatal(err)
		}
		<-time.After(time.Minute)
		cancel()
		<-done
		if revoked != 1 {
			t.Errorf("told %d times", revoked)
		}
	})
}
