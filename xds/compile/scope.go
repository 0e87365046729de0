package compile

import (
	"strings"
)

// hostScope is what one "namespace/host" of Sidecar.egress lets through.
type hostScope struct{ namespace, host string }

// scopes reads Sidecar.egress.hosts; "." is the namespace of the workload. No entry at all lets everything through.
func scopes(hosts []string, namespace string) []hostScope {
	var out []hostScope
	for _, h := range hosts {
		ns, host, ok := strings.Cut(h, "/")
		if !ok {
			ns, host = "*", h
		}
		if ns == "." {
			ns = namespace
		}
		out = append(out, hostScope{ns, strings.ToLower(host)})
	}
	return out
}

// covers tells whether a service is let through. "~" is no namespace.
func (h hostScope) covers(s *service) bool {
	if h.namespace == "~" || h.namespace != "*" && h.namespace != s.namespace {
		return false
	}
	if suffix, ok := strings.CutPrefix(h.host, "*"); ok {
		return strings.HasSuffix(s.host, suffix)
	}
	return h.host == s.host
}

// within is the services of a list that some scope covers.
func within(services []*service, of []hostScope) []*service {
	var out []*service
	for _, s := range services {
		for _, h := range of {
			if h.covers(s) {
				out = append(out, s)
				break
			}
		}
	}
	return out
}

// given is a service that gives way to another one with its host.
type given struct{ service, way *service }

// seenBy is the services that a namespace may use, one a host, and those that give way.
func (r *registry) seenBy(namespace string) ([]*service, []given) {
	var out []*service
	var gave []given
	for i, n := 0, 0; i < len(r.services); i = n {
		for n = i + 1; n < len(r.services) && r.services[n].host == r.services[i].host; {
			n++
		}
		best, rest := r.choose(r.services[i:n], namespace)
		if best != nil {
			out = append(out, best)
		}
		for _, s := range rest {
			gave = append(gave, given{s, best})
		}
	}
	return out, gave
}
