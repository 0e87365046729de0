package e2e

import (
	"strings"
	"testing"
)

// methodAttacks ask for a tunnel, another protocol or another method than it seems.
func methodAttacks() []vector {
	var out []vector
	add := func(name, raw string, status ...int) {
		out = append(out, vector{name: name, threat: "B33", raw: raw, status: status})
	}
	denied := []int{400, 403, 404, 405, 501, 0}
	add("CONNECT", "CONNECT app.test:80 HTTP/1.1\r\nHost: app.test:80\r\nConnection: close\r\n\r\n", denied...)
	add("CONNECT to elsewhere", "CONNECT 169.254.169.254:80 HTTP/1.1\r\nHost: 169.254.169.254:80\r\nConnection: close\r\n\r\n", denied...)
	add("CONNECT with a path", line("CONNECT /public/x HTTP/1.1"), denied...)
	for _, p := range []string{"h2c", "HTTP/2.0", "TLS/1.0", "connect-udp", "evil-1", "websocket, h2c", "h2c, websocket", "web socket"} {
		out = append(out, vector{name: "upgrade to " + p, threat: "B33", raw: upgrade("/public/x", p, "HTTP2-Settings: AAMAAABkAARAAAAAAAIAAAAA"), status: []int{400, 403, 404, 426, 200}, arrives: "*", check: noUpgrade})
	}
	add("WebSocket to what is closed", upgrade("/admin", "websocket"), 403)
	add("WebSocket to what is closed, in disguise", upgrade("/public/..%2fadmin", "websocket"), 400)
	out = append(out, vector{name: "WebSocket to what is open", threat: "B33", raw: upgrade("/public/ws", "websocket"), status: []int{101}, arrives: "/public/ws"})
	for _, h := range []string{"X-HTTP-Method-Override", "X-HTTP-Method", "X-Method-Override", "x-http-method-override"} {
		add(h, line("POST /public/x HTTP/1.1", h+": DELETE", "Content-Length: 0"), 400)
		add(h+" of a GET", get("/public/x", h+": PUT"), 400)
	}
	add("X_HTTP_METHOD_OVERRIDE", get("/public/x", "X_HTTP_METHOD_OVERRIDE: PUT"), 400)
	for _, m := range []string{"DELETE", "PUT", "PATCH", "TRACE", "TRACK", "PROPFIND", "get", "Get", "GET_", "OPTIONS", "PRI", "DEBUG"} {
		add("method "+m, line(m+" /public/x HTTP/1.1"), denied...)
	}
	add("OPTIONS *", line("OPTIONS * HTTP/1.1"), denied...)
	add("the preface of HTTP/2, half", "PRI * HTTP/2.0\r\n\r\nSM\r\n", 400, 0)
	add("PRI with headers", "PRI * HTTP/2.0\r\nHost: app.test\r\n\r\n", 400, 0)
	add("Expect, and a body that is closed", line("POST /admin HTTP/1.1", "Expect: 100-continue", "Content-Length: 1"), 403, 100, 417)
	return out
}

func upgrade(target, protocol string, headers ...string) string {
	all := append([]string{"Upgrade: " + protocol, "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ=="}, headers...)
	return strings.Replace(get(target, all...), "Connection: close", "Connection: Upgrade, HTTP2-Settings, close", 1)
}

// hostAttacks are requests whose host is not one, or not the one that it seems.
func hostAttacks() []vector {
	var out []vector
	add := func(name, raw string, status ...int) {
		out = append(out, vector{name: name, threat: "B30", raw: raw, status: status})
	}
	with := func(target string, hosts ...string) string {
		out := "GET " + target + " HTTP/1.1\r\nConnection: close\r\n"
		for _, h := range hosts {
			out += "Host: " + h + "\r\n"
		}
		return out + "\r\n"
	}
	add("none", with("/public/x"), 400)
	add("two", with("/public/x", "app.test", "evil-1.test"), 400)
	add("the same twice", with("/public/x", "app.test", "app.test"), 400)
	for _, h := range []string{"", "a b", "a,b", "app.test, evil-1.test", "user@app.test", "app.test/x", "app.test?x", "app.test#x", `app.test\x`, "app.test:80:81", "app.test:x", "[::1", "::1", "evil-\xff", "a%2eb", "a;b", "<a>", `"a"`, "a\tb", "app.test:", "évil"} {
		add("host "+h, with("/public/x", h), 400, 404)
	}
	for _, h := range []string{"closed.test", "CLOSED.test", "closed.TEST", "closed.test.", "closed.test:80", "closed.test:8080", "closed.test:443", "closed.test.:80", " closed.test ", "CLOSED.TEST.:8443"} {
		add("the closed host as "+h, with("/public/x", h), 403, 400, 404)
	}
	add("the closed host in the target", with("http://closed.test/public/x", "app.test"), 403, 400)
	out = append(out, vector{name: "the closed host in Host, another in the target", threat: "B30", raw: with("http://app.test/public/x", "closed.test"), status: []int{200, 400, 403}, arrives: "*", check: hostIsNot("closed.test")})
	add("a target with a user", with("http://user@closed.test/public/x", "app.test"), 400, 403, 404)
	add("a target of another scheme", with("ftp://app.test/admin", "app.test"), 400, 403, 404, 0)
	add("a closed path in an absolute target", with("http://app.test/admin", "app.test"), 403)
	add("a hidden path in an absolute target", with("http://app.test/public/..%2fadmin", "app.test"), 400)
	add("x-forwarded-host", get("/admin", "X-Forwarded-Host: app.test"), 403)
	return out
}

func noUpgrade(t *testing.T, got []reached) {
	for _, q := range got {
		if q.header.Get("Upgrade") != "" || q.header.Get("Http2-Settings") != "" {
			t.Errorf("an upgrade arrived: %q", q.head)
		}
	}
}

func hostIsNot(host string) func(*testing.T, []reached) {
	return func(t *testing.T, got []reached) {
		for _, q := range got {
			if strings.Contains(q.header.Get("Host"), host) {
				t.Errorf("%q arrived", q.head)
			}
		}
	}
}
