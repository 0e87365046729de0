package limit

import (
	"context"
	"fmt"
	"net"
	"net/http"
	"strings"
	"testing"

	"google.golang.org/grpc"

	"github.com/credence-mesh/credence/internal/envoytest"
)

const envoyConfig = `
domain: shop
descriptors:
- key: api_tier
  value: free
  rate_limit: {unit: day, requests_per_unit: 2}
- key: api_tier
  value: enterprise
  rate_limit: {unit: day, requests_per_unit: 1000}
`

// listenerYAML is a listener whose requests are limited by tier and customer; in the product these two come from a verified token.
const listenerYAML = `
  - name: %[1]s
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: %[1]s
          route_config:
            virtual_hosts:
            - name: all
              domains: ["*"]
              routes:
              - match: {prefix: "/"}
                route:
                  cluster: backend
                  rate_limits:
                  - actions:
                    - request_headers: {header_name: x-tier, descriptor_key: api_tier}
                    - request_headers: {header_name: x-customer, descriptor_key: credence.customer}
          http_filters:
          - name: ratelimit
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
              domain: shop
              failure_mode_deny: %[2]t
              timeout: 5s
              rate_limit_service: {transport_api_version: V3, grpc_service: {envoy_grpc: {cluster_name: limiter}}}
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`

func clusterYAML(t *testing.T, name, addr string) string {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	http2 := ""
	if name == "limiter" {
		http2 = `
    typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}`
	}
	return fmt.Sprintf(`
  - name: %[1]s
    type: STATIC%[4]s
    load_assignment:
      cluster_name: %[1]s
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %[2]s, port_value: %[3]s}}}}]}]
`, name, host, port, http2)
}

func TestEnvoyIsLimited(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, NewMemory(0), rateLimit("shop", envoyConfig))
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, served := grpc.NewServer(), make(chan error, 1)
	s.Register(server)
	go func() { served <- server.Serve(l) }()
	stop := func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
	bootstrap := "static_resources:\n  listeners:" + fmt.Sprintf(listenerYAML, "closed", true) + fmt.Sprintf(listenerYAML, "open", false) +
		"  clusters:" + clusterYAML(t, "backend", envoytest.Backend(t, "shop")) + clusterYAML(t, "limiter", l.Addr().String())
	envoy := envoytest.Start(t, []byte(bootstrap), envoytest.Options{})
	closed, open := envoy.Listener(t, "closed"), envoy.Listener(t, "open")
	for i, c := range []struct {
		name, tier, customer string
		status               int
		headers              string
	}{
		{"first", "free", "a", 200, "2 1 48 "}, {"second", "free", "a", 200, "2 0 48 "}, {"third", "free", "a", 429, "2 0 48 48"},
		{"another customer of the tier", "free", "b", 200, "2 1 48 "}, {"enterprise", "enterprise", "a", 200, "1000 999 48 "}, {"no limit", "gold", "a", 200, "   "},
	} {
		status, headers := get(t, closed, c.tier, c.customer)
		if status != c.status {
			t.Errorf("request %d, %s: %d, want %d", i, c.name, status, c.status)
		}
		// The window of a day ends in some hours; the stopped clock says exactly when.
		want := strings.ReplaceAll(c.headers, "48", fmt.Sprint(untilReset(Day, stopped().Now().Unix())))
		if headers != want {
			t.Errorf("request %d, %s: headers %q, want %q", i, c.name, headers, want)
		}
	}
	stop()
	if status, _ := get(t, closed, "free", "c"); status != 500 {
		t.Errorf("limiter down, failure_mode_deny: %d", status)
	}
	if status, _ := get(t, open, "free", "c"); status != 200 {
		t.Errorf("limiter down, no failure_mode_deny: %d", status)
	}
}

func get(t *testing.T, addr, tier, customer string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://"+addr+"/", nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Header.Set("x-tier", tier)
	req.Header.Set("x-customer", customer)
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	_ = res.Body.Close()
	var values []string
	for _, name := range []string{HeaderLimit, HeaderRemaining, HeaderReset, HeaderRetryAfter} {
		values = append(values, strings.Join(res.Header.Values(name), ","))
	}
	return res.StatusCode, strings.Join(values, " ")
}
