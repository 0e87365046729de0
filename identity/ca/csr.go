package ca

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/x509"
	"encoding/asn1"
	"errors"
	"fmt"

	"github.com/credence-mesh/credence/identity"
)

// MaxCSR bounds a certificate request in bytes of DER.
const MaxCSR = 8 << 10

var (
	errWeakKey = errors.New("the key must be ECDSA on P-256 or P-384")
	oidSAN     = asn1.ObjectIdentifier{2, 5, 29, 17}
)

// unmarshalAll refuses trailing data.
func unmarshalAll(der []byte, into any) error {
	rest, err := asn1.Unmarshal(der, into)
	if err == nil && len(rest) > 0 {
		err = errors.New("trailing data")
	}
	return err
}

// KeyOfRequest checks a certificate request (PKCS #10, DER) for an attested identity and gives its key. A request may name nobody, or
// exactly that identity; one that asks for anything else is refused, not trimmed: its sender is confused or hostile. Nothing but the key of
// a request is ever signed.
func KeyOfRequest(der []byte, id identity.ID) (crypto.PublicKey, error) {
	if len(der) > MaxCSR {
		return nil, fmt.Errorf("certificate request: longer than %d bytes", MaxCSR)
	}
	csr, err := x509.ParseCertificateRequest(der)
	if err != nil {
		return nil, errors.New("certificate request: not PKCS #10 in DER")
	}
	if err := checkKey(csr.PublicKey); err != nil {
		return nil, fmt.Errorf("certificate request: %w", err)
	}
	if err := csr.CheckSignature(); err != nil {
		return nil, errors.New("certificate request: its sender does not hold the private key")
	}
	for _, e := range csr.Extensions {
		if !e.Id.Equal(oidSAN) {
			return nil, fmt.Errorf("certificate request: the extension %s is not allowed", e.Id)
		}
		if err := checkNames(e.Value, id); err != nil {
			return nil, fmt.Errorf("certificate request: %w", err)
		}
	}
	return csr.PublicKey, nil
}

// checkNames reads the names itself: crypto/x509 skips those of kinds that it does not know.
func checkNames(der []byte, id identity.ID) error {
	var names []asn1.RawValue
	if err := unmarshalAll(der, &names); err != nil {
		return errors.New("malformed subjectAltName")
	}
	const uri = 6 // RFC 5280 4.2.1.6: uniformResourceIdentifier [6] IA5String
	if len(names) != 1 || names[0].Class != asn1.ClassContextSpecific || names[0].Tag != uri || string(names[0].Bytes) != id.String() {
		return fmt.Errorf("it may ask for %s only, by one URI", id)
	}
	return nil
}

func checkKey(key crypto.PublicKey) error {
	k, ok := key.(*ecdsa.PublicKey)
	if !ok || (k.Curve != elliptic.P256() && k.Curve != elliptic.P384()) {
		return errWeakKey
	}
	return nil
}
