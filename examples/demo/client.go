package demo

import (
	"bytes"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"time"

	"github.com/credence-mesh/credence/internal/echo"
)

// answer is what came back.
type answer struct {
	status int
	header http.Header
	echo   echo.Seen // what the back end received, where one answered
}

func (a answer) code() string { return strconv.Itoa(a.status) }

// client sends requests as a stranger would: what it is given goes out as it is, without cleaning of paths.
type client struct {
	http *http.Client
	base string // scheme://host:port
}

func newClient(base string, roots *x509.CertPool) *client {
	t := &http.Transport{
		TLSClientConfig:     &tls.Config{RootCAs: roots, ServerName: "localhost", MinVersion: tls.VersionTLS12},
		MaxIdleConnsPerHost: 64,
		DisableCompression:  true,
	}
	return &client{http: &http.Client{Transport: t, Timeout: 10 * time.Second, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}, base: base}
}

// ask is a request: method and raw path, then what is changed of it.
type ask struct {
	method string
	path   string // sent as it stands
	host   string
	token  string
	header map[string]string
	body   []byte
}

func (c *client) do(ctx context.Context, a ask) (answer, error) {
	if a.method == "" {
		a.method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(ctx, a.method, c.base, bytes.NewReader(a.body))
	if err != nil {
		return answer{}, err
	}
	base, err := url.Parse(c.base)
	if err != nil {
		return answer{}, err
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
		return answer{}, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 4<<20))
	if err != nil {
		return answer{}, err
	}
	out := answer{status: resp.StatusCode, header: resp.Header}
	if resp.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, &out.echo); err != nil {
			return out, fmt.Errorf("the back end's answer: %w", err)
		}
	}
	return out, nil
}

// refused tells a connection that was closed on us from an answer.
func refused(err error) bool {
	var op interface{ Timeout() bool }
	return err != nil && (!errors.As(err, &op) || !op.Timeout())
}
