package ca

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/state"
)

const (
	keyBlock  = "PRIVATE KEY"
	certBlock = "CERTIFICATE"
)

func load(dir *state.Dir, name string) (signer, error) {
	b, err := dir.Read(name)
	if err != nil {
		return signer{}, err
	}
	s, err := parse(b)
	if err != nil {
		return signer{}, fmt.Errorf("%s: %w", name, err)
	}
	return s, nil
}

func store(dir *state.Dir, name string, s signer) error {
	b, err := s.encode()
	if err != nil {
		return err
	}
	return dir.Write(name, b)
}

func (s signer) encode() ([]byte, error) {
	key, err := x509.MarshalPKCS8PrivateKey(s.key)
	if err != nil {
		return nil, err
	}
	return append(pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: key}),
		pem.EncodeToMemory(&pem.Block{Type: certBlock, Bytes: s.cert.Raw})...), nil
}

// parse reads one private key and the one certificate that belongs to it, and nothing else. Its errors never quote the input.
func parse(b []byte) (signer, error) {
	var s signer
	for len(bytes.TrimSpace(b)) > 0 {
		block, rest := pem.Decode(b)
		if block == nil {
			return signer{}, errors.New("not PEM")
		}
		b = rest
		var err error
		switch {
		case block.Type == keyBlock && s.key == nil:
			s.key, err = parseKey(block.Bytes)
		case block.Type == certBlock && s.cert == nil:
			s.cert, err = x509.ParseCertificate(block.Bytes)
		default:
			err = errors.New("more than one private key and one certificate")
		}
		if err != nil {
			return signer{}, err
		}
	}
	if s.key == nil || s.cert == nil {
		return signer{}, errors.New("a private key and a certificate are needed")
	}
	return s, s.check()
}

func parseKey(der []byte) (*ecdsa.PrivateKey, error) {
	key, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return nil, errors.New("the private key is not PKCS #8")
	}
	k, ok := key.(*ecdsa.PrivateKey)
	if !ok || k.Curve != elliptic.P256() {
		return nil, errors.New("the private key is not an ECDSA P-256 key")
	}
	return k, nil
}

func (s signer) check() error {
	pub, ok := s.cert.PublicKey.(*ecdsa.PublicKey)
	switch {
	case !ok || !pub.Equal(&s.key.PublicKey):
		return errors.New("the private key does not belong to the certificate")
	case !s.cert.BasicConstraintsValid || !s.cert.IsCA || s.cert.KeyUsage&x509.KeyUsageCertSign == 0:
		return errors.New("the certificate may not sign others")
	}
	return nil
}

func checkSelfSigned(c *x509.Certificate) error {
	if err := c.CheckSignatureFrom(c); err != nil {
		return fmt.Errorf("the certificate is not a root: %w", err)
	}
	if time.Now().After(c.NotAfter) {
		return fmt.Errorf("the certificate ended on %s", c.NotAfter.Format(time.DateOnly))
	}
	return nil
}

// checkRoot gives the trust domain of a mesh root. X.509-SVID 4.1: the SPIFFE ID of a signing certificate has no path.
func checkRoot(c *x509.Certificate) (identity.TrustDomain, error) {
	if err := checkSelfSigned(c); err != nil {
		return identity.TrustDomain{}, err
	}
	if len(c.URIs) != 1 {
		return identity.TrustDomain{}, errors.New("the root must have one URI, that of its trust domain")
	}
	id, err := spiffeid.FromURI(c.URIs[0])
	if err != nil {
		return identity.TrustDomain{}, fmt.Errorf("the root's trust domain: %w", err)
	}
	if id.Path() != "" {
		return identity.TrustDomain{}, errors.New("the root's SPIFFE ID must not have a path")
	}
	return id.TrustDomain(), nil
}
