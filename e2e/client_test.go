package e2e

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/credence-mesh/credence/internal/echo"
)

// ask is a request; path goes out as it stands.
type ask struct {
	method, path, host, token string
	header                    map[string]string
	body                      []byte
}

// answer is what came back; err is a connection that was refused or broken.
type answer struct {
	status int
	header http.Header
	body   string
	seen   echo.Seen
	err    error
}

// client talks to one address, keeping connections alive.
type client struct {
	base string
	http *http.Client
}

func dial(base string, cfg *tls.Config) *client {
	t := &http.Transport{TLSClientConfig: cfg, MaxIdleConnsPerHost: 64, DisableCompression: true}
	return &client{base: base, http: &http.Client{
		Transport: t, Timeout: 15 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}}
}

func (c *client) do(ctx context.Context, a ask) answer {
	if a.method == "" {
		a.method = http.MethodGet
	}
	base, err := url.Parse(c.base)
	if err != nil {
		return answer{err: err}
	}
	req, err := http.NewRequestWithContext(ctx, a.method, c.base, bytes.NewReader(a.body))
	if err != nil {
		return answer{err: err}
	}
	req.URL = &url.URL{Scheme: base.Scheme, Host: base.Host, Opaque: a.path}
	req.Host = a.host
	if a.token != "" {
		req.Header.Set("Authorization", "Bearer "+a.token)
	}
	for k, v := range a.header {
		req.Header.Set(k, v)
	}
	resp, err := c.http.Do(req)
	if err != nil {
		return answer{err: err}
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	out := answer{status: resp.StatusCode, header: resp.Header, body: string(body), err: err}
	if json.Valid(body) {
		_ = json.Unmarshal(body, &out.seen) // an answer of another form leaves it empty
	}
	return out
}

// expect asks and wants a status.
func (w *world) expect(c *client, a ask, status int) answer {
	w.t.Helper()
	got := c.do(w.ctx, a)
	if got.err != nil || got.status != status {
		w.t.Errorf("%s %s%s (host %q): %d %s (%v), want %d", a.method, c.base, a.path, a.host, got.status, got.body, got.err, status)
	}
	return got
}

// svid mints an SVID and gives the TLS configuration of a peer that shows it and accepts any peer of the mesh.
func (w *world) svid(id string) *tls.Config {
	w.t.Helper()
	out := filepath.Join(w.t.TempDir(), "svid")
	if _, err := w.Run(w.ctx, "svid", "mint", "--state", w.State(), "--spiffe-id", id, "--out", out); err != nil {
		w.t.Fatal(err)
	}
	return peerConfig(w.t, out)
}

func peerConfig(t *testing.T, dir string) *tls.Config {
	t.Helper()
	pair, err := tls.LoadX509KeyPair(filepath.Join(dir, "svid.pem"), filepath.Join(dir, "key.pem"))
	if err != nil {
		t.Fatal(err)
	}
	bundle, err := os.ReadFile(filepath.Join(dir, "bundle.pem"))
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(bundle)
	return &tls.Config{
		Certificates: []tls.Certificate{pair}, MinVersion: tls.VersionTLS12,
		InsecureSkipVerify: true, // SVIDs have no DNS names: the chain is verified below
		VerifyConnection: func(s tls.ConnectionState) error {
			between := x509.NewCertPool()
			for _, c := range s.PeerCertificates[1:] {
				between.AddCert(c)
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: roots, Intermediates: between})
			return err
		},
	}
}
