package explain

import (
	"net/netip"
	"slices"
	"strings"
)

// headers are request headers in the order in which they came, with the pseudo-headers of HTTP/2 among them, as Envoy keeps them.
type headers struct{ list []Header }

func canonicalName(name string) string {
	name = strings.ToLower(name)
	if name == "host" {
		return ":authority"
	}
	return name
}

func (h *headers) add(name, value string) {
	h.list = append(h.list, Header{canonicalName(name), value})
}

// arrive adds a header from the wire. Envoy keeps some headers as one, however often they are sent, and joins their values by commas.
func (h *headers) arrive(name, value string) {
	if oneValue(name) {
		h.append(name, value)
		return
	}
	h.add(name, value)
}

func oneValue(name string) bool {
	switch name {
	case "authorization", "accept", "accept-encoding", "access-control-request-method", "content-type", "origin", "referer", "user-agent", "via",
		"x-client-trace-id", "x-forwarded-client-cert", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-proto", "x-request-id":
		return true
	}
	return false
}

func (h *headers) remove(name string) {
	name = canonicalName(name)
	h.list = slices.DeleteFunc(h.list, func(x Header) bool { return x.Name == name })
}

func (h *headers) set(name, value string) {
	name = canonicalName(name)
	for i := range h.list {
		if h.list[i].Name == name {
			h.list[i].Value = value
			rest := slices.DeleteFunc(slices.Clone(h.list[i+1:]), func(x Header) bool { return x.Name == name })
			h.list = append(h.list[:i+1:i+1], rest...)
			return
		}
	}
	h.add(name, value)
}

// all are the values of a header, in order.
func (h *headers) all(name string) []string {
	name = canonicalName(name)
	var out []string
	for _, x := range h.list {
		if x.Name == name {
			out = append(out, x.Value)
		}
	}
	return out
}

// get joins the values of a header.
func (h *headers) get(name string) (string, bool) {
	all := h.all(name)
	return strings.Join(all, ","), len(all) > 0
}

func (h *headers) value(name string) string {
	v, _ := h.get(name)
	return v
}

func (h *headers) path() string { return h.value(":path") }

// trusted is the client's address in X-Forwarded-For, skipping as many entries from the right as trusted proxies wrote.
func (h *headers) trusted(skip uint32) (netip.Addr, bool) {
	values, ok := h.get("x-forwarded-for")
	if !ok {
		return netip.Addr{}, false
	}
	list := strings.Split(values, ",")
	i := len(list) - 1 - int(skip)
	if i < 0 {
		return netip.Addr{}, false
	}
	a, err := netip.ParseAddr(strings.TrimSpace(list[i]))
	return a, err == nil && a.Zone() == ""
}
