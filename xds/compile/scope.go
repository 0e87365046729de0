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

// seenBy is the services that a namespace may use, one a host: the v1 Service, or else its own ServiceEntry, or else that of the first namespace
// by name.
func (r *registry) seenBy(namespace string) []*service {
	var out []*service
	for _, s := range r.services {
		if !s.visible(namespace) {
			continue
		}
		if n := len(out); n > 0 && out[n-1].host == s.host {
			if out[n-1].name == "" && s.namespace == namespace && out[n-1].namespace != namespace {
				out[n-1] = s
			}
			continue
		}
		out = append(out, s)
	}
	return out
}
