package proxy

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"strconv"
	"strings"
	"time"
)

// admin is Envoy's admin interface.
type admin struct {
	file   string // where Envoy writes its address: --admin-address-path
	client http.Client
}

func newAdmin(file string) *admin {
	a := &admin{file: file}
	a.client = http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{DisableKeepAlives: true, DialContext: a.dial}}
	return a
}

// dial ignores the address of the request: there is one Envoy.
func (a *admin) dial(ctx context.Context, _, _ string) (net.Conn, error) {
	b, err := os.ReadFile(a.file)
	if err != nil {
		return nil, fmt.Errorf("envoy's admin interface is not open: %w", err)
	}
	addr := strings.TrimSpace(string(b))
	network := "tcp"
	if strings.HasPrefix(addr, "/") {
		network = "unix"
	}
	return new(net.Dialer).DialContext(ctx, network, addr)
}

// opened tells whether this Envoy came so far as to open its admin interface: then it had accepted its bootstrap.
func (a *admin) opened() bool {
	_, err := os.Stat(a.file)
	return err == nil
}

// forget makes opened false until the next Envoy.
func (a *admin) forget() error {
	if err := os.Remove(a.file); err != nil && !os.IsNotExist(err) {
		return err
	}
	return nil
}

func (a *admin) do(ctx context.Context, method, path string) (string, error) {
	req, err := http.NewRequestWithContext(ctx, method, "http://envoy"+path, nil)
	if err != nil {
		return "", err
	}
	res, err := a.client.Do(req)
	if err != nil {
		return "", err
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(io.LimitReader(res.Body, 16<<20))
	if err != nil {
		return "", err
	}
	if res.StatusCode != http.StatusOK {
		return "", fmt.Errorf("envoy: %s %s: %s", method, path, res.Status)
	}
	return string(body), nil
}

// connections is how many downstream connections are open, those to the admin interface left out.
func (a *admin) connections(ctx context.Context) (int, error) {
	body, err := a.do(ctx, http.MethodGet, `/stats?filter=^listener\..*downstream_cx_active$`)
	if err != nil {
		return 0, err
	}
	sum := 0
	for line := range strings.Lines(body) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), ": ")
		if !ok || strings.HasPrefix(name, "listener.admin.") {
			continue
		}
		n, err := strconv.Atoi(value)
		if err != nil {
			return 0, fmt.Errorf("envoy: %s is %q", name, value)
		}
		sum += n
	}
	return sum, nil
}
