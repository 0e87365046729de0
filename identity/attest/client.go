package attest

import (
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/attest/attestv1"
)

// Join exchanges a join token for the first credential of a proxy. The token says nothing to a server that cannot prove to be the control
// plane whose root the token names. A zero ttl leaves the lifetime to the server.
func Join(ctx context.Context, addr, text string, w identity.Workload, ttl time.Duration) (Credential, error) {
	t, err := parseToken(text)
	if err != nil {
		return Credential{}, err
	}
	key, csr, err := newRequest()
	if err != nil {
		return Credential{}, err
	}
	conn, err := dial(addr, clientTLS(t.verifyServer))
	if err != nil {
		return Credential{}, err
	}
	defer func() { _ = conn.Close() }()
	request := &attestv1.JoinRequest{Token: text, WorkloadNamespace: w.Namespace, WorkloadName: w.Name, Csr: csr}
	if ttl > 0 {
		request.Ttl = durationpb.New(ttl)
	}
	answer, err := attestv1.NewAttestationClient(conn).Join(ctx, request)
	if err != nil {
		return Credential{}, fmt.Errorf("join as %s at %s: %w", w, addr, err)
	}
	c, err := newCredential(answer.GetCredential(), key, w)
	if err != nil {
		return Credential{}, err
	}
	for _, root := range c.Bundle.X509Authorities() {
		if sha256.Sum256(root.Raw) == t.root {
			return c, nil
		}
	}
	return Credential{}, errors.New("the server's answer: its bundle lacks the root that the token names")
}

// Renew replaces a credential that is still valid. A zero ttl asks for as long a life as the old one had; more is never given.
func Renew(ctx context.Context, addr string, old Credential, ttl time.Duration) (Credential, error) {
	key, csr, err := newRequest()
	if err != nil {
		return Credential{}, err
	}
	conn, err := dial(addr, old.ClientTLS())
	if err != nil {
		return Credential{}, err
	}
	defer func() { _ = conn.Close() }()
	request := &attestv1.RenewRequest{Csr: csr}
	if ttl > 0 {
		request.Ttl = durationpb.New(ttl)
	}
	answer, err := attestv1.NewAttestationClient(conn).Renew(ctx, request)
	if err != nil {
		return Credential{}, fmt.Errorf("renew the credential of %s at %s: %w", old.Workload, addr, err)
	}
	return newCredential(answer.GetCredential(), key, old.Workload)
}

func dial(addr string, config *tls.Config) (*grpc.ClientConn, error) {
	return grpc.NewClient("passthrough:///"+addr, grpc.WithNoProxy(), grpc.WithTransportCredentials(credentials.NewTLS(config)))
}

// clientTLS verifies the server by its SPIFFE ID alone: host names prove nothing here.
func clientTLS(verify func([]*x509.Certificate) error) *tls.Config {
	return &tls.Config{
		MinVersion:             tls.VersionTLS13,
		InsecureSkipVerify:     true, // the check of host names; VerifyConnection below replaces it by a stricter one
		SessionTicketsDisabled: true,
		VerifyConnection:       func(cs tls.ConnectionState) error { return verify(cs.PeerCertificates) },
	}
}

// verifyServer finds the root that the token names in what the server shows, and then trusts nothing but it.
func (t token) verifyServer(certs []*x509.Certificate) error {
	for _, c := range certs {
		if sha256.Sum256(c.Raw) != t.root {
			continue
		}
		if len(c.URIs) != 1 {
			break
		}
		id, err := spiffeid.FromURI(c.URIs[0])
		if err != nil {
			return fmt.Errorf("the root that the token names: %w", err)
		}
		return verifyServer(certs, x509bundle.FromX509Authorities(id.TrustDomain(), []*x509.Certificate{c}))
	}
	return errors.New("this is not the control plane that the join token was made for: it does not show the root that the token names")
}

func verifyServer(certs []*x509.Certificate, bundle *x509bundle.Bundle) error {
	id, _, err := x509svid.Verify(certs, bundle)
	if err != nil {
		return err
	}
	if want := identity.ServerID(bundle.TrustDomain()); id != want {
		return fmt.Errorf("the server is %s, not %s", id, want)
	}
	return nil
}
