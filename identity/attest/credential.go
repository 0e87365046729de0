package attest

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/attest/attestv1"
	"github.com/credence-mesh/credence/identity/ca"
)

// Credential opens the channel to the control plane, as one workload.
type Credential struct {
	Workload identity.Workload
	ID       identity.ID
	Chain    []*x509.Certificate // leaf first
	Key      crypto.Signer
	Bundle   *x509bundle.Bundle // what the server's certificate is verified by
}

// ServerID is whom the holder of the credential talks to.
func (c Credential) ServerID() identity.ID { return identity.ServerID(c.ID.TrustDomain()) }

// NotAfter is when the credential ends.
func (c Credential) NotAfter() time.Time { return c.Chain[0].NotAfter }

// RenewAt is when a supervised proxy renews it: half of its life.
func (c Credential) RenewAt() time.Time { return ca.HalfLife(c.Chain[0]) }

// newCredential checks what the server answered: it is for our key, and for the workload that we are.
func newCredential(answer *attestv1.Credential, key crypto.Signer, w identity.Workload) (Credential, error) {
	c := Credential{Key: key}
	for _, der := range answer.GetChain() {
		cert, err := x509.ParseCertificate(der)
		if err != nil {
			return Credential{}, fmt.Errorf("the server's answer: %w", err)
		}
		c.Chain = append(c.Chain, cert)
	}
	var roots []*x509.Certificate
	for _, der := range answer.GetBundle() {
		root, err := x509.ParseCertificate(der)
		if err != nil {
			return Credential{}, fmt.Errorf("the server's answer: %w", err)
		}
		roots = append(roots, root)
	}
	if err := c.complete(roots); err != nil {
		return Credential{}, fmt.Errorf("the server's answer: %w", err)
	}
	if c.Workload != w {
		return Credential{}, fmt.Errorf("the server's answer: a credential of %s, not of %s", c.Workload, w)
	}
	return c, nil
}

// complete derives and checks everything from the chain, the key and the roots.
func (c *Credential) complete(roots []*x509.Certificate) error {
	if len(c.Chain) == 0 || len(roots) == 0 || c.Key == nil {
		return errors.New("a chain, a key and a bundle are needed")
	}
	pub, ok := c.Chain[0].PublicKey.(*ecdsa.PublicKey)
	if !ok || !pub.Equal(c.Key.Public()) {
		return errors.New("the key does not belong to the certificate")
	}
	var err error
	if c.ID, err = x509svid.IDFromCert(c.Chain[0]); err != nil {
		return err
	}
	if c.Workload, err = workloadOf(c.Chain[0]); err != nil {
		return err
	}
	c.Bundle = x509bundle.FromX509Authorities(c.ID.TrustDomain(), roots)
	return nil
}

// ChainPEM is the certificate chain.
func (c Credential) ChainPEM() []byte { return certsPEM(c.Chain) }

// KeyPEM is the private key, PKCS #8. It must not be shown or logged.
func (c Credential) KeyPEM() ([]byte, error) {
	der, err := x509.MarshalPKCS8PrivateKey(c.Key)
	if err != nil {
		return nil, err
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der}), nil
}

// BundlePEM is the roots of the mesh.
func (c Credential) BundlePEM() []byte { return certsPEM(c.Bundle.X509Authorities()) }

func certsPEM(certs []*x509.Certificate) []byte {
	var b bytes.Buffer
	for _, c := range certs {
		b.Write(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Raw}))
	}
	return b.Bytes()
}

// ParseCredential reads a credential from PEM, as a bootstrap holds it.
func ParseCredential(chain, key, bundle []byte) (Credential, error) {
	svid, err := x509svid.Parse(chain, key) // also that the key belongs to the certificate
	if err != nil {
		return Credential{}, errors.New("channel credential: the chain or the key cannot be read")
	}
	roots, err := x509bundle.Parse(spiffeid.TrustDomain{}, bundle)
	if err != nil {
		return Credential{}, errors.New("channel credential: the bundle cannot be read")
	}
	c := Credential{Chain: svid.Certificates, Key: svid.PrivateKey}
	if err := c.complete(roots.X509Authorities()); err != nil {
		return Credential{}, fmt.Errorf("channel credential: %w", err)
	}
	return c, nil
}

// ClientTLS is how the holder of the credential connects to the control plane: nobody else is taken for it.
func (c Credential) ClientTLS() *tls.Config {
	cert := tls.Certificate{PrivateKey: c.Key, Leaf: c.Chain[0]}
	for _, x := range c.Chain {
		cert.Certificate = append(cert.Certificate, x.Raw)
	}
	config := clientTLS(func(certs []*x509.Certificate) error { return verifyServer(certs, c.Bundle) })
	config.Certificates = []tls.Certificate{cert}
	return config
}

func newRequest() (crypto.Signer, []byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, nil, err
	}
	csr, err := x509.CreateCertificateRequest(rand.Reader, &x509.CertificateRequest{}, key)
	return key, csr, err
}
