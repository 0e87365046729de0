package ca

import (
	"crypto/rand"
	"crypto/x509"
	"net/url"
	"testing"
)

// What parses is a signer that works, and is written as it was read.
func FuzzParse(f *testing.F) {
	root, err := newRoot(domain)
	if err != nil {
		f.Fatal(err)
	}
	b, err := root.encode()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(b)
	f.Add(b[:len(b)/2])
	f.Add(append(b, b...))
	f.Add([]byte("-----BEGIN PRIVATE KEY-----\n-----END PRIVATE KEY-----\n"))
	f.Fuzz(func(t *testing.T, in []byte) {
		s, err := parse(in)
		if err != nil {
			return
		}
		if !s.cert.IsCA {
			t.Error("an end entity was read as an authority")
		}
		out, err := s.encode()
		if err != nil {
			t.Fatal(err)
		}
		again, err := parse(out)
		if err != nil || !again.key.Equal(s.key) || !again.cert.Equal(s.cert) {
			t.Errorf("it does not survive being written: %v", err)
		}
	})
}

// Whatever is accepted asks for at most the attested identity.
func FuzzKeyOfRequest(f *testing.F) {
	key, err := newKey()
	if err != nil {
		f.Fatal(err)
	}
	for _, c := range []x509.CertificateRequest{{}, {URIs: []*url.URL{orders.URL()}}, {DNSNames: []string{"a"}}} {
		der, err := x509.CreateCertificateRequest(rand.Reader, &c, key)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(der)
	}
	f.Fuzz(func(t *testing.T, der []byte) {
		got, err := KeyOfRequest(der, orders)
		if err != nil {
			return
		}
		csr, err := x509.ParseCertificateRequest(der)
		if err != nil || csr.CheckSignature() != nil || checkKey(got) != nil {
			t.Fatal("accepted without proof of possession, or with a weak key")
		}
		if len(csr.DNSNames)+len(csr.IPAddresses)+len(csr.EmailAddresses) > 0 || len(csr.URIs) > 1 || (len(csr.URIs) == 1 && csr.URIs[0].String() != orders.String()) {
			t.Error("accepted other names")
		}
	})
}
