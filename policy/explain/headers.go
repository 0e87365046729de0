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

// get joins the values of a header as Envoy's matchers do.
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
