package e2e

import (
	"fmt"
	"strings"
)

// smuggled is a request that must never be seen as one.
const smuggled = "GET /admin HTTP/1.1\r\nHost: app.test\r\nX-Smuggled: evil-1\r\n\r\n"

// framingAttacks are messages about whose end, or lines, two servers may disagree.
func framingAttacks() []vector {
	var out []vector
	add := func(name, raw string, status ...int) {
		out = append(out, vector{name: name, threat: "B28", raw: raw, status: status, arrives: "*"})
	}
	post := func(headers ...string) string { return line("POST /public/p HTTP/1.1", headers...) }
	refused := []int{400, 0, 501}
	add("a length and chunks", post("Content-Length: 5", "Transfer-Encoding: chunked")+"0\r\n\r\n"+smuggled, refused...)
	add("chunks and a length", post("Transfer-Encoding: chunked", "Content-Length: 5")+"0\r\n\r\n"+smuggled, refused...)
	add("two lengths", post("Content-Length: 0", fmt.Sprintf("Content-Length: %d", len(smuggled)))+smuggled, refused...)
	add("two lengths in one", post("Content-Length: 0, 5")+smuggled, refused...)
	add("a length with a sign", post("Content-Length: +0")+smuggled, refused...)
	add("a negative length", post("Content-Length: -1")+smuggled, refused...)
	add("a hexadecimal length", post("Content-Length: 0x0")+smuggled, refused...)
	add("an empty length", post("Content-Length: ")+smuggled, refused...)
	add("a huge length", post("Content-Length: 18446744073709551616")+smuggled, refused...)
	add("a length with a space inside", post("Content-Length: 0 0")+smuggled, refused...)
	add("a space before the colon of a length", post("Content-Length : 0")+smuggled, refused...)
	for _, te := range []string{"xchunked", "chunked, identity", "identity", "identity, chunked", "chunked, chunked", "gzip, chunked", "chunked;x", "\x0bchunked", "chun\x00ked", "'chunked'", "gzip"} {
		add(fmt.Sprintf("transfer-encoding %q", te), post("Transfer-Encoding: "+te)+"0\r\n\r\n"+smuggled, refused...)
	}
	add("two transfer-encodings", post("Transfer-Encoding: chunked", "Transfer-Encoding: identity")+"0\r\n\r\n"+smuggled, refused...)
	add("transfer-encoding with an underscore", post("Transfer_Encoding: chunked", "Content-Length: 3")+"0\r\n", 400)
	add("content-length with an underscore", post("Content_Length: 5"), 400)
	add("a space before the colon of a transfer-encoding", post("Transfer-Encoding : chunked")+"0\r\n\r\n"+smuggled, refused...)
	add("a folded transfer-encoding", post("Transfer-Encoding:\r\n chunked")+"0\r\n\r\n"+smuggled, append(refused, 200)...) // one line of it, as above
	add("a folded header", get("/public/p", "X-A: b\r\n  X-Tenant-Id: 1"), 400, 0, 200)                                     // Envoy makes one line of it
	add("a header folded with a tab", get("/public/p", "X-A: b\r\n\tX-Tenant-Id: 1"), 400, 0, 200)
	add("a folded first header", "GET /public/p HTTP/1.1\r\n Host: app.test\r\n\r\n", refused...)
	add("chunks with a bad size", post("Transfer-Encoding: chunked")+"g\r\nx\r\n0\r\n\r\n", refused...)
	add("chunks with a sign", post("Transfer-Encoding: chunked")+"+1\r\nx\r\n0\r\n\r\n", refused...)
	add("a chunk of a huge size", post("Transfer-Encoding: chunked")+"ffffffffffffffff1\r\nx\r\n0\r\n\r\n", refused...)
	add("chunks with bare line feeds", post("Transfer-Encoding: chunked")+"1\nx\n0\n\n"+smuggled, refused...)
	add("chunks that end too early", post("Transfer-Encoding: chunked")+"0\r\nX: y\r\n"+smuggled, 400, 0, 200, 403)
	add("a name with a space", get("/public/p", "X A: evil-1"), refused...)
	add("a name with a null", get("/public/p", "X\x00A: evil-1"), refused...)
	add("a name with a control byte", get("/public/p", "X\x01A: evil-1"), refused...)
	add("a name of high bytes", get("/public/p", "X\xe9: evil-1"), refused...)
	add("an empty name", get("/public/p", ": evil-1"), refused...)
	add("a line without a colon", get("/public/p", "evil-1"), refused...)
	add("a value with a null", get("/public/p", "X-A: evil-\x00"), refused...)
	add("a value with a bare carriage return", get("/public/p", "X-A: b\rX-Tenant-Id: 1"), 400, 0, 200) // Envoy takes it out
	add("a value with a bare line feed", get("/public/p", "X-A: b\nX-Tenant-Id: evil-1"), 200, 400)
	add("a value with a control byte", get("/public/p", "X-A: evil-\x01"), refused...)
	add("a value with DEL", get("/public/p", "X-A: evil-\x7f"), refused...)
	add("an underscore", get("/public/p", "X_Evil: evil-1"), 400)
	add("too many headers", get("/public/p", many(150)...), 431, 400)
	add("too large headers", get("/public/p", "X-Large: evil-"+strings.Repeat("x", 100<<10)), 431, 400, 0)
	add("HTTP/1.0", "GET /public/p HTTP/1.0\r\nHost: app.test\r\nX-A: evil-1\r\n\r\n", 426, 400, 0)
	add("HTTP/0.9", "GET /public/p\r\n", 426, 400, 0)
	add("HTTP/1.2", "GET /public/p HTTP/1.2\r\nHost: app.test\r\nConnection: close\r\n\r\n", 400, 426, 505, 0)
	add("HTTP/9.9", "GET /public/p HTTP/9.9\r\nHost: app.test\r\n\r\n", 400, 426, 505, 0)
	add("http/1.1 in lower case", "GET /public/p http/1.1\r\nHost: app.test\r\n\r\n", refused...)
	add("two spaces in the request line", "GET  /public/p HTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n", 400, 0, 200)
	add("a tab in the request line", "GET\t/public/p\tHTTP/1.1\r\nHost: app.test\r\nConnection: close\r\n\r\n", 400, 0, 200)
	add("a method with a control byte", "G\x01T /public/p HTTP/1.1\r\nHost: app.test\r\n\r\n", refused...)
	add("garbage", "\x16\x03\x01evil-\x00\x00", 400, 0)
	add("a second request behind", "GET /public/p HTTP/1.1\r\nHost: app.test\r\n\r\n"+line("GET /admin HTTP/1.1", "X-A: evil-1"), 200)
	add("a body of a GET that is a request", get("/public/p", fmt.Sprintf("Content-Length: %d", len("GET /admin HTTP/1.1\r\n\r\n")))+"GET /admin HTTP/1.1\r\n\r\n", 200)
	add("a header named by Connection", get("/public/p", "Connection: x-tenant-id", "X-Tenant-Id: evil-1"), 200, 400)
	add("a verified header named by Connection", get("/tenants/t1/x", "Connection: authorization, x-tenant-id"), 403, 400)
	add("TE", get("/public/p", "TE: evil-1", "Connection: TE"), 200, 400)
	add("trailers", post("Transfer-Encoding: chunked")+"0\r\nX-Tenant-Id: evil-1\r\n\r\n", 200, 400)
	return out
}

func many(n int) []string {
	out := make([]string, n)
	for i := range out {
		out[i] = fmt.Sprintf("X-Many-%d: evil-%d", i, i)
	}
	return out
}
