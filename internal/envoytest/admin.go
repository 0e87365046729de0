package envoytest

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"
)

// one client for all: connections to admin interfaces are not kept, so that goroutine-leak checks stay quiet.
var adminClient = http.Client{Transport: &http.Transport{DisableKeepAlives: true}, Timeout: 10 * time.Second}

func (e *Envoy) admin(ctx context.Context, method, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://"+e.Admin+path, nil)
	if err != nil {
		return "", err
	}
	res, err := adminClient.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("%s %s: %s: %.200s", method, path, res.Status, body)
	}
	return string(body), nil
}

// Get is the answer of the admin interface, for example to "/clusters?format=json".
func (e *Envoy) Get(t testing.TB, path string) string {
	t.Helper()
	body, err := e.admin(t.Context(), http.MethodGet, path)
	if err != nil {
		t.Fatal(e.alive(err))
	}
	return body
}

// Post changes something over the admin interface, for example "/drain_listeners?graceful".
func (e *Envoy) Post(t testing.TB, path string) string {
	t.Helper()
	body, err := e.admin(t.Context(), http.MethodPost, path)
	if err != nil {
		t.Fatal(e.alive(err))
	}
	return body
}

// ConfigDump is /config_dump with endpoints and secrets (whose keys Envoy redacts).
func (e *Envoy) ConfigDump(t testing.TB) string {
	t.Helper()
	return e.Get(t, "/config_dump?include_eds")
}

// Clusters is /clusters.
func (e *Envoy) Clusters(t testing.TB) string {
	t.Helper()
	return e.Get(t, "/clusters")
}

// Stat is one counter or gauge by its full name; 0 where Envoy has none of that name.
func (e *Envoy) Stat(t testing.TB, name string) int64 {
	t.Helper()
	v, err := e.stat(t.Context(), name)
	if err != nil {
		t.Fatal(e.alive(err))
	}
	return v
}

func (e *Envoy) stat(ctx context.Context, name string) (int64, error) {
	body, err := e.admin(ctx, http.MethodGet, "/stats?filter="+url.QueryEscape("^"+regexp.QuoteMeta(name)+"$"))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(body) {
		if n, v, ok := strings.Cut(strings.TrimSpace(line), ": "); ok && n == name {
			return strconv.ParseInt(v, 10, 64)
		}
	}
	return 0, nil
}

// WaitStat waits until a counter or gauge is at least n.
func (e *Envoy) WaitStat(t testing.TB, name string, n int64) {
	t.Helper()
	Eventually(t, fmt.Sprintf("%s reaches %d", name, n), func() error {
		v, err := e.stat(t.Context(), name)
		if err == nil && v < n {
			err = fmt.Errorf("it is %d", v)
		}
		return e.alive(err)
	})
}

// Listener is the host:port that a listener really has, also where it was configured with port 0.
func (e *Envoy) Listener(t testing.TB, name string) string {
	t.Helper()
	var addr string
	Eventually(t, "listener "+name, func() error {
		var err error
		addr, err = e.listener(t.Context(), name)
		return e.alive(err)
	})
	return addr
}

func (e *Envoy) listener(ctx context.Context, name string) (string, error) {
	body, err := e.admin(ctx, http.MethodGet, "/listeners?format=json")
	if err != nil {
		return "", err
	}
	var all struct {
		Statuses []struct {
			Name    string `json:"name"`
			Address struct {
				Socket struct {
					Address string `json:"address"`
					Port    int    `json:"port_value"`
				} `json:"socket_address"`
			} `json:"local_address"`
		} `json:"listener_statuses"`
	}
	if err := json.Unmarshal([]byte(body), &all); err != nil {
		return "", err
	}
	for _, l := range all.Statuses {
		if l.Name == name {
			return net.JoinHostPort(l.Address.Socket.Address, strconv.Itoa(l.Address.Socket.Port)), nil
		}
	}
	return "", fmt.Errorf("there is none of this name: %s", body)
}
