package e2e

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"fmt"
	"net"
	"net/http"
	"net/http/httptest"
	"strings"
	"testing"
	"time"

	"github.com/credence-mesh/credence/internal/envoytest"
)

// TestGatewayRoutes sends requests through every kind of match and filter of an HTTPRoute.
func TestGatewayRoutes(t *testing.T) {
	t.Parallel()
	mirrored := make(chan string, 16)
	mirror := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { mirrored <- r.URL.Path }))
	t.Cleanup(mirror.Close)
	w := start(t, "", map[string]string{
		"gateway.yaml":  gateway("127.0.73.5", "{name: http, port: 8080, protocol: HTTP}"),
		"backends.yaml": backends(t, "default", "exact", "prefix", "longer", "regex", "header", "headers", "query", "method", "wild", "narrow", "one", "two"),
		"mirror.yaml":   outside("shop", "mirror", mirror.Listener.Addr().String()),
		"other.yaml":    outside("other", "granted", envoytest.Backend(t, "granted")),
		"routes.yaml":   routeMatches,
		"filters.yaml":  routeFilters,
	})
	w.proxy("shop/edge")
	c := dial("http://127.0.73.5:8080", nil)
	w.answers(c, ask{path: "/"}, 200)
	t.Run("matches", func(t *testing.T) { w.in(t).gatewayMatches(c) })
	t.Run("filters", func(t *testing.T) { w.in(t).gatewayFilters(c, mirrored) })
	t.Run("weights", func(t *testing.T) { w.in(t).gatewayWeights(c) })
	t.Run("timeouts", func(t *testing.T) { w.in(t).gatewayTimeouts(c) })
	t.Run("references", func(t *testing.T) { w.in(t).gatewayReferences(c) })
}

const routeMatches = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: matches, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  rules:
  - backendRefs: [{name: default, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /a}}]
    backendRefs: [{name: prefix, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /a/longer}}]
    backendRefs: [{name: longer, port: 80}]
  - matches: [{path: {type: Exact, value: /a/longer}}]
    backendRefs: [{name: exact, port: 80}]
  - matches: [{path: {type: RegularExpression, value: "/r/[0-9]+"}}]
    backendRefs: [{name: regex, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /h}, headers: [{name: x-color, value: blue}]}]
    backendRefs: [{name: header, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /h}, headers: [{name: x-color, value: blue}, {name: X-Size, type: RegularExpression, value: "[0-9]+"}]}]
    backendRefs: [{name: headers, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /h}, queryParams: [{name: v, value: "2"}]}]
    backendRefs: [{name: query, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /h}, method: POST}, {path: {type: PathPrefix, value: /either}}]
    backendRefs: [{name: method, port: 80}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: wild, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: ["*.wild.test"]
  rules: [{backendRefs: [{name: wild, port: 80}]}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: narrow, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [narrow.wild.test]
  rules: [{matches: [{path: {type: PathPrefix, value: /only}}], backendRefs: [{name: narrow, port: 80}]}]
`

func (w *world) gatewayMatches(c *client) {
	blue := map[string]string{"x-color": "blue"}
	for _, tt := range []struct {
		name    string
		ask     ask
		backend string // empty: 404
	}{
		{"nothing else matches", ask{path: "/x"}, "default"},
		{"prefix", ask{path: "/a"}, "prefix"},
		{"prefix, below", ask{path: "/a/b?c=d"}, "prefix"},
		{"prefix, only whole segments", ask{path: "/ab"}, "default"},
		{"the longest prefix wins", ask{path: "/a/longer/x"}, "longer"},
		{"exact wins over prefix", ask{path: "/a/longer"}, "exact"},
		{"exact is case-exact", ask{path: "/A/longer"}, "default"},
		{"regular expression", ask{path: "/r/42"}, "regex"},
		{"regular expression, the whole path", ask{path: "/r/42x"}, "default"},
		{"header", ask{path: "/h", header: blue}, "header"},
		{"header, another value", ask{path: "/h", header: map[string]string{"x-color": "bluer"}}, "default"},
		{"more headers win", ask{path: "/h", header: map[string]string{"x-color": "blue", "x-size": "12"}}, "headers"},
		{"header expression, the whole value", ask{path: "/h", header: map[string]string{"x-color": "blue", "x-size": "12cm"}}, "header"},
		{"query", ask{path: "/h?v=2"}, "query"},
		{"query, another value", ask{path: "/h?v=22"}, "default"},
		{"header wins over query", ask{path: "/h?v=2", header: blue}, "header"},
		{"method", ask{method: "POST", path: "/h"}, "method"},
		{"method wins over headers", ask{method: "POST", path: "/h", header: blue}, "method"},
		{"one of two matches", ask{path: "/either/x"}, "method"},
		{"wildcard host", ask{host: "a.wild.test", path: "/"}, "wild"},
		{"wildcard host, deeper", ask{host: "a.b.wild.test", path: "/"}, "wild"},
		{"wildcard host, not the domain itself", ask{host: "wild.test", path: "/"}, "default"},
		{"the most specific host", ask{host: "narrow.wild.test", path: "/only"}, "narrow"},
		{"the most specific host, with a port", ask{host: "narrow.wild.test:8080", path: "/only"}, "narrow"},
	} {
		w.t.Run(tt.name, func(t *testing.T) {
			a := w.in(t).expect(c, tt.ask, 200)
			if a.seen.Backend != tt.backend {
				t.Errorf("%s answered, want %s", a.seen.Backend, tt.backend)
			}
		})
	}
}

const routeFilters = `apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: filters, namespace: shop}
spec:
  parentRefs: [{name: edge}]
  hostnames: [filters.test]
  rules:
  - matches: [{path: {type: PathPrefix, value: /headers}}]
    filters:
    - type: RequestHeaderModifier
      requestHeaderModifier:
        set: [{name: x-set, value: ours}]
        add: [{name: x-add, value: more}]
        remove: [x-remove]
    - type: ResponseHeaderModifier
      responseHeaderModifier:
        set: [{name: x-answer, value: ours}]
        remove: [content-type]
    backendRefs: [{name: one, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /redirect}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {scheme: https, hostname: new.test, statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: /moved}}
  - matches: [{path: {type: PathPrefix, value: /full}}]
    filters:
    - type: RequestRedirect
      requestRedirect: {statusCode: 302, port: 8443, path: {type: ReplaceFullPath, replaceFullPath: /there}}
  - matches: [{path: {type: PathPrefix, value: /rewrite}}]
    filters:
    - type: URLRewrite
      urlRewrite: {hostname: inner.test, path: {type: ReplacePrefixMatch, replacePrefixMatch: /}}
    backendRefs: [{name: one, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /mirror}}]
    filters:
    - type: RequestMirror
      requestMirror: {backendRef: {name: mirror, port: 80}}
    backendRefs: [{name: one, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /halves}}]
    backendRefs: [{name: one, port: 80, weight: 1}, {name: two, port: 80, weight: 1}]
  - matches: [{path: {type: PathPrefix, value: /none-for-two}}]
    backendRefs: [{name: one, port: 80, weight: 1}, {name: two, port: 80, weight: 0}]
  - matches: [{path: {type: PathPrefix, value: /none-at-all}}]
    backendRefs: [{name: one, port: 80, weight: 0}]
  - matches: [{path: {type: PathPrefix, value: /half-broken}}]
    backendRefs: [{name: one, port: 80, weight: 1}, {name: nobody, port: 80, weight: 1}]
  - matches: [{path: {type: PathPrefix, value: /nobody}}]
    backendRefs: [{name: nobody, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /no-such-port}}]
    backendRefs: [{name: one, port: 81}]
  - matches: [{path: {type: PathPrefix, value: /other}}]
    backendRefs: [{name: granted, namespace: other, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /slow}}]
    timeouts: {request: 300ms}
    backendRefs: [{name: one, port: 80}]
  - matches: [{path: {type: PathPrefix, value: /patient}}]
    timeouts: {request: 0s}
    backendRefs: [{name: one, port: 80}]
`

func (w *world) gatewayFilters(c *client, mirrored <-chan string) {
	const host = "filters.test"
	a := w.expect(c, ask{host: host, path: "/headers", header: map[string]string{"x-set": "theirs", "x-add": "one", "x-remove": "gone"}}, 200)
	h := a.seen.Headers
	if strings.Join(h.Values("X-Set"), ",") != "ours" || strings.Join(h.Values("X-Add"), ",") != "one,more" || h.Get("X-Remove") != "" {
		w.t.Errorf("the back end saw x-set %q, x-add %q, x-remove %q", h.Values("X-Set"), h.Values("X-Add"), h.Values("X-Remove"))
	}
	if a.header.Get("X-Answer") != "ours" || a.header.Get("Content-Type") != "" {
		w.t.Errorf("the client saw %v", a.header)
	}
	for path, want := range map[string]string{
		"/redirect/x?y=1": "301 https://new.test/moved/x?y=1",
		"/redirect":       "301 https://new.test/moved",
		"/full/x":         "302 http://filters.test:8443/there",
	} {
		a := c.do(w.ctx, ask{host: host, path: path})
		if got := fmt.Sprintf("%d %s", a.status, a.header.Get("Location")); got != want {
			w.t.Errorf("%s: %s (%v), want %s", path, got, a.err, want)
		}
	}
	for path, want := range map[string]string{"/rewrite/x/y?z=1": "/x/y?z=1", "/rewrite": "/"} {
		a := w.expect(c, ask{host: host, path: path}, 200)
		if a.seen.Path != want || a.seen.Host != "inner.test" {
			w.t.Errorf("%s: the back end saw %s%s, want inner.test%s", path, a.seen.Host, a.seen.Path, want)
		}
	}
	if a := w.expect(c, ask{host: host, path: "/mirror/x"}, 200); a.seen.Backend != "one" {
		w.t.Errorf("%s answered, want one", a.seen.Backend)
	}
	select {
	case got := <-mirrored:
		if got != "/mirror/x" {
			w.t.Errorf("mirrored %s", got)
		}
	case <-time.After(10 * time.Second):
		w.t.Error("nothing was mirrored")
	}
}

func (w *world) gatewayWeights(c *client) {
	count := func(path string, n int) map[string]int {
		got := map[string]int{}
		for range n {
			a := c.do(w.ctx, ask{host: "filters.test", path: path})
			if a.err != nil {
				w.t.Fatal(a.err)
			}
			got[fmt.Sprintf("%d %s", a.status, a.seen.Backend)]++
		}
		return got
	}
	// Of 200 tosses of a fair coin fewer than 50 on one side is a chance of one in 10^13.
	if got := count("/halves", 200); got["200 one"] < 50 || got["200 two"] < 50 || got["200 one"]+got["200 two"] != 200 {
		w.t.Errorf("1:1 gives %v", got)
	}
	if got := count("/none-for-two", 50); got["200 one"] != 50 {
		w.t.Errorf("1:0 gives %v", got)
	}
	if got := count("/none-at-all", 5); got["500 "] != 5 {
		w.t.Errorf("a weight of 0 alone gives %v, want 500", got)
	}
	if got := count("/half-broken", 200); got["200 one"] < 50 || got["500 "] < 50 || got["200 one"]+got["500 "] != 200 {
		w.t.Errorf("half to a back end that is not there gives %v, want 200 and 500 in equal parts", got)
	}
}

func (w *world) gatewayTimeouts(c *client) {
	const host = "filters.test"
	w.expect(c, ask{host: host, path: "/slow?delay=1ms"}, 200)
	begin := time.Now()
	w.expect(c, ask{host: host, path: "/slow?delay=8s"}, 504)
	if took := time.Since(begin); took < 250*time.Millisecond || took > 4*time.Second {
		w.t.Errorf("a timeout of 300ms took %s", took)
	}
	w.expect(c, ask{host: host, path: "/patient?delay=500ms"}, 200)
}

func (w *world) gatewayReferences(c *client) {
	const host = "filters.test"
	w.expect(c, ask{host: host, path: "/nobody"}, 500)
	w.expect(c, ask{host: host, path: "/no-such-port"}, 500)
	other := ask{host: host, path: "/other"}
	w.expect(c, other, 500)
	w.write("grant.yaml", grant("HTTPRoute", "Service"))
	if a := w.answers(c, other, 200); a.seen.Backend != "granted" {
		w.t.Errorf("%s answered", a.seen.Backend)
	}
	w.remove("grant.yaml")
	w.answers(c, other, 500)
}

// grant lets objects of the namespace shop refer to those of the namespace other.
func grant(from, to string) string {
	group := ""
	if from == "HTTPRoute" || from == "Gateway" {
		group = "gateway.networking.k8s.io"
	}
	return fmt.Sprintf(`apiVersion: gateway.networking.k8s.io/v1beta1
kind: ReferenceGrant
metadata: {name: shop-%[4]s, namespace: other}
spec:
  from: [{group: %[3]s, kind: %[1]s, namespace: shop}]
  to: [{group: "", kind: %[2]s}]
`, from, to, group, strings.ToLower(from))
}

// TestGatewayTLS ends TLS at a gateway by the server name that the client asks for.
func TestGatewayTLS(t *testing.T) {
	t.Parallel()
	ca := envoytest.NewCA(t, "public")
	named := func(names ...string) envoytest.Pair {
		return ca.Issue(t, "", func(c *x509.Certificate) { c.DNSNames, c.IPAddresses = names, nil })
	}
	w := start(t, "", map[string]string{
		"gateway.yaml": gateway("127.0.73.6",
			"{name: shop, port: 8443, protocol: HTTPS, hostname: shop.example.com, tls: {certificateRefs: [{name: shop-tls}]}}",
			`{name: wild, port: 8443, protocol: HTTPS, hostname: "*.example.com", tls: {certificateRefs: [{name: wild-tls}]}}`,
			"{name: any, port: 9443, protocol: HTTPS, tls: {certificateRefs: [{name: shop-tls}]}}",
			"{name: far, port: 10443, protocol: HTTPS, tls: {certificateRefs: [{name: far-tls, namespace: other}]}}"),
		"backends.yaml": backends(t, "shop", "wild"),
		"routes.yaml": docs(
			route("shop", "shop", "  rules: [{backendRefs: [{name: shop, port: 80}]}]\n"),
			route("wild", "wild", "  rules: [{backendRefs: [{name: wild, port: 80}]}]\n"),
			route("any", "any", "  rules: [{backendRefs: [{name: shop, port: 80}]}]\n"),
			route("far", "far", "  rules: [{backendRefs: [{name: shop, port: 80}]}]\n")),
		"shop-tls.yaml": tlsSecret("shop", "shop-tls", named("shop.example.com")),
		"wild-tls.yaml": tlsSecret("shop", "wild-tls", named("*.example.com")),
		"far-tls.yaml":  tlsSecret("other", "far-tls", named("far.example.com")),
	})
	w.proxy("shop/edge")
	at := func(port int, name string) *client {
		return dial(fmt.Sprintf("https://127.0.73.6:%d", port), &tls.Config{RootCAs: ca.Pool(), ServerName: name})
	}
	w.answers(at(8443, "shop.example.com"), ask{host: "shop.example.com", path: "/"}, 200)
	t.Run("server names", func(t *testing.T) { w.in(t).serverNames(at) })
	t.Run("HTTP versions by ALPN", func(t *testing.T) { w.in(t).alpn(ca) })
	t.Run("the Secret is replaced", func(t *testing.T) {
		w.in(t).swap(at, func() string { return tlsSecret("shop", "shop-tls", named("shop.example.com")) })
	})
	t.Run("a Secret of another namespace", func(t *testing.T) {
		w := w.in(t)
		far := ask{host: "far.example.com", path: "/"}
		if a := at(10443, "far.example.com").do(w.ctx, far); a.err == nil {
			t.Errorf("a certificate that nobody granted was shown: %d", a.status)
		}
		w.write("grant.yaml", grant("Gateway", "Secret"))
		w.answers(at(10443, "far.example.com"), far, 200)
		w.remove("grant.yaml")
		w.until("the grant to be gone", func() (bool, error) {
			c := at(10443, "far.example.com")
			defer c.http.CloseIdleConnections()
			return c.do(w.ctx, far).err != nil, nil
		})
	})
}

func (w *world) serverNames(at func(int, string) *client) {
	for _, tt := range []struct {
		name, sni, host string
		port, status    int // status 0: no TLS
		backend         string
	}{
		{"the exact name", "shop.example.com", "shop.example.com", 8443, 200, "shop"},
		{"the exact name, with the port in Host", "shop.example.com", "shop.example.com:8443", 8443, 200, "shop"},
		{"under the wildcard", "www.example.com", "www.example.com", 8443, 200, "wild"},
		{"no listener has the name", "example.org", "example.org", 8443, 0, ""},
		{"the listener without a name", "shop.example.com", "shop.example.com", 9443, 200, "shop"},
	} {
		w.t.Run(tt.name, func(t *testing.T) {
			a := at(tt.port, tt.sni).do(w.ctx, ask{host: tt.host, path: "/"})
			if tt.status == 0 {
				if a.err == nil {
					t.Errorf("answered %d", a.status)
				}
				return
			}
			if a.err != nil || a.status != tt.status || a.seen.Backend != tt.backend {
				t.Errorf("%d %s (%v), want %d of %s", a.status, a.seen.Backend, a.err, tt.status, tt.backend)
			}
		})
	}
	w.t.Run("one server name, another Host", func(t *testing.T) {
		a := at(8443, "shop.example.com").do(w.ctx, ask{host: "www.example.com", path: "/"})
		if a.err != nil || a.status != 421 && a.status != 404 {
			t.Errorf("%d %s (%v), want 421 or 404", a.status, a.seen.Backend, a.err)
		}
	})
}

func (w *world) alpn(ca *envoytest.CA) {
	for major, protocols := range map[int][]string{1: {"http/1.1"}, 2: {"h2", "http/1.1"}} {
		c := &http.Client{Timeout: 10 * time.Second, Transport: &http.Transport{
			TLSClientConfig:   &tls.Config{RootCAs: ca.Pool(), ServerName: "shop.example.com", NextProtos: protocols},
			ForceAttemptHTTP2: major == 2,
			DialContext: func(ctx context.Context, network, _ string) (net.Conn, error) {
				return new(net.Dialer).DialContext(ctx, network, "127.0.73.6:8443")
			},
		}}
		req, err := http.NewRequestWithContext(w.ctx, http.MethodGet, "https://shop.example.com/", nil)
		if err != nil {
			w.t.Fatal(err)
		}
		resp, err := c.Do(req)
		if err != nil {
			w.t.Error(err)
			continue
		}
		_ = resp.Body.Close()
		if resp.StatusCode != 200 || resp.ProtoMajor != major {
			w.t.Errorf("offering %v: %s %s", protocols, resp.Status, resp.Proto)
		}
	}
}

// swap replaces a Secret under load: no connection is closed, and new ones see the new certificate.
func (w *world) swap(at func(int, string) *client, fresh func() string) {
	old := w.leaf("127.0.73.6:8443", "shop.example.com").SerialNumber
	c := dialCounted("https://127.0.73.6:8443", at(8443, "shop.example.com").http.Transport.(*http.Transport).TLSClientConfig, 4)
	s := w.steady("HTTPS", 100, wants(c.client, ask{host: "shop.example.com", path: "/"}, 200))
	s.flows(20)
	opened := c.opened.Load()
	w.write("shop-tls.yaml", fresh())
	w.until("the new certificate", func() (bool, error) {
		return w.leaf("127.0.73.6:8443", "shop.example.com").SerialNumber.Cmp(old) != 0, nil
	})
	s.flows(100)
	s.clean()
	if n := c.opened.Load(); n > max(opened, 4) {
		w.t.Errorf("connections were closed: %d opened before, %d in all", opened, n)
	}
}

// leaf is the certificate that a server shows. It is not verified.
func (w *world) leaf(addr, name string) *x509.Certificate {
	w.t.Helper()
	d := tls.Dialer{Config: &tls.Config{InsecureSkipVerify: true, ServerName: name}}
	conn, err := d.DialContext(w.ctx, "tcp", addr)
	if err != nil {
		w.t.Fatal(err)
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0]
}
