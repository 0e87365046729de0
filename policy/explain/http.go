package explain

import (
	"fmt"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// http takes the request through a connection manager.
func (r *run) http(m *hcmv3.HttpConnectionManager) {
	r.conn.name = m.GetStatPrefix()
	if r.decode(m); r.done {
		return
	}
	r.place(m)
	if r.canonical(m); r.done {
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
	h := &headers{}
	host := r.req.Host
	for _, x := range r.req.Headers {
		if strings.EqualFold(x.Name, "host") {
			host = x.Value
		}
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
			h.add(name, x.Value)
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
	if a := m.GetPathWithEscapedSlashesAction(); a > hcmv3.HttpConnectionManager_REJECT_REQUEST && escapedSlash(path) {
		r.unsure("path", "escaped slashes are unescaped, which is not evaluated here")
	}
	done := path
	if m.GetNormalizePath().GetValue() {
		var ok bool
		if done, ok = normalize(path); !ok {
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
		r.headers.append("x-forwarded-for", r.conn.direct.String())
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
	}
}
