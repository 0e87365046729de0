package compile

import (
	"net/netip"
	"strings"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/ir"
)

// entry makes the services of a ServiceEntry, one a host.
func (b *spaceBuilder) entry(o *policy.ServiceEntry) []*service {
	var out []*service
	void := o.Void || o.Spec == nil
	for n, host := range o.Spec.GetHosts() {
		s := &service{
			namespace: b.ns, object: o.Key.Name, nth: n, created: o.Created, routes: &routes{}, host: strings.ToLower(host), exportTo: o.Spec.ExportTo, source: sourceOf(&o.Object), void: void,
			external: o.Spec.Location == networkingv1alpha3.ServiceEntry_MESH_EXTERNAL && o.Spec.WorkloadSelector == nil,
		}
		if !void {
			s.addresses = addressesOf(o.Spec.Addresses)
			for _, p := range o.Spec.Ports {
				if port, ok := b.entryPort(s, o.Spec, p); ok {
					s.ports = append(s.ports, port)
				}
			}
		}
		out = append(out, s)
	}
	return out
}

// addressesOf keeps single addresses: a range is reached by name alone.
func addressesOf(in []string) []string {
	var out []string
	for _, a := range in {
		if ip, err := netip.ParseAddr(a); err == nil {
			out = append(out, ip.String())
		}
	}
	return out
}

func (b *spaceBuilder) entryPort(s *service, spec *networkingv1alpha3.ServiceEntry, p *networkingv1alpha3.ServicePort) (servicePort, bool) {
	port := servicePort{number: p.Number, name: p.Name, protocol: protocolOf(p.Protocol, p.Name)}
	if port.protocol == UDP {
		return port, false
	}
	var peers []identity.ID
	switch {
	case spec.WorkloadSelector != nil:
		peers = b.behind(s, &port, b.selected(spec.WorkloadSelector.Labels), "", p.TargetPort)
	case len(spec.Endpoints) > 0:
		peers = b.listed(&port, spec, p)
	case spec.Resolution == networkingv1alpha3.ServiceEntry_NONE:
		port.cluster.Kind = ir.OriginalDst
	case strings.HasPrefix(s.host, "*"): // a wildcard cannot be resolved: nothing is behind it
	default:
		port.cluster = ir.Cluster{Kind: ir.DNS, Address: s.host, Port: targetOr(p)}
	}
	reach(&port, s, peers)
	return port, true
}

func targetOr(p *networkingv1alpha3.ServicePort) uint32 {
	if p.TargetPort != 0 {
		return p.TargetPort
	}
	return p.Number
}

// listed adds the endpoints that a ServiceEntry lists. Inside the mesh they have a sidecar where they name a service account.
func (b *spaceBuilder) listed(port *servicePort, spec *networkingv1alpha3.ServiceEntry, p *networkingv1alpha3.ServicePort) []identity.ID {
	var peers []identity.ID
	for _, e := range spec.Endpoints {
		number, _ := targetPort(e.Ports, p.Name, p.Number, "", p.TargetPort)
		at := ir.Endpoint{Address: e.Address, Port: number, Weight: e.Weight, Locality: e.Locality, Plain: true}
		if strings.HasPrefix(e.Address, "unix://") {
			at.Address, at.Port = strings.TrimPrefix(e.Address, "unix://"), 0
		}
		if spec.Location == networkingv1alpha3.ServiceEntry_MESH_INTERNAL && e.ServiceAccount != "" && e.Labels[tlsModeLabel] != "disabled" {
			if id, err := identity.ForServiceAccount(b.td, b.ns, e.ServiceAccount); err == nil {
				at.Plain = false
				peers = append(peers, id)
			}
		}
		if _, err := netip.ParseAddr(e.Address); err != nil && at.Port != 0 {
			port.cluster.Kind = ir.DNS // some endpoint is a name
		}
		port.endpoints = append(port.endpoints, at)
	}
	return peers
}
