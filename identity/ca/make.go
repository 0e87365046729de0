package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/asn1"
	"fmt"
	"math/big"
	"net/url"
	"time"

	"github.com/credence-mesh/credence/identity"
)

func newKey() (*ecdsa.PrivateKey, error) { return ecdsa.GenerateKey(elliptic.P256(), rand.Reader) }

// newSerial is random: 127 bits, because the first bit of a positive DER integer is zero.
func newSerial() *big.Int {
	var b [16]byte
	rand.Read(b[:]) // crypto/rand.Read never fails: it ends the process first
	b[0] = b[0]&0x7f | 0x40
	return new(big.Int).SetBytes(b[:])
}

// newRoot makes the root of a mesh.
func newRoot(td identity.TrustDomain) (signer, error) {
	t := authority("mesh root", RootTTL)
	t.URIs = []*url.URL{td.ID().URL()}
	t.MaxPathLen = 1
	return newSigner(t, signer{})
}

// newChannel makes the channel authority. It has no SPIFFE ID: it is no authority of the trust domain.
func newChannel() (signer, error) {
	t := authority("channel authority", RootTTL)
	t.MaxPathLenZero = true
	return newSigner(t, signer{})
}

func newIntermediate(td identity.TrustDomain, root signer) (signer, error) {
	t := authority("mesh intermediate", IntermediateTTL)
	t.URIs = []*url.URL{td.ID().URL()}
	t.MaxPathLenZero = true
	return newSigner(t, root)
}

// authority is the template of a signing certificate. Its subject carries its serial: many authorities of one name slow down every
// verification, because subjects are how issuers are looked up.
func authority(name string, ttl time.Duration) *x509.Certificate {
	now := time.Now()
	serial := newSerial()
	return &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"Credence"}, CommonName: name + " " + serial.Text(16)[:16]},
		NotBefore:             now.Add(-Backdate),
		NotAfter:              now.Add(ttl),
		IsCA:                  true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign | x509.KeyUsageCRLSign,
	}
}

// newSigner makes a signing certificate, self-signed where no parent is given.
func newSigner(t *x509.Certificate, parent signer) (signer, error) {
	key, err := newKey()
	if err != nil {
		return signer{}, err
	}
	if parent.cert == nil {
		parent = signer{cert: t, key: key}
	} else if t.NotAfter.After(parent.cert.NotAfter) {
		t.NotAfter = parent.cert.NotAfter
	}
	if t.SubjectKeyId, err = keyID(&key.PublicKey); err != nil {
		return signer{}, err
	}
	cert, err := sign(t, parent, &key.PublicKey)
	if err != nil {
		return signer{}, err
	}
	return signer{cert: cert, key: key}, nil
}

func sign(t *x509.Certificate, by signer, key crypto.PublicKey) (*x509.Certificate, error) {
	der, err := x509.CreateCertificate(rand.Reader, t, by.cert, key, by.key)
	if err != nil {
		return nil, fmt.Errorf("sign %s: %w", t.Subject, err)
	}
	return x509.ParseCertificate(der)
}

// keyID is RFC 7093 method 1: the first 160 bits of SHA-256 of the public key.
func keyID(pub crypto.PublicKey) ([]byte, error) {
	der, err := x509.MarshalPKIXPublicKey(pub)
	if err != nil {
		return nil, err
	}
	var info struct {
		Algorithm pkix.AlgorithmIdentifier
		Key       asn1.BitString
	}
	if err := unmarshalAll(der, &info); err != nil {
		return nil, err
	}
	sum := sha256.Sum256(info.Key.RightAlign())
	return sum[:20], nil
}
