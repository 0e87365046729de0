package envoytest_test

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/credence-mesh/credence/internal/echo"
	"github.com/credence-mesh/credence/internal/envoytest"
)

// through is a bootstrap with one listener, on a port that Envoy chooses, in front of a backend. Its upstream protocol follows the
// downstream one.
func through(t *testing.T, backend string) []byte {
	t.Helper()
	host, port, err := net.SplitHostPort(backend)
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Appendf(nil, `
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: in
          upgrade_configs: [{upgrade_type: websocket}]
          route_config: {virtual_hosts: [{name: all, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: backend}}]}]}
          http_filters: [{name: router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]
  clusters:
  - name: backend
    type: STATIC
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        use_downstream_protocol_config: {http_protocol_options: {}, http2_protocol_options: {}}
    load_assignment: {cluster_name: backend, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]}
`, host, port)
}

func TestRealEnvoy(t *testing.T) {
	t.Parallel()
	bootstrap := through(t, envoytest.Backend(t, "shop"))
	envoytest.Validate(t, bootstrap)
	e := envoytest.Start(t, bootstrap, envoytest.Options{})
	addr := e.Listener(t, "in")

	t.Run("HTTP", func(t *testing.T) {
		seen := get(t, addr)
		if seen.Backend != "shop" || seen.Path != "/a?b=c" || seen.Headers.Get("X-Request-Id") == "" {
			t.Errorf("the backend saw %+v", seen)
		}
		e.WaitStat(t, "http.in.downstream_rq_2xx", 1)
	})
	t.Run("gRPC", func(t *testing.T) {
		conn, err := grpc.NewClient(addr, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		res, err := healthv1.NewHealthClient(conn).Check(t.Context(), &healthv1.HealthCheckRequest{})
		if err != nil || res.Status != healthv1.HealthCheckResponse_SERVING {
			t.Errorf("health: %v, %v", res, err)
		}
	})
	t.Run("WebSocket", func(t *testing.T) {
		conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://shop.test/ws", nil)
		if err != nil {
			t.Fatal(err)
		}
		ws, err := echo.Upgrade(conn, req)
		if err != nil {
			t.Fatal(err)
		}
		for _, text := range []string{"hello", strings.Repeat("x", 300), strings.Repeat("y", 70000)} {
			if got, err := ws.Echo(text); err != nil || got != text {
				t.Errorf("echo of %d bytes: %d bytes, %v", len(text), len(got), err)
			}
		}
	})
	t.Run("load", func(t *testing.T) {
		l := envoytest.Load(t, 200, func(ctx context.Context) error {
			req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/", nil)
			if err != nil {
				return err
			}
			res, err := http.DefaultClient.Do(req)
			if err != nil {
				return err
			}
			return res.Body.Close()
		})
		if r := l.Stop(); r.Failed != 0 || r.Sent < 10 {
			t.Errorf("load: %v: %v", r, errors.Join(r.Errors...))
		}
	})
}

func get(t *testing.T, addr string) echo.Seen {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+addr+"/a?b=c", nil)
	if err != nil {
		t.Fatal(err)
	}
	res, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	var seen echo.Seen
	if err := json.NewDecoder(res.Body).Decode(&seen); err != nil {
		t.Fatal(err)
	}
	return seen
}

func TestCheckComplains(t *testing.T) {
	t.Parallel()
	err := envoytest.Check(t, []byte(`{"static_resources": {"clusters": [{"name": "x", "type": "NO_SUCH_TYPE"}]}}`))
	if err == nil || !strings.Contains(err.Error(), "NO_SUCH_TYPE") {
		t.Errorf("a bad bootstrap gave %v", err)
	}
}
