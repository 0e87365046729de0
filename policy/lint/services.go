package lint

import (
	"fmt"
	"strings"

	corev1 "k8s.io/api/core/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/strict"
)

func (l *linter) services() {
	for s := range policy.All[*policy.Service](l.set) {
		if s.Spec == nil {
			continue
		}
		for i, p := range s.Spec.Ports {
			if p.Protocol == corev1.ProtocolUDP || p.Protocol == corev1.ProtocolSCTP || p.AppProtocol != nil || protocolName(p.Name) {
				continue
			}
			l.info(&s.Object, fmt.Sprintf("spec.ports[%d]", i), CodePortWithoutProtocol, fmt.Sprintf("name: http-%d, or appProtocol: http", p.Port),
				"the port's name tells no protocol, so port %d is treated as TCP: no path, method or token is looked at", p.Port)
		}
	}
}

// httpAlone tells whether a selector selects workloads, and all ports of them that are known speak HTTP.
func (l *linter) httpAlone(namespace string, labels map[string]string) bool {
	workloads := l.set.WorkloadsIn(namespace)
	if namespace == l.mesh.RootNamespace {
		workloads = l.set.Workloads()
	}
	ports := 0
	for w := range workloads {
		if !policy.Selects(labels, w.Labels) {
			continue
		}
		n, http := l.portsOf(w)
		if ports += n; !http {
			return false
		}
	}
	return ports > 0
}

// portsOf counts the ports of a workload that are known, and tells whether all of them speak HTTP.
func (l *linter) portsOf(w *policy.Workload) (n int, http bool) {
	if w.Gateway != nil {
		for _, listener := range w.Gateway.Spec.Listeners {
			if listener.Protocol != gatewayv1.HTTPProtocolType && listener.Protocol != gatewayv1.HTTPSProtocolType {
				return n, false
			}
			n++
		}
		return n, true
	}
	for name := range w.Entry.Spec.GetPorts() {
		if !httpName(name) {
			return n, false
		}
		n++
	}
	for s := range policy.In[*policy.Service](l.set, w.Namespace) {
		if s.Spec == nil || len(s.Spec.Selector) == 0 || !policy.Selects(s.Spec.Selector, w.Labels) {
			continue
		}
		for _, p := range s.Spec.Ports {
			name := p.Name
			if p.AppProtocol != nil {
				name = *p.AppProtocol
			}
			if !httpName(name) {
				return n, false
			}
			n++
		}
	}
	return n, true
}

// httpName tells whether a port's name or appProtocol is one of HTTP's.
func httpName(name string) bool {
	first, _, _ := strings.Cut(strings.TrimPrefix(strings.ToLower(name), "kubernetes.io/"), "-")
	switch first {
	case "http", "http2", "grpc", "h2c", "ws":
		return true
	}
	return false
}

// protocolName tells whether a port's name starts with a protocol, as Istio reads it.
func protocolName(name string) bool {
	first, _, _ := strings.Cut(strings.ToLower(name), "-")
	switch first {
	case "http", "http2", "https", "grpc", "tcp", "tls", "mongo", "mysql", "redis", "udp", "ws":
		return true
	}
	return false
}

func (l *linter) routes() {
	routed := map[string]bool{}
	for r := range policy.All[*policy.HTTPRoute](l.set) {
		if r.Spec == nil {
			continue
		}
		for i, p := range r.Spec.ParentRefs {
			if p.Kind != nil && *p.Kind != "Gateway" {
				continue
			}
			space := r.Key.Namespace
			if p.Namespace != nil {
				space = string(*p.Namespace)
			}
			routed[space+"/"+string(p.Name)] = true
			if _, ok := policy.Get[*policy.Gateway](l.set, space, string(p.Name)); !ok {
				l.warn(&r.Object, fmt.Sprintf("spec.parentRefs[%d].name", i), CodeUnknownGateway, nearest[*policy.Gateway](l, space, string(p.Name), "write the Gateway, or correct the name"), "there is no Gateway %s/%s", space, p.Name)
			}
		}
		for i, rule := range r.Spec.Rules {
			for j, b := range rule.BackendRefs {
				l.backend(r, fmt.Sprintf("spec.rules[%d].backendRefs[%d]", i, j), b.BackendObjectReference)
			}
		}
	}
	for g := range policy.All[*policy.Gateway](l.set) {
		if g.Spec == nil {
			continue
		}
		if !routed[g.Key.Namespace+"/"+g.Key.Name] {
			l.warn(&g.Object, "spec.listeners", CodeGatewayWithoutRoutes, "add an HTTPRoute whose parentRefs name this Gateway",
				"no HTTPRoute belongs to this Gateway: every request is answered 404")
		}
		l.certificates(g)
	}
}

func (l *linter) backend(r *policy.HTTPRoute, at string, b gatewayv1.BackendObjectReference) {
	if b.Kind != nil && *b.Kind != "Service" || b.Group != nil && *b.Group != "" {
		return
	}
	space := r.Key.Namespace
	if b.Namespace != nil {
		space = string(*b.Namespace)
	}
	s, ok := policy.Get[*policy.Service](l.set, space, string(b.Name))
	if !ok {
		l.warn(&r.Object, at+".name", CodeUnknownService, nearest[*policy.Service](l, space, string(b.Name), "write the Service, or correct the name"), "there is no Service %s/%s: its share of the requests is answered 500", space, b.Name)
		return
	}
	if b.Port == nil || s.Spec == nil {
		return
	}
	var ports []string
	for _, p := range s.Spec.Ports {
		if p.Port == int32(*b.Port) {
			return
		}
		ports = append(ports, fmt.Sprint(p.Port))
	}
	l.warn(&r.Object, at+".port", CodeUnknownService, "one of the Service's ports: "+strings.Join(ports, ", "), "Service %s/%s has no port %d: its share of the requests is answered 500", space, b.Name, *b.Port)
}

func (l *linter) certificates(g *policy.Gateway) {
	for i, listener := range g.Spec.Listeners {
		if listener.TLS == nil {
			continue
		}
		for j, c := range listener.TLS.CertificateRefs {
			space := g.Key.Namespace
			if c.Namespace != nil {
				space = string(*c.Namespace)
			}
			if _, ok := policy.Get[*policy.Secret](l.set, space, string(c.Name)); !ok {
				l.warn(&g.Object, fmt.Sprintf("spec.listeners[%d].tls.certificateRefs[%d].name", i, j), CodeUnknownSecret,
					nearest[*policy.Secret](l, space, string(c.Name), "write a Secret of type kubernetes.io/tls, or correct the name"), "there is no Secret %s/%s: the listener has no certificate", space, c.Name)
			}
		}
	}
}

// nearest proposes the name of an object that exists, or something else to try.
func nearest[T policy.Resource](l *linter, namespace, name, otherwise string) string {
	var names []string
	for r := range policy.In[T](l.set, namespace) {
		names = append(names, r.Meta().Key.Name)
	}
	if near, ok := strict.Nearest(name, names); ok {
		return "did you mean " + near + "?"
	}
	return otherwise
}
