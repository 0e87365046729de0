package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// proxyDir is the state directory of a proxy that the mesh runs.
func (w *world) proxyDir(workload string) string {
	return filepath.Join(w.Dir, "proxies", strings.ReplaceAll(workload, "/", "_"))
}

// admin asks the admin interface of the Envoy of a workload.
func (w *world) admin(workload, path string) (string, error) {
	addr, err := os.ReadFile(filepath.Join(w.proxyDir(workload), "admin-address"))
	if err != nil {
		return "", err
	}
	at := strings.TrimSpace(string(addr))
	network := "tcp"
	if strings.HasPrefix(at, "/") {
		network = "unix"
	}
	c := http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, network, at)
		},
	}}
	req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "http://envoy"+path, nil)
	if err != nil {
		return "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err == nil && resp.StatusCode != http.StatusOK {
		err = fmt.Errorf("%s: %s", path, resp.Status)
	}
	return string(body), err
}

// stats sums the counters of an Envoy whose names match an expression.
func (w *world) stats(workload, expression string) int {
	w.t.Helper()
	body, err := w.admin(workload, "/stats?filter="+url.QueryEscape(expression))
	if err != nil {
		w.t.Fatal(err)
	}
	sum := 0
	for line := range strings.Lines(body) {
		if _, v, ok := strings.Cut(strings.TrimSpace(line), ": "); ok {
			if n, err := strconv.Atoi(v); err == nil {
				sum += n
			}
		}
	}
	return sum
}

// problem is one of what the control plane has to tell.
type problem struct {
	File, Object, Code, Severity, Says string
	Line                               int
}

type statusReport struct {
	Ready   bool
	Objects int
	Proxies []struct {
		Workload, Identity, Protocol string
		InStep                       bool
		CredentialExpires            time.Time
		Nack                         *struct{ Type, Says string }
	}
	Problems []problem
}

func (w *world) status() (statusReport, error) {
	var s statusReport
	err := w.Get(w.ctx, "/api/v1/status", &s)
	return s, err
}

// complains waits until the control plane tells of a problem with a code.
func (w *world) complains(code string) problem {
	w.t.Helper()
	var found problem
	w.until("a problem "+code, func() (bool, error) {
		s, err := w.status()
		for _, p := range s.Problems {
			if p.Code == code {
				found = p
				return true, nil
			}
		}
		return false, fmt.Errorf("problems: %v (%v)", s.Problems, err)
	})
	return found
}

// quiet fails the test where a proxy refused something or the control plane told of an error.
func (w *world) quiet() {
	w.t.Helper()
	s, err := w.status()
	if err != nil {
		w.t.Error(err)
	}
	for _, p := range s.Proxies {
		if p.Nack != nil {
			w.t.Errorf("%s refused %s: %s", p.Workload, p.Nack.Type, p.Nack.Says)
		}
	}
	for _, p := range s.Problems {
		if p.Severity == "error" {
			w.t.Errorf("problem: %+v", p)
		}
	}
}

// calm waits until the control plane has no error to tell.
func (w *world) calm() {
	w.t.Helper()
	w.until("the problems to be gone", func() (bool, error) {
		s, err := w.status()
		for _, p := range s.Problems {
			if p.Severity == "error" {
				return false, fmt.Errorf("%+v", p)
			}
		}
		return err == nil, err
	})
}
