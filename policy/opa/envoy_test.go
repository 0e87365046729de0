package opa

import (
	"bufio"
	"context"
	"fmt"
	"net"
	"net/http"
	"testing"

	"github.com/go-jose/go-jose/v4"
	"google.golang.org/grpc"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/internal/issuer"
)

// listenerYAML is a listener that asks us about every request. %[2]s are the path options of its HTTP connection manager, %[3]s comes first
// in its chain.
const listenerYAML = `
  - name: %[1]s
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: hcm
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager
          stat_prefix: %[1]s
          %[2]s
          route_config:
            virtual_hosts:
            - {name: all, domains: ["*"], routes: [{match: {prefix: "/"}, route: {cluster: backend}}]}
          http_filters:%[3]s
          - name: ext_authz
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.ext_authz.v3.ExtAuthz
              transport_api_version: V3
              metadata_context_namespaces: [envoy.filters.http.jwt_authn]
              grpc_service: {timeout: 10s, envoy_grpc: {cluster_name: decisions}}
          - name: router
            typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}
`

const jwtYAML = `
          - name: jwt
            typed_config:
              "@type": type.googleapis.com/envoy.extensions.filters.http.jwt_authn.v3.JwtAuthentication
              providers:
                p: {issuer: "https://auth.example.com/", forward: true, payload_in_metadata: payload, local_jwks: {inline_string: '%s'},
                    normalize_payload_in_metadata: {space_delimited_claims: [scope]}}
              rules: [{match: {prefix: "/"}, requires: {requires_any: {requirements: [{provider_name: p}, {allow_missing: {}}]}}}]`

const clusterYAML = `
  - name: %[1]s
    type: STATIC
    %[3]s
    load_assignment:
      cluster_name: %[1]s
      endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: 127.0.0.1, port_value: %[2]s}}}}]}]
`

const http2YAML = `typed_extension_protocol_options:
      envoy.extensions.upstreams.http.v3.HttpProtocolOptions:
        "@type": type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions
        explicit_http_config: {http2_protocol_options: {}}`

func port(t *testing.T, addr string) string {
	t.Helper()
	_, p, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return p
}

// serve runs the decision service until the returned function is called.
func serve(t *testing.T, s *Service) (addr string, stop func()) {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	server, served := grpc.NewServer(), make(chan error, 1)
	s.Register(server)
	go func() { served <- server.Serve(l) }()
	return l.Addr().String(), func() {
		server.Stop()
		if err := <-served; err != nil {
			t.Error(err)
		}
	}
}

// get sends a request byte for byte, so that nothing on this side makes its path any better.
func get(t *testing.T, addr, path, token string) int {
	t.Helper()
	conn, err := (&net.Dialer{}).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = conn.Close() }()
	if token != "" {
		token = "Authorization: Bearer " + token + "\r\n"
	}
	if _, err := fmt.Fprintf(conn, "GET %s HTTP/1.1\r\nHost: shop.test\r\n%sConnection: close\r\n\r\n", path, token); err != nil {
		t.Fatal(err)
	}
	res, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatalf("%s: %v", path, err)
	}
	_ = res.Body.Close()
	return res.StatusCode
}

// TestEnvoyAsks runs the seeds' policy and ours behind a real Envoy: with jwt_authn and canonical paths as in the product, with jwt_authn over
// paths that nobody has touched, and with no verification at all.
func TestEnvoyAsks(t *testing.T) {
	t.Parallel()
	iss, err := issuer.New("https://auth.example.com/", jose.ES256)
	if err != nil {
		t.Fatal(err)
	}
	jwks, err := iss.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	token := func(sign func(issuer.Claims) (string, error), tenant string, roles ...string) string {
		t.Helper()
		out, err := sign(issuer.Claims{"tenant_id": tenant, "roles": roles, "scope": "read write", "nested": map[string]any{"a": []any{1, nil, true}}})
		if err != nil {
			t.Fatal(err)
		}
		return out
	}
	user, admin, none := token(iss.Token, "A", "user"), token(iss.Token, "A", "admin"), token(iss.Unsigned, "A", "admin")
	for _, name := range []string{"own", "seeds"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			text := local(t, "tenant.rego")
			if name == "seeds" {
				text = seed(t, "opa/tenant_isolation.rego")
			}
			s, problems := newService(t, Options{}, module1("x.rego", text))
			if len(problems) != 0 {
				t.Fatal(problems)
			}
			addr, stop := serve(t, s)
			jwt := fmt.Sprintf(jwtYAML, jwks)
			envoy := envoytest.Start(t, []byte("static_resources:\n  listeners:"+
				fmt.Sprintf(listenerYAML, "product", "normalize_path: true\n          merge_slashes: true\n          path_with_escaped_slashes_action: REJECT_REQUEST", jwt)+
				fmt.Sprintf(listenerYAML, "raw", "", jwt)+fmt.Sprintf(listenerYAML, "unverified", "", "")+
				"  clusters:"+fmt.Sprintf(clusterYAML, "backend", port(t, envoytest.Backend(t, "shop")), "")+fmt.Sprintf(clusterYAML, "decisions", port(t, addr), http2YAML)), envoytest.Options{})
			product, raw, unverified := envoy.Listener(t, "product"), envoy.Listener(t, "raw"), envoy.Listener(t, "unverified")
			for _, c := range []struct {
				name, addr, path, token string
				want                    int
			}{
				{"own", product, "/api/v1/tenants/A/orders", user, 200}, {"own with a query", product, "/api/v1/tenants/A?q=1", user, 200}, {"other", product, "/api/v1/tenants/B", user, 403},
				{"own with dots", product, "/api/v1/x/../tenants/A", user, 200}, {"admin", product, "/api/v1/tenants/B", admin, 200}, {"no token", product, "/api/v1/tenants/A", "", 403},
				{"forged, refused by jwt_authn", product, "/api/v1/tenants/B", none, 401}, {"forged", unverified, "/api/v1/tenants/B", none, 403},
				{"signed, but nobody verified it", unverified, "/api/v1/tenants/B", admin, 403}, {"own, untouched path", raw, "/api/v1/tenants/A", user, 200},
			} {
				if got := get(t, c.addr, c.path, c.token); got != c.want {
					t.Errorf("%s: %s: %d, want %d", c.name, c.path, got, c.want)
				}
			}
			for _, path := range hostile {
				for where, addr := range map[string]string{"product": product, "raw": raw} {
					if got := get(t, addr, path, user); got != 403 && got != 400 {
						t.Errorf("%s: %s: %d", where, path, got)
					}
				}
			}
			stop()
			if got := get(t, product, "/api/v1/tenants/A", user); got != 403 {
				t.Errorf("decision service down: %d", got)
			}
		})
	}
}

// hostile are ways of tenant A to write tenant B's path (B19 to B21).
var hostile = []string{
	"/api//v1/tenants/B", "//api/v1/tenants/B", "/api/v1//tenants//B", "/api/v1/%74enants/B", "/api/v1/tenants/%42", "/api/v1%2ftenants%2fB", "/api/v1/tenants%2FB", "/api/v1/tenants%5cB",
	`/api/v1/tenants\B`, "/api/v1/tenants/A/../B", "/api/v1/tenants/A/%2e%2e/B", "/api/v1/tenants/A/..%2fB", "/api/v1/tenants/A/..;/B", "/api/v1/tenants/A/%2e%2e;/B", "/api/v1/./tenants/B",
	"/api/v1/tenants;a=b/B", "/api/v1/tenants%3ba=b/B", "/api/v1/tenants/A/%252e%252e/B", "/api/v1/tenants/%00/../B", "/api/v1/tenants/B#/../A", "/api/v1/tenants/A/..%c0%afB", "/api/v1/tenants/B?/tenants/A",
}
