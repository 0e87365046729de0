package compile

import (
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/ir"
)

// attachment is a route that names the gateway as its parent, by one of its parentRefs.
type attachment struct {
	route *policy.HTTPRoute
	ref   *gatewayv1.ParentReference
}

// parents tells whether a parentRef of a route names a gateway.
func parents(ref *gatewayv1.ParentReference, route *policy.HTTPRoute, gateway policy.Key) bool {
	ns := route.Key.Namespace
	if ref.Namespace != nil {
		ns = string(*ref.Namespace)
	}
	return (ref.Group == nil || *ref.Group == gatewayGroup) && (ref.Kind == nil || *ref.Kind == "Gateway") && ns == gateway.Namespace && string(ref.Name) == gateway.Name
}

// attachments is every route of the mesh that names the gateway.
func (g *gatewayer) attachments() []attachment {
	var out []attachment
	for r := range policy.All[*policy.HTTPRoute](g.set) {
		if r.Spec == nil {
			continue
		}
		for i := range r.Spec.ParentRefs {
			if parents(&r.Spec.ParentRefs[i], r, g.object.Key) {
				out = append(out, attachment{r, &r.Spec.ParentRefs[i]})
			}
		}
	}
	return out
}

// takes tells whether a listener takes the route: by section, port, namespace and kind.
func (g *gatewayer) takes(l gatewayListener, a attachment) bool {
	if a.ref.SectionName != nil && *a.ref.SectionName != l.spec.Name || a.ref.Port != nil && *a.ref.Port != l.spec.Port {
		return false
	}
	allowed := l.spec.AllowedRoutes
	if allowed == nil {
		return a.route.Key.Namespace == g.object.Key.Namespace
	}
	kind := len(allowed.Kinds) == 0 || slices.ContainsFunc(allowed.Kinds, func(k gatewayv1.RouteGroupKind) bool {
		return k.Kind == "HTTPRoute" && (k.Group == nil || *k.Group == gatewayGroup)
	})
	return kind && g.namespaceAllowed(allowed.Namespaces, a.route.Key.Namespace)
}

func (g *gatewayer) namespaceAllowed(n *gatewayv1.RouteNamespaces, namespace string) bool {
	from := gatewayv1.NamespacesFromSame
	if n != nil && n.From != nil {
		from = *n.From
	}
	switch from {
	case gatewayv1.NamespacesFromAll:
		return true
	case gatewayv1.NamespacesFromSelector:
		if n.Selector == nil {
			return false
		}
		labels := map[string]string{}
		if ns, ok := policy.Get[*policy.Namespace](g.set, "", namespace); ok {
			for k, v := range ns.Labels {
				labels[k] = v
			}
		}
		labels["kubernetes.io/metadata.name"] = namespace
		return selects(n.Selector, labels)
	case gatewayv1.NamespacesFromSame:
		return namespace == g.object.Key.Namespace
	default:
		return false
	}
}

// hosted is routes of one domain.
type hosted struct {
	domain string
	rules  []rankedRoute
	from   []ir.Source
}

// table adds the route table of listeners that share a port. A domain is served by the listener whose hostname fits it best, and by no other.
func (g *gatewayer) table(name string, listeners []gatewayListener, routes []attachment) {
	hosts := map[string]*hosted{}
	for _, l := range listeners {
		for _, a := range routes {
			if !g.takes(l, a) {
				continue
			}
			for _, d := range intersect(l.hostname(), a.route.Spec.Hostnames) {
				if bestFor(listeners, d) != l.index {
					continue
				}
				h := hosts[d]
				if h == nil {
					h = &hosted{domain: d}
					hosts[d] = h
				}
				if s := sourceOf(&a.route.Object); !slices.Contains(h.from, s) {
					h.from = append(h.from, s)
					h.rules = append(h.rules, g.rules(l, a.route)...)
				}
			}
		}
	}
	t := ir.RouteTable{Name: name, AnyPort: true, Sources: []ir.Source{sourceOf(&g.object.Object)}}
	for _, d := range sortedKeys(hosts) {
		h := hosts[d]
		sortRoutes(h.rules)
		v := &ir.VirtualHost{Name: d, Domains: []string{d}, Sources: h.from}
		for _, r := range h.rules {
			v.Routes = append(v.Routes, r.route)
		}
		t.Hosts = append(t.Hosts, v)
	}
	for _, l := range listeners { // a listener with a hostname and no route for it hides the wider ones
		if d := l.hostname(); d != "" && hosts[d] == nil && len(listeners) > 1 {
			t.Hosts = append(t.Hosts, &ir.VirtualHost{Name: d, Domains: []string{d}})
			hosts[d] = &hosted{}
		}
	}
	g.part.Routes = append(g.part.Routes, t)
}

// intersect is the domains that a route has at a listener. A listener or a route without hostnames takes them all.
func intersect(listener string, route []gatewayv1.Hostname) []string {
	if len(route) == 0 {
		if listener == "" {
			return []string{"*"}
		}
		return []string{listener}
	}
	var out []string
	for _, h := range route {
		h := strings.ToLower(string(h))
		switch {
		case listener == "" || covers(listener, h):
			out = append(out, h)
		case covers(h, listener):
			out = append(out, listener)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// covers tells whether every name that b stands for is one that a stands for. "*.example.com" covers any number of labels.
func covers(a, b string) bool {
	if suffix, ok := strings.CutPrefix(a, "*"); ok {
		return strings.HasSuffix(b, suffix) && len(b) > len(suffix)
	}
	return a == b
}

// bestFor is the index of the listener that serves a domain.
func bestFor(listeners []gatewayListener, domain string) int {
	best, length := -1, -1
	for _, l := range listeners {
		h := l.hostname()
		n := len(h)
		if h == domain {
			n = 1 << 10
		} else if h != "" && !covers(h, domain) {
			continue
		}
		if n > length {
			best, length = l.index, n
		}
	}
	return best
}
