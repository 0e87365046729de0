package jwks

import (
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"time"
)

// maxBody bounds every document in bytes.
const maxBody = 1 << 20

// maxRedirects bounds how often an issuer may send us elsewhere.
const maxRedirects = 3

// web fetches over HTTP and from files.
type web struct {
	mapped  map[string]Source
	guarded *http.Client // for places that policies name
}

func newWeb(mapped map[string]Source) *web {
	return &web{mapped: mapped, guarded: client(guardedDialer(), nil)}
}

// client has no proxy: one would connect for us, past the guard on addresses.
func client(d *net.Dialer, roots *x509.CertPool) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext: d.DialContext, TLSClientConfig: &tls.Config{RootCAs: roots, MinVersion: tls.VersionTLS12},
			DisableKeepAlives: true, MaxResponseHeaderBytes: 64 << 10, ForceAttemptHTTP2: true, TLSHandshakeTimeout: 5 * time.Second,
		},
		CheckRedirect: func(req *http.Request, via []*http.Request) error {
			if len(via) > maxRedirects {
				return fmt.Errorf("redirected more than %d times", maxRedirects)
			}
			if via[0].URL.Scheme == "https" && req.URL.Scheme != "https" {
				return errors.New("redirected away from https")
			}
			return nil
		},
	}
}

func (w *web) get(ctx context.Context, p place, tag string) ([]byte, string, error) {
	ctx, cancel := context.WithTimeout(ctx, p.timeout)
	defer cancel()
	if p.source != (Source{}) {
		return w.fromSource(ctx, p.source, tag)
	}
	uri := p.uri
	if p.discovered {
		found, err := w.discover(ctx, p)
		if err != nil {
			return nil, "", fmt.Errorf("OpenID discovery: %w", err)
		}
		if s, ok := w.mapped[found]; ok {
			return w.fromSource(ctx, s, tag)
		}
		uri = found
	}
	return fetch(ctx, w.guarded, uri, tag)
}

// fromSource reads keys from where an operator says that they are.
func (w *web) fromSource(ctx context.Context, s Source, tag string) ([]byte, string, error) {
	if s.File != "" {
		return readFile(s.File, tag)
	}
	var roots *x509.CertPool
	if s.CAFile != "" {
		pem, err := os.ReadFile(s.CAFile)
		if err != nil {
			return nil, "", err
		}
		roots = x509.NewCertPool()
		if !roots.AppendCertsFromPEM(pem) {
			return nil, "", fmt.Errorf("%s holds no certificate in PEM", s.CAFile)
		}
	}
	return fetch(ctx, client(&net.Dialer{}, roots), cmp.Or(s.URL, s.URI), tag)
}

func readFile(path, tag string) ([]byte, string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = f.Close() }() // only read
	b, err := bounded(f)
	if err != nil {
		return nil, "", fmt.Errorf("%s: %w", path, err)
	}
	sum := sha256.Sum256(b)
	now := hex.EncodeToString(sum[:])
	if now == tag {
		return nil, "", errUnchanged
	}
	return b, now, nil
}

// discover asks an issuer for its jwks_uri. OpenID Connect Discovery 1.0, section 4.3: the issuer in the answer must be the one that was asked.
func (w *web) discover(ctx context.Context, p place) (string, error) {
	b, _, err := fetch(ctx, w.guarded, p.uri, "")
	if err != nil {
		return "", err
	}
	var doc struct {
		Issuer  string `json:"issuer"`
		JWKSURI string `json:"jwks_uri"`
	}
	if err := json.Unmarshal(b, &doc); err != nil {
		return "", errors.New("the document is no JSON object")
	}
	if doc.Issuer != p.issuer {
		return "", fmt.Errorf("the document is of issuer %.200q, not of %q", doc.Issuer, p.issuer)
	}
	u, err := url.Parse(doc.JWKSURI)
	if err != nil || u.Scheme != "https" && u.Scheme != "http" {
		return "", errors.New("the document has no jwks_uri of https")
	}
	return doc.JWKSURI, nil
}

func fetch(ctx context.Context, c *http.Client, uri, tag string) ([]byte, string, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, uri, nil)
	if err != nil {
		return nil, "", err
	}
	req.Header.Set("Accept", "application/jwk-set+json, application/json")
	req.Header.Set("User-Agent", "credence")
	if tag != "" {
		req.Header.Set("If-None-Match", tag)
	}
	res, err := c.Do(req)
	if err != nil {
		return nil, "", err
	}
	defer func() { _ = res.Body.Close() }() // only read
	switch {
	case res.StatusCode == http.StatusNotModified && tag != "":
		return nil, "", errUnchanged
	case res.StatusCode != http.StatusOK:
		return nil, "", fmt.Errorf("it answered %d", res.StatusCode)
	}
	b, err := bounded(res.Body)
	return b, res.Header.Get("ETag"), err
}

func bounded(r io.Reader) ([]byte, error) {
	var b bytes.Buffer
	n, err := io.Copy(&b, io.LimitReader(r, maxBody+1))
	if err == nil && n > maxBody {
		err = fmt.Errorf("more than %d bytes", maxBody)
	}
	if err != nil {
		return nil, err
	}
	return b.Bytes(), nil
}
