package console

import (
	"context"
	"errors"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/snapshot"
)

type facts struct{ ready error }

func (facts) Status() Status {
	return Status{Version: "v1", Proxies: []snapshot.ProxyStatus{{Workload: "a/b"}}}
}
func (facts) Dump(_ context.Context, w identity.Workload) (snapshot.Dump, error) {
	if w.Name != "b" {
		return snapshot.Dump{}, ErrUnknown
	}
	return snapshot.Dump{Workload: "a/b", Resources: []snapshot.DumpResource{{Type: "lds"}}}, nil
}
func (f facts) Ready() error { return f.ready }

type levels map[string]string

func (l levels) Levels() map[string]string { return l }
func (l levels) Set(component, level string) error {
	if component == "nobody" {
		return errors.New("no component")
	}
	l[component] = level
	return nil
}

func TestAdmin(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, method, path, host string
		header                   string
		ready                    error
		status                   int
		body                     string
	}{
		{name: "health", path: "/healthz", status: 200, body: "ok"},
		{name: "ready", path: "/readyz", status: 200, body: "ready"},
		{name: "not ready", path: "/readyz", ready: errors.New("no configuration yet"), status: 503, body: "no configuration yet"},
		{name: "status", path: "/api/v1/status", status: 200, body: `"workload": "a/b"`},
		{name: "dump", path: "/api/v1/config-dump?workload=a/b", status: 200, body: `"lds"`},
		{name: "dump of nobody", path: "/api/v1/config-dump?workload=a/c", status: 404, body: "no workload a/c"},
		{name: "dump of what", path: "/api/v1/config-dump", status: 400, body: "NAMESPACE/NAME"},
		{name: "level", method: "PUT", path: "/api/v1/log-levels?component=xds&level=debug", status: 200, body: `"xds": "debug"`},
		{name: "level of nobody", method: "PUT", path: "/api/v1/log-levels?component=nobody&level=debug", status: 400, body: "no component"},
		{name: "a level is not set by reading", path: "/api/v1/log-levels?component=ca&level=debug", status: 200, body: "{"},
		{name: "metrics", path: "/metrics", status: 200},
		{name: "rebound name", path: "/api/v1/status", host: "evil.example:80", status: 421, body: "localhost"},
		{name: "address", path: "/healthz", host: "[::1]:80", status: 200, body: "ok"},
		{name: "another site", path: "/api/v1/status", header: "cross-site", status: 403, body: "other sites"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			method := tt.method
			if method == "" {
				method = http.MethodGet
			}
			r := httptest.NewRequest(method, tt.path, nil)
			r.Host = "127.0.0.1:15014"
			if tt.host != "" {
				r.Host = tt.host
			}
			if tt.header != "" {
				r.Header.Set("Sec-Fetch-Site", tt.header)
			}
			w := httptest.NewRecorder()
			Handler(facts{ready: tt.ready}, levels{}, prometheus.NewRegistry()).ServeHTTP(w, r)
			if w.Code != tt.status || !strings.Contains(w.Body.String(), tt.body) {
				t.Errorf("%d %s, want %d and %q", w.Code, w.Body, tt.status, tt.body)
			}
		})
	}
}

func TestListenStaysLocal(t *testing.T) {
	t.Parallel()
	for addr, ok := range map[string]bool{
		"127.0.0.1:0": true, "[::1]:0": false, "0.0.0.0:0": false, ":0": false, "example.com:0": false, "nonsense": false,
		"unix:" + t.TempDir() + "/a": true,
	} {
		l, err := Listen(addr)
		if err == nil {
			l.Close()
		}
		if strings.HasPrefix(addr, "[::1]") { // the machine may have no IPv6
			continue
		}
		if (err == nil) != ok {
			t.Errorf("Listen(%q): %v", addr, err)
		}
	}
}
