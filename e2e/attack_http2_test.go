package e2e

import (
	"strings"

	"golang.org/x/net/http2"
)

// http2Attacks are frames that no client library writes.
func http2Attacks(x *arena) []vector {
	var out []vector
	add := func(threat, name string, status []int, attack func(*frames)) {
		out = append(out, vector{name: "HTTP/2: " + name, threat: threat, h2: attack, status: status, arrives: "*"})
	}
	refused := []int{0, 400, 404}
	one := func(threat, name string, status []int, fields ...string) {
		add(threat, name, status, func(f *frames) { f.request(true, fields...) })
	}
	one("B24", "nothing wrong", []int{200}, usual("/public/x")...)
	one("A1", "a verified header beside a token", []int{200}, usual("/tenants/t1/x", "authorization", "Bearer "+x.good, "x-tenant-id", "evil-1")...)
	one("A2", "a verified header without a token", []int{200}, usual("/public/x", "x-tenant-id", "evil-1", "x-jwt-payload", "evil-2")...)
	one("A16", "x-forwarded-client-cert", []int{200}, usual("/public/x", "x-forwarded-client-cert", "URI=evil-1")...)
	one("A18", "an underscore", refused, usual("/public/x", "x_tenant_id", "evil-1")...)
	one("A18", "a name in upper case", refused, usual("/public/x", "X-Tenant-Id", "evil-1")...)
	for _, p := range []string{"/admin", "/public/../admin", "/public/%2e%2e/admin", "//admin", "/public/private", "/TENANTS/t1"} {
		one("B19", "path "+p, []int{403}, usual(p)...)
	}
	for _, p := range []string{"/public/..%2fadmin", "/public/..%5cadmin", "/public/%00", "/public/x;y", "/public/%252e", "/public/x#y", "/public/\x00", "/public/x y", "/public/\r\nX: evil-1", "public/x", "", "*"} {
		one("B19", "path "+p, []int{0, 400, 403, 404}, usual(p)...)
	}
	one("B30", "two authorities", refused, usual("/public/x", ":authority", "evil-1.test")...)
	one("B30", "another Host", []int{200, 400, 0, 403}, usual("/public/x", "host", "evil-1.test")...)
	one("B30", "the closed host in Host", []int{200, 400, 0, 403}, usual("/public/x", "host", "closed.test")...)
	one("B30", "the closed host", []int{403}, ":method", "GET", ":scheme", "http", ":authority", "closed.test", ":path", "/public/x")
	one("B30", "the closed host with a dot", []int{403, 400}, ":method", "GET", ":scheme", "http", ":authority", "closed.test.", ":path", "/public/x")
	one("B30", "no authority", refused, ":method", "GET", ":scheme", "http", ":path", "/public/x")
	one("B30", "Host alone", []int{200, 0, 400, 403}, ":method", "GET", ":scheme", "http", ":path", "/public/x", "host", "app.test")
	for _, a := range []string{"user@app.test", "app.test/x", "a b", "a,b", "app.test:80:81", "app.test\r\nx: evil-1"} {
		one("B30", "authority "+a, refused, ":method", "GET", ":scheme", "http", ":authority", a, ":path", "/public/x")
	}
	one("B28", "two paths", refused, usual("/public/x", ":path", "/admin")...)
	one("B28", "two methods", refused, usual("/public/x", ":method", "DELETE")...)
	one("B28", "a pseudo-header behind others", refused, ":method", "GET", ":scheme", "http", ":authority", "app.test", "x-a", "b", ":path", "/public/x")
	one("B28", "a pseudo-header of a response", refused, usual("/public/x", ":status", "200")...)
	one("B28", "an unknown pseudo-header", refused, append([]string{":evil", "evil-1"}, usual("/public/x")...)...)
	one("B28", "no method", refused, ":scheme", "http", ":authority", "app.test", ":path", "/public/x")
	one("B28", "no scheme", []int{0, 400, 200}, ":method", "GET", ":authority", "app.test", ":path", "/public/x")
	one("B28", "no path", refused, ":method", "GET", ":scheme", "http", ":authority", "app.test")
	one("B28", "a method of a request line", refused, ":method", "GET /admin HTTP/1.1\r\nHost: a\r\n\r\nGET", ":scheme", "http", ":authority", "app.test", ":path", "/public/x")
	one("B28", "a scheme that is a request line", []int{0, 400, 200, 403}, ":method", "GET", ":scheme", "http://app.test/admin?", ":authority", "app.test", ":path", "/public/x")
	for _, h := range []string{"connection", "proxy-connection", "keep-alive", "upgrade", "transfer-encoding", "http2-settings"} {
		one("B28", h, []int{0, 400, 200, 403}, usual("/public/x", h, "evil-1")...)
	}
	one("B28", "chunks", refused, usual("/public/x", "transfer-encoding", "chunked")...)
	one("B28", "te", []int{0, 400, 200}, usual("/public/x", "te", "evil-1")...)
	one("B28", "a value with a line end", refused, usual("/public/x", "x-a", "b\r\nx-tenant-id: evil-1")...)
	one("B28", "a value with a null", refused, usual("/public/x", "x-a", "evil-\x00")...)
	one("B28", "a name with a line end", refused, usual("/public/x", "x-a: evil-1\r\nx-b", "c")...)
	one("B28", "a name with a colon", refused, usual("/public/x", "x-a:x", "evil-1")...)
	one("B28", "an empty name", refused, usual("/public/x", "", "evil-1")...)
	one("B28", "a body shorter than its length", append(refused, 200), append(usual("/public/x"), "content-length", "50")...)
	add("B28", "a body longer than its length", append(refused, 200), func(f *frames) {
		fields := append(usual("/public/x"), "content-length", "1")
		fields[1] = "POST"
		f.request(false, fields...)
		f.wrote = f.WriteData(f.stream, true, []byte("GET /admin HTTP/1.1\r\nhost: app.test\r\nx: evil-1\r\n\r\n"))
	})
	add("B28", "two lengths", refused, func(f *frames) {
		fields := append(usual("/public/x"), "content-length", "1", "content-length", "2")
		fields[1] = "POST"
		f.request(false, fields...)
		f.wrote = f.WriteData(f.stream, true, []byte("x"))
	})
	add("B28", "trailers", append(refused, 200), func(f *frames) {
		fields := usual("/public/x")
		fields[1] = "POST"
		f.request(false, fields...)
		f.request(true, "x-tenant-id", "evil-1")
	})
	one("B28", "header twice", []int{403}, usual("/gold/x", "x-tier", "evil-gold", "x-tier", "evil-1")...)
	one("A8", "the token in two headers", []int{401}, usual("/tenants/t1/x", "authorization", "Bearer "+x.good, "authorization", "Bearer a.b.c")...)
	one("B33", "CONNECT", []int{0, 400, 403, 404}, ":method", "CONNECT", ":authority", "app.test:80")
	for _, p := range []string{"websocket", "connect-udp", "connect-ip", "evil-1"} {
		one("B33", "extended CONNECT for "+p, []int{0, 400, 403, 404}, usualConnect("/public/x", p)...)
	}
	one("B33", "a method override", []int{400}, usual("/public/x", "x-http-method-override", "DELETE")...)
	one("A17", "too large headers", []int{431, 0, 400}, usual("/public/x", "x-large", "evil-"+strings.Repeat("x", 100<<10))...)
	add("A17", "a CONTINUATION without end", []int{0, 400, 431}, func(f *frames) {
		f.wrote = f.WriteHeaders(http2.HeadersFrameParam{StreamID: 1, EndStream: true})
		for range 2000 {
			if f.wrote = f.WriteContinuation(1, false, []byte("\x00\x01a\x01b")); f.wrote != nil {
				return
			}
		}
	})
	return out
}

func usualConnect(path, protocol string) []string {
	return []string{":method", "CONNECT", ":protocol", protocol, ":scheme", "http", ":authority", "app.test", ":path", path, "sec-websocket-version", "13"}
}
