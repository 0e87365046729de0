package e2e

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"math/big"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/credence-mesh/credence/identity/state"
	"github.com/credence-mesh/credence/proxy"
)

// stolen is an authority of the state directory, in the hands of a test: it signs what the product never would.
type stolen struct {
	cert  *x509.Certificate
	key   crypto.Signer
	chain [][]byte // what a leaf needs beside itself
}

func (w *world) steal(file string) stolen {
	w.t.Helper()
	raw, err := os.ReadFile(filepath.Join(w.State(), file))
	if err != nil {
		w.t.Fatal(err)
	}
	var s stolen
	for block, rest := pem.Decode(raw); block != nil; block, rest = pem.Decode(rest) {
		if block.Type == "CERTIFICATE" {
			if s.cert, err = x509.ParseCertificate(block.Bytes); err != nil {
				w.t.Fatal(err)
			}
			continue
		}
		key, err := x509.ParsePKCS8PrivateKey(block.Bytes)
		if err != nil {
			w.t.Fatal(err)
		}
		s.key = key.(crypto.Signer)
	}
	if s.cert == nil || s.key == nil {
		w.t.Fatalf("%s holds no authority", file)
	}
	s.chain = [][]byte{s.cert.Raw}
	return s
}

// sign makes a certificate with these URIs, valid for an hour unless a change says otherwise.
func (s stolen) sign(t *testing.T, uris []string, changes ...func(*x509.Certificate)) tls.Certificate {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(time.Now().UnixNano()), NotBefore: time.Now().Add(-time.Minute), NotAfter: time.Now().Add(time.Hour),
		KeyUsage: x509.KeyUsageDigitalSignature, BasicConstraintsValid: true,
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	for _, u := range uris {
		parsed, err := url.Parse(u)
		if err != nil {
			t.Fatal(err)
		}
		template.URIs = append(template.URIs, parsed)
	}
	for _, change := range changes {
		change(template)
	}
	der, err := x509.CreateCertificate(rand.Reader, template, s.cert, key.Public(), s.key)
	if err != nil {
		t.Fatal(err)
	}
	return tls.Certificate{Certificate: append([][]byte{der}, s.chain...), PrivateKey: key}
}

// showing is a client that shows a certificate and asks nothing of the server's: the server is to refuse it.
func showing(c ...tls.Certificate) *tls.Config {
	return &tls.Config{InsecureSkipVerify: true, Certificates: c, MinVersion: tls.VersionTLS12}
}

// channelCredential is the certificate by which the proxy of a workload reaches the control plane.
func (w *world) channelCredential(workload string) tls.Certificate {
	w.t.Helper()
	dir, err := state.Open(w.proxyDir(workload))
	if err != nil {
		w.t.Fatal(err)
	}
	c, err := proxy.ReadSDS(dir)
	if err != nil {
		w.t.Fatal(err)
	}
	out := tls.Certificate{PrivateKey: c.Key}
	for _, cert := range c.Chain {
		out.Certificate = append(out.Certificate, cert.Raw)
	}
	return out
}
