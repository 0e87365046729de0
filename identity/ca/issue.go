package ca

import (
	"context"
	"crypto"
	"crypto/ecdsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"errors"
	"fmt"
	"net"
	"net/url"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/credence-mesh/credence/identity"
)

// maxID bounds a SPIFFE ID. SPIFFE-ID 2.3: "implementations MUST support SPIFFE URIs up to 2048 bytes in length and SHOULD NOT generate
// URIs of length greater than 2048 bytes".
const maxID = 2048

// Request is what an X.509-SVID is to say.
type Request struct {
	ID  identity.ID
	Key crypto.PublicKey // ECDSA on P-256 or P-384
	TTL time.Duration    // zero is DefaultTTL; it never outlives the authority
	DNS []string
	IPs []net.IP
}

// Issue signs an X.509-SVID. The result is the leaf and the intermediate, in the order of a TLS handshake.
func (a *Authority) Issue(ctx context.Context, r Request) ([]*x509.Certificate, error) {
	if err := a.checkID(r.ID); err != nil {
		return nil, err
	}
	by, err := a.current(ctx)
	if err != nil {
		return nil, fmt.Errorf("issue %s: %w", r.ID, err)
	}
	t := leaf(r.ID, r.TTL, by.cert)
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}
	t.DNSNames, t.IPAddresses = r.DNS, r.IPs
	cert, err := a.signLeaf(t, by, r.Key)
	if err != nil {
		return nil, err
	}
	return []*x509.Certificate{cert, by.cert}, nil
}

// IssueChannel signs a channel credential of one workload: with it, a proxy of that workload may talk to the control plane. Peers do not
// trust it.
func (a *Authority) IssueChannel(_ context.Context, w identity.Workload, id identity.ID, key crypto.PublicKey, ttl time.Duration) ([]*x509.Certificate, error) {
	if err := a.checkID(id); err != nil {
		return nil, err
	}
	if w.Namespace == "" || w.Name == "" {
		return nil, errors.New("a channel credential needs a workload")
	}
	t := leaf(id, ttl, a.channel.cert)
	t.Subject = pkix.Name{CommonName: w.String()}
	t.ExtKeyUsage = []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}
	cert, err := a.signLeaf(t, a.channel, key)
	if err != nil {
		return nil, err
	}
	return []*x509.Certificate{cert}, nil
}

// Mint makes a key and an X.509-SVID for it.
func (a *Authority) Mint(ctx context.Context, r Request) (*x509svid.SVID, error) {
	key, err := newKey()
	if err != nil {
		return nil, err
	}
	r.Key = &key.PublicKey
	chain, err := a.Issue(ctx, r)
	if err != nil {
		return nil, err
	}
	return &x509svid.SVID{ID: r.ID, Certificates: chain, PrivateKey: key}, nil
}

func (a *Authority) checkID(id identity.ID) error {
	switch {
	case id.IsZero() || id.Path() == "":
		return errors.New("issue: a workload's SPIFFE ID with a path is needed")
	case !id.MemberOf(a.domain):
		return fmt.Errorf("issue %s: it is not of the trust domain %s", id, a.domain.Name())
	case len(id.String()) > maxID:
		return fmt.Errorf("issue: a SPIFFE ID is at most %d bytes long", maxID)
	}
	return nil
}

// leaf is the template of an end-entity certificate, as X.509-SVID 3 and 4 want it: one URI, digitalSignature, not an authority.
func leaf(id identity.ID, ttl time.Duration, by *x509.Certificate) *x509.Certificate {
	if ttl <= 0 {
		ttl = DefaultTTL
	}
	now := time.Now()
	t := &x509.Certificate{
		SerialNumber:          newSerial(),
		Subject:               pkix.Name{Organization: []string{"Credence"}},
		URIs:                  []*url.URL{id.URL()},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(ttl),
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageDigitalSignature,
	}
	if t.NotAfter.After(by.NotAfter) {
		t.NotAfter = by.NotAfter
	}
	return t
}

func (a *Authority) signLeaf(t *x509.Certificate, by signer, key crypto.PublicKey) (*x509.Certificate, error) {
	if err := checkKey(key); err != nil {
		return nil, err
	}
	if !t.NotAfter.After(time.Now()) {
		return nil, fmt.Errorf("issue: the authority ended on %s", by.cert.NotAfter.Format(time.DateOnly))
	}
	pub, ok := key.(*ecdsa.PublicKey)
	if !ok {
		return nil, errWeakKey
	}
	var err error
	if t.SubjectKeyId, err = keyID(pub); err != nil {
		return nil, err
	}
	return sign(t, by, pub)
}
