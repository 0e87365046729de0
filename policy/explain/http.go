package explain

import (
	"fmt"
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
)

// http takes the request through a connection manager.
func (r *run) http(m *hcmv3.HttpConnectionManager) {
	r.conn.name, r.manager = m.GetStatPrefix(), m
	if r.decode(m); r.done {
		return
	}
	r.place(m)
	if r.canonical(m); r.done {
		return
	}
	if r.early(m); r.done {
		return
	}
	r.addresses(m)
	table := m.GetRouteConfig()
	if m.GetRds() != nil {
		table = r.config.tables[m.GetRds().GetRouteConfigName()]
	}
	for _, f := range m.GetHttpFilters() {
		if r.filter(f, table); r.done {
			return
		}
	}
	if !r.done {
		r.unsure("route", "the chain has no router")
	}
}

// decode makes the headers as Envoy's codec does, and refuses what it refuses.
func (r *run) decode(m *hcmv3.HttpConnectionManager) {
	if n := m.GetCommonHttpProtocolOptions().GetMaxHeadersCount().GetValue(); n > 0 && len(r.req.Headers)+1 > int(n) {
		r.deny("http", 431, fmt.Sprintf("the request has more than %d headers", n))
		return
	}
	h := &headers{}
	host := r.req.Host
	for _, x := range r.req.Headers {
		if strings.EqualFold(x.Name, "host") {
			host = x.Value
		}
	}
	if m.GetStripTrailingHostDot() {
		host = withoutDot(host)
	}
	scheme := "http"
	if r.conn.tls {
		scheme = "https"
	}
	h.list = []Header{{":authority", host}, {":path", r.req.Path}, {":method", r.req.Method}, {":scheme", scheme}}
	for _, x := range r.req.Headers {
		name := strings.ToLower(x.Name)
		if strings.Contains(name, "_") && m.GetCommonHttpProtocolOptions().GetHeadersWithUnderscoresAction() == corev3.HttpProtocolOptions_REJECT_REQUEST {
			r.deny("http", 400, fmt.Sprintf("header %s has an underscore in its name, which many backends take for a dash", name))
			return
		}
		if name != "host" && !hopByHop(name) {
			h.arrive(name, strings.Trim(x.Value, " \t"))
		}
	}
	r.headers = h

}

// hopByHop headers end at a proxy.
func hopByHop(name string) bool {
	switch name {
	case "connection", "keep-alive", "proxy-connection", "transfer-encoding", "upgrade", "te":
		return true
	}
	return false
}

// canonical is what is done to the path before anything looks at it.
func (r *run) canonical(m *hcmv3.HttpConnectionManager) {
	path := r.headers.path()
	switch {
	case path != "" && path[0] != '/':
		r.deny("path", 404, "the path does not begin with a slash")
		return
	case strings.Contains(path, "#"):
		r.deny("path", 400, "the path has a fragment")
		return
	}
	if m.GetPathWithEscapedSlashesAction() == hcmv3.HttpConnectionManager_REJECT_REQUEST && escapedSlash(path) {
		r.deny("path", 400, "the path has an escaped slash or backslash, which backends read in different ways")
		return
	}
	done := path
	switch a := m.GetPathWithEscapedSlashesAction(); {
	case !escapedSlash(path):
	case a == hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD:
		done = unescapeSlashes(path)
	case a == hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT:
		r.unsure("path", "a path with escaped slashes is redirected, which is not evaluated here")
	}
	if m.GetNormalizePath().GetValue() {
		var ok bool
		if done, ok = normalize(done); !ok {
			r.deny("path", 400, "the path cannot be made canonical")
			return
		}
	}
	if m.GetMergeSlashes() {
		done = mergeSlashes(done)
	}
	r.headers.set(":path", done)
	if done != path {
		r.pass("path", fmt.Sprintf("%s is read as %s", withoutQuery(path), withoutQuery(done)))
	}
}

// early removes headers before Envoy itself looks at them.
func (r *run) early(m *hcmv3.HttpConnectionManager) {
	for _, e := range m.GetEarlyHeaderMutationExtensions() {
		config, err := r.config.unpack(e.GetTypedConfig())
		edits, ok := config.(*earlyv3.HeaderMutation)
		if err != nil || !ok {
			r.unsure("http", "headers are edited by "+e.GetName()+", which is not evaluated here")
			continue
		}
		r.edit("http", edits.GetMutations())
	}
}

// withoutDot takes the dot off the end of a host name.
func withoutDot(host string) string {
	name, port := host, ""
	if i := strings.LastIndexByte(host, ':'); i >= 0 && !strings.HasSuffix(host, "]") {
		name, port = host[:i], host[i:]
	}
	return strings.TrimSuffix(name, ".") + port
}

// replied is the status that the client gets where the proxy answers with code by itself.
func (r *run) replied(code int) int {
	for _, x := range r.manager.GetLocalReplyConfig().GetMappers() {
		f := x.GetFilter().GetMetadataFilter()
		if f == nil {
			r.note("reply", "the proxy's own answers are changed in a way that is not evaluated here")
			continue
		}
		var path []string
		for _, s := range f.GetMatcher().GetPath() {
			path = append(path, s.GetKey())
		}
		v := r.metadata.find(f.GetMatcher().GetFilter(), path)
		if v == nil && f.GetMatchIfKeyNotFound().GetValue() || v != nil && r.config.remembered.value(f.GetMatcher().GetValue(), v) == yes {
			if n := x.GetStatusCode().GetValue(); n > 0 {
				return int(n)
			}
			return code
		}
	}
	return code
}

// addresses finds the client behind proxies, and sets what Envoy tells of connections in headers.
func (r *run) addresses(m *hcmv3.HttpConnectionManager) {
	edge := m.GetUseRemoteAddress().GetValue()
	hops := m.GetXffNumTrustedHops()
	switch {
	case !edge:
		if a, ok := r.headers.trusted(hops); ok {
			r.conn.remote = a
		}
	case hops > 0:
		if a, ok := r.headers.trusted(hops - 1); ok {
			r.conn.remote = a
		}
	}
	if edge && !m.GetSkipXffAppend() {
		r.headers.append("x-forwarded-for", forwardedFor(r.conn.direct))
	}
	scheme := r.headers.value(":scheme")
	if _, ok := r.headers.get("x-forwarded-proto"); !ok || edge && hops == 0 {
		r.headers.set("x-forwarded-proto", scheme)
	}
	if _, ok := r.headers.get("x-request-id"); !ok || edge {
		r.headers.set("x-request-id", "00000000-0000-4000-8000-000000000000")
	}
	r.certificate(m)
	if r.conn.remote != r.conn.direct {
		r.note("client", "the client is "+r.conn.remote.String()+", by X-Forwarded-For")
	}
}

// forwardedFor is what Envoy adds to X-Forwarded-For: the client's address or, of one on the same host, the host's own, which is not known here.
func forwardedFor(a netip.Addr) string {
	if a == netip.AddrFrom4([4]byte{127, 0, 0, 1}) || a == netip.IPv6Loopback() {
		return "the-proxys-own-address"
	}
	return a.String()
}

func (h *headers) append(name, value string) {
	if v, ok := h.get(name); ok {
		value = v + "," + value
	}
	h.set(name, value)
}

// certificate is X-Forwarded-Client-Cert.
func (r *run) certificate(m *hcmv3.HttpConnectionManager) {
	switch m.GetForwardClientCertDetails() {
	case hcmv3.HttpConnectionManager_SANITIZE:
		r.headers.remove("x-forwarded-client-cert")
	case hcmv3.HttpConnectionManager_SANITIZE_SET:
		r.headers.remove("x-forwarded-client-cert")
		if r.conn.peer != "" {
			r.headers.add("x-forwarded-client-cert", "URI="+r.conn.peer)
		}
	default:
		r.unsure("http", "X-Forwarded-Client-Cert is passed on, which is not evaluated here")
	}
}
