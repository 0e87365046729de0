package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"encoding/pem"
	"net"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/credence-mesh/credence/identity"
)

func TestSVIDIsAsTheSpecificationWants(t *testing.T) {
	t.Parallel()
	a := openIn(t, newState(t))
	svid, err := a.Mint(t.Context(), Request{ID: orders, DNS: []string{"orders.production.svc"}, IPs: []net.IP{net.IPv6loopback}})
	if err != nil {
		t.Fatal(err)
	}
	if id, chains, err := x509svid.Verify(svid.Certificates, a); err != nil || id != orders || len(chains) != 1 || len(chains[0]) != 3 {
		t.Errorf("go-spiffe: %v, %v, %v", id, chains, err)
	}
	leaf, intermediate, root := svid.Certificates[0], svid.Certificates[1], a.Root()
	for _, c := range []struct {
		name string
		ok   bool
	}{
		{"one URI", len(leaf.URIs) == 1 && leaf.URIs[0].String() == orders.String()},
		{"DNS and IP as asked", leaf.DNSNames[0] == "orders.production.svc" && leaf.IPAddresses[0].Equal(net.IPv6loopback)},
		{"a leaf", !leaf.IsCA && leaf.BasicConstraintsValid},
		{"key usage of a leaf", leaf.KeyUsage == x509.KeyUsageDigitalSignature},
		{"key usage is critical", critical(leaf, 15) && critical(intermediate, 15) && critical(root, 15)},
		{"for servers and clients", len(leaf.ExtKeyUsage) == 2},
		{"backdated", time.Since(leaf.NotBefore) >= Backdate && time.Since(leaf.NotBefore) < Backdate+time.Minute},
		{"an hour", time.Until(leaf.NotAfter) > 59*time.Minute && time.Until(leaf.NotAfter) <= time.Hour},
		{"128-bit serials", leaf.SerialNumber.BitLen() >= 126 && intermediate.SerialNumber.BitLen() >= 126},
		{"key identifiers chain", string(leaf.AuthorityKeyId) == string(intermediate.SubjectKeyId) && string(intermediate.AuthorityKeyId) == string(root.SubjectKeyId)},
		{"key identifiers are there", len(leaf.SubjectKeyId) == 20 && len(intermediate.SubjectKeyId) == 20},
		{"path lengths", root.MaxPathLen == 1 && intermediate.MaxPathLen == 0 && intermediate.MaxPathLenZero},
		{"authorities have the trust domain's ID", intermediate.URIs[0].String() == "spiffe://cluster.local" && root.URIs[0].String() == "spiffe://cluster.local"},
		{"subjects are unique", root.Subject.String() != openIn(t, newState(t)).Root().Subject.String()},
	} {
		if !c.ok {
			t.Error("not so: " + c.name)
		}
	}
}

func critical(c *x509.Certificate, ext int) bool {
	for _, e := range c.Extensions {
		if e.Id.Equal(asn1.ObjectIdentifier{2, 5, 29, ext}) {
			return e.Critical
		}
	}
	return false
}

func TestOpenSSLAcceptsAnSVID(t *testing.T) {
	t.Parallel()
	openssl, err := exec.LookPath("openssl")
	if err != nil {
		t.Skip("there is no openssl here")
	}
	a := openIn(t, newState(t))
	svid, err := a.Mint(t.Context(), Request{ID: orders})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, c := range map[string]*x509.Certificate{"leaf": svid.Certificates[0], "intermediate": svid.Certificates[1], "root": a.Root()} {
		if err := os.WriteFile(filepath.Join(dir, name), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for _, purpose := range []string{"sslserver", "sslclient"} {
		out, err := exec.CommandContext(t.Context(), openssl, "verify", "-x509_strict", "-purpose", purpose, "-CAfile", filepath.Join(dir, "root"),
			"-untrusted", filepath.Join(dir, "intermediate"), filepath.Join(dir, "leaf")).CombinedOutput()
		if err != nil {
			t.Errorf("%s: %v: %s", purpose, err, out)
		}
	}
}

func TestPeersDoNotTrustAChannelCredential(t *testing.T) {
	t.Parallel()
	a := openIn(t, newState(t))
	key, err := newKey()
	if err != nil {
		t.Fatal(err)
	}
	chain, err := a.IssueChannel(t.Context(), identity.Workload{Namespace: "production", Name: "orders"}, orders, key.Public(), 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := x509svid.Verify(chain, a); err == nil {
		t.Error("the mesh's bundle accepts it")
	}
	if _, _, err := x509svid.Verify([]*x509.Certificate{chain[0], a.ChannelRoot()}, a); err == nil {
		t.Error("the mesh's bundle accepts it with its authority")
	}
}

func TestIssueRefuses(t *testing.T) {
	t.Parallel()
	a := openIn(t, newState(t))
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	weak, _ := rsa.GenerateKey(rand.Reader, 1024)
	strong, _ := rsa.GenerateKey(rand.Reader, 2048)
	good, _ := newKey()
	for _, c := range []struct {
		name string
		id   identity.ID
		key  crypto.PublicKey
		want string
	}{
		{"nobody", identity.ID{}, good.Public(), "SPIFFE ID"},
		{"a trust domain", domain.ID(), good.Public(), "with a path"},
		{"another trust domain", spiffeid.RequireFromString("spiffe://evil.example/ns/production/sa/orders"), good.Public(), "not of the trust domain"},
		{"a longer name", spiffeid.RequireFromString("spiffe://cluster.local/" + strings.Repeat("a", 2048)), good.Public(), "2048"},
		{"P-224", orders, p224.Public(), "P-256"},
		{"RSA 1024", orders, weak.Public(), "P-256"},
		{"RSA 2048", orders, strong.Public(), "P-256"},
		{"no key", orders, nil, "P-256"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := a.Issue(t.Context(), Request{ID: c.id, Key: c.key})
			wantError(t, err, c.want)
			_, err = a.IssueChannel(t.Context(), identity.Workload{Namespace: "a", Name: "b"}, c.id, c.key, 0)
			wantError(t, err, c.want)
		})
	}
}

func TestKeyOfRequest(t *testing.T) {
	t.Parallel()
	key, _ := newKey()
	p384, _ := ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	p224, _ := ecdsa.GenerateKey(elliptic.P224(), rand.Reader)
	weak, _ := rsa.GenerateKey(rand.Reader, 1024)
	mine, foreign := orders.URL(), &url.URL{Scheme: "spiffe", Host: "cluster.local", Path: "/ns/production/sa/admin"}
	ext := func(id asn1.ObjectIdentifier, der any) x509.CertificateRequest {
		b, err := asn1.Marshal(der)
		if err != nil {
			t.Fatal(err)
		}
		return x509.CertificateRequest{ExtraExtensions: []pkix.Extension{{Id: id, Value: b}}}
	}
	san := func(names ...asn1.RawValue) x509.CertificateRequest { return ext(oidSAN, names) }
	uri := func(s string) asn1.RawValue {
		return asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 6, Bytes: []byte(s)}
	}
	for _, c := range []struct {
		name string
		key  crypto.Signer
		csr  x509.CertificateRequest
		want string // in the error; empty for none
	}{
		{"asks for nobody", key, x509.CertificateRequest{}, ""},
		{"asks for itself", key, x509.CertificateRequest{URIs: []*url.URL{mine}}, ""},
		{"P-384", p384, x509.CertificateRequest{}, ""},
		{"another identity", key, x509.CertificateRequest{URIs: []*url.URL{foreign}}, "may ask for"},
		{"two URIs", key, x509.CertificateRequest{URIs: []*url.URL{mine, foreign}}, "may ask for"},
		{"the same URI twice", key, x509.CertificateRequest{URIs: []*url.URL{mine, mine}}, "may ask for"},
		{"a DNS name beside it", key, x509.CertificateRequest{URIs: []*url.URL{mine}, DNSNames: []string{"evil.example"}}, "may ask for"},
		{"an address beside it", key, x509.CertificateRequest{URIs: []*url.URL{mine}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}}, "may ask for"},
		{"a mailbox beside it", key, x509.CertificateRequest{URIs: []*url.URL{mine}, EmailAddresses: []string{"a@evil.example"}}, "may ask for"},
		{"another trust domain", key, x509.CertificateRequest{URIs: []*url.URL{{Scheme: "spiffe", Host: "evil.example", Path: orders.Path()}}}, "may ask for"},
		{"a name that Go's parser skips", key, san(uri(orders.String()), asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 8, Bytes: []byte("x")}), "may ask for"},
		{"the identity as a DNS name", key, san(asn1.RawValue{Class: asn1.ClassContextSpecific, Tag: 2, Bytes: []byte(orders.String())}), "may ask for"},
		{"NUL after the identity", key, san(uri(orders.String() + "\x00.evil")), ""},
		{"no names at all", key, san(), "may ask for"},
		{"an authority", key, ext(asn1.ObjectIdentifier{2, 5, 29, 19}, struct{ CA bool }{true}), "not allowed"},
		{"key usage", key, ext(asn1.ObjectIdentifier{2, 5, 29, 15}, asn1.BitString{Bytes: []byte{6}, BitLength: 8}), "not allowed"},
		{"P-224", p224, x509.CertificateRequest{}, "P-256"},
		{"RSA 1024", weak, x509.CertificateRequest{}, "P-256"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			der, err := x509.CreateCertificateRequest(rand.Reader, &c.csr, c.key)
			if err != nil {
				t.Fatal(err)
			}
			got, err := KeyOfRequest(der, orders)
			if strings.HasPrefix(c.name, "NUL") {
				if err == nil {
					t.Error("accepted")
				}
				return
			}
			if c.want != "" {
				wantError(t, err, c.want)
				return
			}
			if pub, ok := got.(*ecdsa.PublicKey); !ok || err != nil || !pub.Equal(c.key.Public()) {
				t.Errorf("got %v, %v", got, err)
			}
		})
	}
}

func TestKeyOfRequestWantsProofOfPossession(t *testing.T) {
	t.Parallel()
	mine, _ := newKey()
	victim, _ := newKey()
	der, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, stolen{mine, victim.Public()})
	if err == nil {
		_, err = KeyOfRequest(der, orders)
		wantError(t, err, "does not hold the private key")
	}
	der, err = x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, mine)
	if err != nil {
		t.Fatal(err)
	}
	der[len(der)-1] ^= 1
	if _, err := KeyOfRequest(der, orders); err == nil {
		t.Error("a forged signature was accepted")
	}
	_, err = KeyOfRequest(make([]byte, MaxCSR+1), orders)
	wantError(t, err, "longer")
}

// stolen signs with one key and shows another.
type stolen struct {
	crypto.Signer
	shown crypto.PublicKey
}

func (s stolen) Public() crypto.PublicKey { return s.shown }

func TestInvalidIDsCannotBeMade(t *testing.T) {
	t.Parallel()
	for _, s := range []string{
		"spiffe://cluster.local/ns/../sa/a", "spiffe://cluster.local/ns/./a", "spiffe://cluster.local//a", "spiffe://cluster.local/a/",
		"spiffe://cluster.local/%2e%2e/a", "spiffe://CLUSTER.local/a", "spiffe://cluster.local/a\x00b", "spiffe://cluster.local/ä",
		"spiffe://cluster.local:80/a", "spiffe://user@cluster.local/a", "spiffe://cluster.local/a?b", "spiffe://cluster.local/a#b", "https://cluster.local/a", "spiffe:///a", "",
	} {
		if id, err := spiffeid.FromString(s); err == nil {
			t.Errorf("%q became %s", s, id)
		}
	}
	for _, sa := range []string{"", ".", "..", "a/b", "a%2fb", "ä", "a b"} {
		if id, err := identity.ForServiceAccount(domain, "production", sa); err == nil {
			t.Errorf("service account %q became %s", sa, id)
		}
	}
}

func TestSerialsDoNotRepeat(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for range 10_000 {
		s := newSerial()
		if s.Sign() <= 0 || s.BitLen() > 127 || seen[s.String()] {
			t.Fatalf("serial %s", s)
		}
		seen[s.String()] = true
	}
}

func TestSourceRotatesAtHalfLife(t *testing.T) {
	dir := newState(t)
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		s, err := NewSource(ctx, openIn(t, dir), Request{ID: identity.ServerID(domain)})
		if err != nil {
			t.Fatal(err)
		}
		done := make(chan error, 1)
		go func() { done <- s.Run(ctx) }()
		first, _ := s.GetX509SVID()
		<-time.After(29 * time.Minute)
		if again, _ := s.GetX509SVID(); again != first {
			t.Error("rotated before half of its life")
		}
		<-time.After(2 * time.Minute)
		synctest.Wait()
		select {
		case <-s.Updated():
		default:
			t.Error("nobody was told of the rotation")
		}
		if second, err := s.GetX509SVID(); err != nil || second == first {
			t.Errorf("not rotated: %v", err)
		}
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}
