package attest

import (
	"crypto/x509"
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/credence-mesh/credence/identity"
)

// maxChain bounds what a client may make us verify.
const maxChain = 6

// Trust decides who a client is by the certificates that it shows.
type Trust struct {
	Domain  identity.TrustDomain
	Mesh    x509bundle.Source          // the roots of the mesh, asked for at every handshake
	Channel func() []*x509.Certificate // the roots of channel credentials, likewise
	Revoked func(identity.Proven) bool // nil where nothing is ever revoked
}

// Verify gives what the holder of a chain, leaf first, has proved: a channel credential pins a workload, an X.509-SVID of the mesh says an
// ID. Everything else is an error.
func (t Trust) Verify(chain []*x509.Certificate) (identity.Proven, error) {
	if len(chain) == 0 || len(chain) > maxChain {
		return identity.Proven{}, fmt.Errorf("client certificate: a chain of 1 to %d certificates is needed", maxChain)
	}
	leaf := chain[0]
	id, err := x509svid.IDFromCert(leaf) // exactly one URI, a well-formed SPIFFE ID
	if err != nil {
		return identity.Proven{}, fmt.Errorf("client certificate: %w", err)
	}
	if err := t.checkLeaf(leaf, id); err != nil {
		return identity.Proven{}, fmt.Errorf("client certificate of %s: %w", id, err)
	}
	p := identity.Proven{ID: id, Serial: leaf.SerialNumber.Text(16), NotAfter: leaf.NotAfter}
	if t.isChannel(leaf) {
		if p.Workload, err = workloadOf(leaf); err != nil {
			return identity.Proven{}, fmt.Errorf("client certificate of %s: %w", id, err)
		}
	} else if _, _, err := x509svid.Verify(chain, t.Mesh); err != nil {
		return identity.Proven{}, fmt.Errorf("client certificate of %s: %w", id, err)
	}
	if t.Revoked != nil && t.Revoked(p) {
		return identity.Proven{}, fmt.Errorf("client certificate of %s: it was revoked", id)
	}
	return p, nil
}

// checkLeaf checks what X.509-SVID 4 and 5 say of a leaf and x509svid.Verify does not.
func (t Trust) checkLeaf(leaf *x509.Certificate, id identity.ID) error {
	now := time.Now()
	switch {
	case t.Domain.IsZero() || !id.MemberOf(t.Domain):
		return fmt.Errorf("it is not of the trust domain %s", t.Domain.Name())
	case id.Path() == "":
		return errors.New("a SPIFFE ID without a path names no workload")
	case leaf.IsCA || leaf.KeyUsage&(x509.KeyUsageCertSign|x509.KeyUsageCRLSign) != 0:
		return errors.New("it is an authority's")
	case leaf.KeyUsage&x509.KeyUsageDigitalSignature == 0:
		return errors.New("its key is not for signatures")
	case !slices.Contains(leaf.ExtKeyUsage, x509.ExtKeyUsageClientAuth):
		return errors.New("it is not for TLS clients")
	case now.After(leaf.NotAfter):
		return fmt.Errorf("it ended at %s", leaf.NotAfter.Format(time.RFC3339))
	case now.Before(leaf.NotBefore):
		return fmt.Errorf("it begins at %s: check the clocks", leaf.NotBefore.Format(time.RFC3339))
	}
	return nil
}

// isChannel tells whether the channel authority signed leaf. It signs end entities directly: no intermediate of the client's is used.
func (t Trust) isChannel(leaf *x509.Certificate) bool {
	pool := x509.NewCertPool()
	for _, c := range t.Channel() {
		pool.AddCert(c)
	}
	_, err := leaf.Verify(x509.VerifyOptions{Roots: pool, KeyUsages: []x509.ExtKeyUsage{x509.ExtKeyUsageClientAuth}})
	return err == nil
}

// workloadOf reads the workload that a channel credential was issued for. The channel authority alone writes this name.
func workloadOf(leaf *x509.Certificate) (identity.Workload, error) {
	ns, name, ok := strings.Cut(leaf.Subject.CommonName, "/")
	if !ok || ns == "" || name == "" || strings.Contains(name, "/") {
		return identity.Workload{}, errors.New("a channel credential without a workload")
	}
	return identity.Workload{Namespace: ns, Name: name}, nil
}
