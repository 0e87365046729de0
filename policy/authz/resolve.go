package authz

import (
	"fmt"
	"slices"
	"strings"

	"github.com/credence-mesh/credence/policy"
)

const (
	dnsDomain = ".svc.cluster.local"
	// exportTo is Istio's annotation of a Service: the namespaces that may use it.
	exportTo = "networking.istio.io/exportTo"
)

// place is the service that a provider is: whatever else claims its host is somebody else.
type place struct{ namespace, host string }

// Owners is the namespaces that the hosts of the mesh's authorizers belong to. For no proxy may another object stand for such a host.
func Owners(set *policy.Set) map[string]string {
	out := map[string]string{}
	for _, p := range set.Mesh().ExtensionProviders {
		if p.EnvoyExtAuthzGRPC == nil {
			continue
		}
		if at, err := find(set, p.EnvoyExtAuthzGRPC.Service); err == nil {
			out[at.host] = at.namespace
		}
	}
	return out
}

// Names tells whether an object is, or claims to be, a service that some authorizer of the mesh is said to be.
func Names(mesh policy.Mesh, r policy.Resource) bool {
	return slices.ContainsFunc(mesh.ExtensionProviders, func(p policy.ExtensionProvider) bool {
		if p.EnvoyExtAuthzGRPC == nil {
			return false
		}
		_, host := parse(p.EnvoyExtAuthzGRPC.Service)
		switch o := r.(type) {
		case *policy.Service:
			return fqdn(host) == o.Key.Name+"."+o.Key.Namespace+dnsDomain
		case *policy.ServiceEntry:
			return claims(o, host)
		default:
			return false
		}
	})
}

// resolve finds the service of a provider, as a client in a namespace may use it.
func resolve(set *policy.Set, ref string, port uint32, client string) (place, error) {
	at, err := find(set, ref)
	if err != nil {
		return place{}, err
	}
	for _, p := range set.Mesh().ExtensionProviders {
		if p.EnvoyExtAuthzGRPC == nil {
			continue
		}
		if other, err := find(set, p.EnvoyExtAuthzGRPC.Service); err == nil && other.host == at.host && other.namespace != at.namespace {
			return place{}, fmt.Errorf("%s is ambiguous: providers mean that of %s and that of %s", at.host, at.namespace, other.namespace)
		}
	}
	if ports, seen := reachable(set, at, client); !seen {
		return place{}, fmt.Errorf("%s is not exported to namespace %s", at.host, client)
	} else if !slices.Contains(ports, port) {
		return place{}, fmt.Errorf("%s of namespace %s has no port %d", at.host, at.namespace, port)
	}
	return at, nil
}

// find: a v1 Service wins over every ServiceEntry. A ServiceEntry counts only in the namespace that is named, or else in the root namespace:
// anybody may write one that claims the host.
func find(set *policy.Set, ref string) (place, error) {
	namespace, host := parse(ref)
	if host == "" || strings.HasPrefix(host, "*") {
		return place{}, fmt.Errorf("%q names no service", ref)
	}
	if name, ns, ok := strings.Cut(strings.TrimSuffix(fqdn(host), dnsDomain), "."); ok {
		if _, exists := policy.Get[*policy.Service](set, ns, name); exists {
			if namespace != "" && namespace != ns {
				return place{}, fmt.Errorf("%q is ambiguous: %s is a Service of namespace %s", ref, host, ns)
			}
			return place{ns, fqdn(host)}, nil
		}
	}
	if namespace == "" {
		namespace = set.Mesh().RootNamespace
	} else if _, exists := policy.Get[*policy.Service](set, namespace, host); exists {
		return place{namespace, host + "." + namespace + dnsDomain}, nil
	}
	for e := range policy.In[*policy.ServiceEntry](set, namespace) {
		if claims(e, host) {
			return place{namespace, host}, nil
		}
	}
	return place{}, fmt.Errorf("%q is neither a Service nor the host of a ServiceEntry of namespace %s", ref, namespace)
}

func parse(ref string) (namespace, host string) {
	ref = strings.ToLower(ref)
	if i := strings.LastIndexByte(ref, '/'); i >= 0 {
		return ref[:i], ref[i+1:]
	}
	return "", ref
}

// fqdn is the full name that "name.namespace", "name.namespace.svc" and itself stand for; any other host stands for itself.
func fqdn(host string) string {
	short := strings.TrimSuffix(strings.TrimSuffix(host, dnsDomain), ".svc")
	if strings.Count(short, ".") != 1 {
		return host
	}
	return short + dnsDomain
}

func claims(e *policy.ServiceEntry, host string) bool {
	return slices.ContainsFunc(e.Spec.GetHosts(), func(h string) bool { return strings.ToLower(h) == host })
}

// reachable is the ports of a service, and whether a namespace may use it.
func reachable(set *policy.Set, at place, client string) (ports []uint32, seen bool) {
	if name, ns, ok := strings.Cut(strings.TrimSuffix(at.host, dnsDomain), "."); ok && strings.HasSuffix(at.host, dnsDomain) && ns == at.namespace {
		if s, ok := policy.Get[*policy.Service](set, ns, name); ok {
			if s.Void || s.Spec == nil {
				return nil, true
			}
			for _, p := range s.Spec.Ports {
				ports = append(ports, uint32(p.Port))
			}
			return ports, exported(strings.FieldsFunc(s.Annotations[exportTo], func(r rune) bool { return r == ',' || r == ' ' }), ns, client)
		}
	}
	for e := range policy.In[*policy.ServiceEntry](set, at.namespace) {
		if e.Void || !claims(e, at.host) || !exported(e.Spec.GetExportTo(), at.namespace, client) {
			continue
		}
		seen = true
		for _, p := range e.Spec.GetPorts() {
			ports = append(ports, p.GetNumber())
		}
	}
	return ports, seen
}

func exported(to []string, own, client string) bool {
	return len(to) == 0 || slices.ContainsFunc(to, func(e string) bool { return e == "*" || e == client || e == "." && own == client })
}
