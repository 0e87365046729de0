package compile

import (
	"strings"

	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/ir"
)

// exportTo is Istio's annotation of a Service: the namespaces that may use it.
const exportTo = "networking.istio.io/exportTo"

// service makes a v1 Service.
func (b *spaceBuilder) service(o *policy.Service) *service {
	s := &service{
		namespace: b.ns, name: o.Key.Name, object: o.Key.Name, created: o.Created, routes: &routes{}, labelled: isLabel(o.Key.Name) && isLabel(b.ns), host: o.Key.Name + "." + b.ns + ".svc." + dnsDomain,
		source: sourceOf(&o.Object), void: o.Void || o.Spec == nil,
	}
	for _, e := range strings.Split(o.Annotations[exportTo], ",") {
		if e = strings.TrimSpace(e); e != "" {
			s.exportTo = append(s.exportTo, e)
		}
	}
	if s.void {
		return s
	}
	for _, ip := range append([]string{o.Spec.ClusterIP}, o.Spec.ClusterIPs...) {
		if ip != "" && ip != corev1.ClusterIPNone && !contains(s.addresses, ip) {
			s.addresses = append(s.addresses, ip)
		}
	}
	members := b.selected(o.Spec.Selector)
	for _, p := range o.Spec.Ports {
		port := servicePort{number: uint32(p.Port), name: p.Name, protocol: protocolOfService(p)}
		if port.protocol == UDP {
			continue
		}
		if o.Spec.Type == corev1.ServiceTypeExternalName {
			s.external = true
			port.cluster = ir.Cluster{Kind: ir.DNS, Address: o.Spec.ExternalName, Port: port.number}
			reach(&port, s, nil)
		} else {
			peers := b.behind(s, &port, members, p.TargetPort.StrVal, uint32(p.TargetPort.IntVal))
			b.discovered(&port, o.Key.Name, p)
			reach(&port, s, peers)
		}
		s.ports = append(s.ports, port)
	}
	return s
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}

// behind adds the workloads that a service selects as endpoints of a port, and gives their identities.
func (b *spaceBuilder) behind(s *service, port *servicePort, members []*member, targetName string, targetNumber uint32) []identity.ID {
	var peers []identity.ID
	for _, m := range members {
		spec := m.workload.Entry.Spec
		number, ok := targetPort(spec.Ports, port.name, port.number, targetName, targetNumber)
		if !ok {
			continue
		}
		name := m.workload.Name
		b.sends = append(b.sends, sent{name, target{port: number, protocol: port.protocol, service: s, number: port.number}})
		if spec.Address == "" {
			continue
		}
		e := ir.Endpoint{Address: spec.Address, Port: number, Weight: spec.Weight, Locality: spec.Locality, Plain: b.isPlain(m, number)}
		if strings.HasPrefix(spec.Address, "unix://") {
			e.Address, e.Port, e.Plain = strings.TrimPrefix(spec.Address, "unix://"), 0, true
		}
		if !e.Plain {
			peers = append(peers, m.id)
		}
		port.endpoints = append(port.endpoints, e)
	}
	return peers
}

// discovered adds the addresses of Endpoints and EndpointSlices. They have no sidecar that we know of; what is a WorkloadEntry is known already.
func (b *spaceBuilder) discovered(port *servicePort, name string, p corev1.ServicePort) {
	for _, s := range b.out.slices[name] {
		if !s.Void {
			b.slice(port, s.Slice, p)
		}
	}
	if e, ok := policy.Get[*policy.Endpoints](b.set, b.ns, name); ok && !e.Void && len(b.out.slices[name]) == 0 {
		for _, subset := range e.Subsets {
			for _, sp := range subset.Ports {
				if sp.Name != p.Name && len(subset.Ports) > 1 {
					continue
				}
				for _, a := range subset.Addresses {
					port.add(a.IP, uint32(sp.Port), true)
				}
				for _, a := range subset.NotReadyAddresses {
					port.add(a.IP, uint32(sp.Port), false)
				}
			}
		}
	}
}

func (b *spaceBuilder) slice(port *servicePort, s *discoveryv1.EndpointSlice, p corev1.ServicePort) {
	for _, sp := range s.Ports {
		if sp.Port == nil || sp.Name != nil && *sp.Name != p.Name && len(s.Ports) > 1 {
			continue
		}
		for _, e := range s.Endpoints {
			ready := e.Conditions.Ready == nil || *e.Conditions.Ready
			for _, a := range e.Addresses {
				port.add(a, uint32(*sp.Port), ready)
			}
		}
	}
}

// add adds a plaintext endpoint, unless the address is known as a workload's.
func (p *servicePort) add(address string, number uint32, ready bool) {
	for _, e := range p.endpoints {
		if e.Address == address && e.Port == number {
			return
		}
	}
	p.endpoints = append(p.endpoints, ir.Endpoint{Address: address, Port: number, Plain: true, Unhealthy: !ready})
}
