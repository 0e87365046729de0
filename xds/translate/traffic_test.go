package translate_test

import (
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/credence-mesh/credence/internal/echo"
	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/policy"
)

// run compiles documents and runs a real Envoy as one workload, with an identity of ca. Its resources are put into the bootstrap.
func run(t *testing.T, docs, namespace, name string, ca *envoytest.CA, uri string) {
	t.Helper()
	set, problems := load(t, []txtar.File{{Name: "in.yaml", Data: []byte(docs)}})
	r := build(t, set, problems)
	for _, p := range r.problems {
		if p.Severity == policy.Error {
			t.Fatal(p)
		}
	}
	i := slices.IndexFunc(r.workloads, func(w *policy.Workload) bool { return w.Namespace == namespace && w.Name == name })
	if i < 0 {
		t.Fatalf("no workload %s/%s", namespace, name)
	}
	envoytest.Start(t, bootstrapAs(t, r.of(r.workloads[i]), ca, uri), envoytest.Options{})
}

// answered is what a client got, and what the backend saw where one was reached.
type answered struct {
	status   int
	location string
	header   http.Header
	seen     echo.Seen
}

func ask(t *testing.T, addr, method, host, path string, headers ...string) answered {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), method, "http://"+addr+path, nil)
	if err != nil {
		t.Fatal(err)
	}
	req.Host = host
	for i := 0; i+1 < len(headers); i += 2 {
		req.Header.Set(headers[i], headers[i+1])
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	out := answered{status: resp.StatusCode, location: resp.Header.Get("Location"), header: resp.Header}
	if json.Valid(body) {
		if err := json.Unmarshal(body, &out.seen); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

const behind = `
apiVersion: v1
kind: Service
metadata: {name: %[1]s, namespace: shop}
spec: {ports: [{name: http, port: 80}]}
---
apiVersion: v1
kind: Endpoints
metadata: {name: %[1]s, namespace: shop}
subsets: [{addresses: [{ip: 127.0.0.1}], ports: [{name: http, port: %[2]s}]}]
---
`

func backendDocs(t *testing.T, name string) string {
	t.Helper()
	_, port, err := net.SplitHostPort(envoytest.Backend(t, name))
	if err != nil {
		t.Fatal(err)
	}
	return fmt.Sprintf(behind, name, port)
}

const traffic = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: credence
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners: [{name: web, port: %d, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [shop.example.com]
  rules:
  - matches: [{path: {value: /}}]
    backendRefs: [{name: a, port: 80}]
  - matches: [{path: {value: /b}}, {path: {value: /a}, headers: [{name: x-to, value: b}]}, {path: {value: /a}, queryParams: [{name: to, value: b}]}, {path: {value: /a}, method: PUT}]
    backendRefs: [{name: b, port: 80}]
  - matches: [{path: {value: /strip}}]
    filters: [{type: URLRewrite, urlRewrite: {hostname: inner, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}}]
    backendRefs: [{name: a, port: 80}]
  - matches: [{path: {value: /more}}]
    filters:
    - {type: URLRewrite, urlRewrite: {path: {type: ReplacePrefixMatch, replacePrefixMatch: /x/y/}}}
    - {type: RequestHeaderModifier, requestHeaderModifier: {set: [{name: x-set, value: "50%%"}], remove: [x-gone]}}
    backendRefs: [{name: a, port: 80}]
  - matches: [{path: {value: /old}}]
    filters: [{type: RequestRedirect, requestRedirect: {scheme: https, hostname: new.example.com, statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /new}}}]
  - matches: [{path: {value: /slow}}]
    timeouts: {request: 50ms}
    backendRefs: [{name: a, port: 80}]
`

// TestGatewayTraffic sends real requests through a real Envoy.
func TestGatewayTraffic(t *testing.T) {
	t.Parallel()
	port := envoytest.FreePort(t)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	run(t, backendDocs(t, "a")+backendDocs(t, "b")+fmt.Sprintf(traffic, port), "shop", "edge", envoytest.NewCA(t, "mesh"), "spiffe://cluster.local/ns/shop/sa/edge")
	const host = "shop.example.com"
	for _, c := range []struct {
		name, method, host, path string
		headers                  []string
		status                   int
		backend, seen            string
		check                    func(answered) string
	}{
		{name: "prefix", path: "/c", status: 200, backend: "a", seen: "/c"},
		{name: "host with a port", host: host + ":8080", path: "/c", status: 200, backend: "a", seen: "/c"},
		{name: "unknown host", host: "other.example.com", path: "/c", status: 404},
		{name: "longer prefix", path: "/b/1", status: 200, backend: "b", seen: "/b/1"},
		{name: "prefixes are whole segments", path: "/bb", status: 200, backend: "a", seen: "/bb"},
		{name: "by header", path: "/a", headers: []string{"x-to", "b"}, status: 200, backend: "b", seen: "/a"},
		{name: "by query", path: "/a?to=b", status: 200, backend: "b", seen: "/a?to=b"},
		{name: "by method", method: http.MethodPut, path: "/a", status: 200, backend: "b", seen: "/a"},
		{name: "none of them", path: "/a", status: 200, backend: "a", seen: "/a"},
		{name: "prefix taken off", path: "/strip/me?q=1", status: 200, backend: "a", seen: "/me?q=1", check: func(a answered) string {
			if a.seen.Host != "inner" {
				return "host " + a.seen.Host
			}
			return ""
		}},
		{name: "all of the path taken off", path: "/strip", status: 200, backend: "a", seen: "/"},
		{name: "prefix replaced", path: "/more/z", headers: []string{"x-gone", "1", "x-set", "0"}, status: 200, backend: "a", seen: "/x/y/z", check: func(a answered) string {
			if got := a.seen.Headers.Get("X-Set"); got != "50%" || a.seen.Headers.Get("X-Gone") != "" {
				return fmt.Sprintf("headers %v", a.seen.Headers)
			}
			return ""
		}},
		{name: "redirect", path: "/old/p?q=1", status: 301, check: func(a answered) string {
			if a.location != "https://new.example.com/new/p?q=1" {
				return "to " + a.location
			}
			return ""
		}},
		{name: "too slow", path: "/slow?delay=5s", status: 504},
		{name: "dot segments and slashes", path: "/x/..//b/1", status: 200, backend: "b", seen: "/b/1"},
		{name: "escaped slash", path: "/a%2fb", status: 400},
		{name: "header with an underscore", path: "/c", headers: []string{"X_tenant", "1"}, status: 400},
		{name: "forged headers", path: "/c", headers: []string{"x-envoy-original-path", "/z", "x-forwarded-client-cert", "URI=spiffe://a/b"}, status: 200, backend: "a", seen: "/c", check: func(a answered) string {
			for _, h := range []string{"X-Envoy-Original-Path", "X-Forwarded-Client-Cert"} {
				if v := a.seen.Headers.Get(h); v != "" {
					return h + ": " + v
				}
			}
			return ""
		}},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			method, to := c.method, c.host
			if method == "" {
				method = http.MethodGet
			}
			if to == "" {
				to = host
			}
			got := ask(t, addr, method, to, c.path, c.headers...)
			if got.status != c.status || got.seen.Backend != c.backend || got.seen.Path != c.seen {
				t.Errorf("got %d from %q, which saw %q", got.status, got.seen.Backend, got.seen.Path)
			}
			if c.check != nil {
				if wrong := c.check(got); wrong != "" {
					t.Error(wrong)
				}
			}
		})
	}
}

const pair = `
apiVersion: v1
kind: Service
metadata: {name: s, namespace: shop}
spec: {selector: {app: s}, ports: [{name: http, port: 80, targetPort: %[1]s}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: s-1, namespace: shop, annotations: {credence.dev/egress-port: "%[4]d"}}
spec: {address: %[3]s, serviceAccount: s, labels: {app: s}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: client-1, namespace: shop, annotations: {credence.dev/egress-port: "%[2]d"}}
spec: {address: 127.0.1.78, serviceAccount: client, labels: {app: client}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
`

// TestSidecarTraffic calls through the egress listener of one Envoy to another behind mutual TLS, which the application there does not see.
func TestSidecarTraffic(t *testing.T) {
	t.Parallel()
	const who = "spiffe://cluster.local/ns/shop/sa/"
	mesh, stranger := envoytest.NewCA(t, "mesh"), envoytest.NewCA(t, "stranger")
	for n, c := range []struct {
		name           string
		server, client string
		serverCA       *envoytest.CA
		status         int
	}{
		{"both are who they must be", who + "s", who + "client", mesh, http.StatusOK},
		{"the server has the identity of another service", who + "other", who + "client", mesh, http.StatusServiceUnavailable},
		{"the server has another authority", who + "s", who + "client", stranger, http.StatusServiceUnavailable},
		{"the client is of another trust domain", who + "s", "spiffe://elsewhere/ns/shop/sa/client", mesh, http.StatusServiceUnavailable},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, app, err := net.SplitHostPort(envoytest.Backend(t, "app"))
			if err != nil {
				t.Fatal(err)
			}
			address := fmt.Sprintf("127.0.1.%d", 77+n)
			egress := envoytest.FreePort(t)
			docs := fmt.Sprintf(pair, app, egress, address, envoytest.FreePort(t))
			run(t, docs, "shop", "s-1", c.serverCA, c.server)
			run(t, docs, "shop", "client-1", mesh, c.client)
			client := fmt.Sprintf("127.0.0.1:%d", egress)
			got := ask(t, client, http.MethodGet, "s", "/", "x-forwarded-client-cert", "URI=spiffe://cluster.local/ns/shop/sa/admin")
			if got.status != c.status {
				t.Fatalf("got %d, want %d", got.status, c.status)
			}
			if cert := got.seen.Headers.Get("X-Forwarded-Client-Cert"); c.status == http.StatusOK && (!strings.Contains(cert, "URI="+c.client) || strings.Contains(cert, "admin")) {
				t.Errorf("the application was told that its caller is %q", cert)
			}
			if got := ask(t, client, http.MethodGet, "nobody", "/"); got.status != http.StatusBadGateway {
				t.Errorf("unknown host: %d", got.status)
			}
			if resp, err := plain(t, "http://"+net.JoinHostPort(address, app)+"/"); err == nil {
				t.Errorf("plaintext reached a STRICT port: %s", resp)
			}
		})
	}
}

func plain(t *testing.T, url string) (string, error) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	resp, err := http.DefaultTransport.RoundTrip(req)
	if err != nil {
		return "", err
	}
	return resp.Status, resp.Body.Close()
}
