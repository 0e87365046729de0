package compile

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/ir"
)

const (
	egressTable        = "http_egress"
	passthroughCluster = "PassthroughCluster"
)

// outbounder compiles the outbound part of the workloads that share a key.
type outbounder struct {
	reg      *registry
	key      PartKey
	sidecar  *policy.Sidecar // nil: none
	services []*service      // all that may be used
	anywhere bool            // what no service names is let through to where it was going
	part     *ir.Part
	taken    map[string]bool // names of the listeners that captured connections are handed to
	problems []policy.Problem
}

func outbound(reg *registry, set *policy.Set, key PartKey) (*ir.Part, []policy.Problem) {
	o := &outbounder{reg: reg, key: key, part: &ir.Part{Name: key.String(), Direction: ir.Outbound}, taken: map[string]bool{}}
	s, ok := sidecarAt(set, key)
	if !ok {
		return nil, nil
	}
	o.sidecar = s.sidecar
	if o.sidecar == nil || !o.sidecar.Void && o.sidecar.Spec != nil {
		seen, gave := reg.seenBy(key.Namespace)
		o.services = o.inScope(seen)
		o.clashes(gave)
		o.anywhere = key.Redirect && o.sidecar != nil && o.sidecar.Spec.OutboundTrafficPolicy != nil &&
			o.sidecar.Spec.OutboundTrafficPolicy.Mode == networkingv1alpha3.OutboundTrafficPolicy_ALLOW_ANY
		o.bound()
	}
	if key.Redirect {
		o.capture()
	} else {
		o.egress()
	}
	o.reach()
	return o.part, o.problems
}

// String is the name of the part: equal for equal scope.
func (k PartKey) String() string {
	switch k.Kind {
	case InboundPart:
		return "inbound/" + k.Namespace + "/" + k.Name
	case GatewayPart:
		return "gateway/" + k.Namespace + "/" + k.Name
	default: // OutboundPart
	}
	s := "outbound/" + k.Namespace
	if k.Name != "" {
		s += "/" + k.Name
	}
	if k.Alone {
		s += "/alone"
	}
	if k.Redirect {
		return s + "/redirect"
	}
	return s + "/" + decimal(k.EgressPort)
}

// inScope narrows the services to those that the Sidecar's egress lets through.
func (o *outbounder) inScope(all []*service) []*service {
	if o.sidecar == nil || len(o.sidecar.Spec.GetEgress()) == 0 {
		return all
	}
	var of []hostScope
	for _, e := range o.sidecar.Spec.Egress {
		of = append(of, scopes(e.Hosts, o.key.Namespace)...)
	}
	return within(all, of)
}

// clashes tells of the services in scope that give way.
func (o *outbounder) clashes(gave []given) {
	for _, g := range gave {
		either := []*service{g.service}
		if g.way != nil {
			either = append(either, g.way)
		}
		if len(o.inScope(either)) > 0 {
			o.problems = append(o.problems, o.reg.hostClash(g.service, g.way))
		}
	}
}

// unbound is the services that the HTTP egress listener and the capture listeners reach: those of the egress listeners without a port.
func (o *outbounder) unbound() []*service {
	if o.sidecar == nil || len(o.sidecar.Spec.GetEgress()) == 0 {
		return o.services
	}
	var of []hostScope
	for _, e := range o.sidecar.Spec.Egress {
		if e.Port == nil {
			of = append(of, scopes(e.Hosts, o.key.Namespace)...)
		}
	}
	return within(o.services, of)
}

func portless(e *networkingv1alpha3.IstioEgressListener) bool { return e.Port == nil }

// reach adds the upstreams of all services. These are sorted by host, and their clusters are named by port and host: taken port by port they
// are sorted by name.
func (o *outbounder) reach() {
	byPort := map[uint32][]*ir.Upstream{}
	total := 0
	for _, s := range o.services {
		for i := range s.ports {
			p := &s.ports[i]
			if list := byPort[p.number]; len(list) > 0 && list[len(list)-1].Cluster.Name == p.cluster.Name {
				continue // the service lists the port twice
			}
			byPort[p.number] = append(byPort[p.number], p.upstream)
			total++
		}
	}
	o.part.Upstreams = make([]*ir.Upstream, 0, total)
	for _, number := range slices.SortedFunc(maps.Keys(byPort), func(a, b uint32) int { return cmp.Compare(clusterName(a, ""), clusterName(b, "")) }) {
		o.part.Upstreams = append(o.part.Upstreams, byPort[number]...)
	}
}

func addCluster(part *ir.Part, have map[string]bool, p *servicePort) {
	if !have[p.cluster.Name] {
		have[p.cluster.Name] = true
		part.Upstreams = append(part.Upstreams, p.upstream)
	}
}

// egress adds the HTTP egress listener: applications send their requests to it, and their Host header says where they go. A Sidecar that
// gives each of its egress listeners a port of its own has said where it wants them, and there is no other.
func (o *outbounder) egress() {
	if o.sidecar != nil && len(o.sidecar.Spec.GetEgress()) > 0 && !slices.ContainsFunc(o.sidecar.Spec.Egress, portless) {
		return
	}
	name := loopback + "_" + decimal(o.key.EgressPort)
	o.part.Listeners = append(o.part.Listeners, ir.Listener{
		Name: name, Address: loopback, Port: o.key.EgressPort, Direction: ir.Outbound, Sources: o.sources(),
		Chains: []ir.Chain{{Name: "http", TLS: ir.DownstreamTLS{Mode: ir.Plaintext}, Handler: o.client(name, egressTable)}},
	})
	o.part.Routes = append(o.part.Routes, newTable(egressTable, o.key.Namespace, o.unbound(), false, 0, o.fallback()))
}

// client is an HTTP connection manager for the local application.
func (o *outbounder) client(name, table string) *ir.HTTP {
	return &ir.HTTP{Name: "outbound_" + name, Table: table, Egress: true, HTTP2: true}
}

func (o *outbounder) sources() []ir.Source {
	if o.sidecar == nil {
		return nil
	}
	return []ir.Source{sourceOf(&o.sidecar.Object)}
}

// fallback is what happens to a request for a host that no service has.
func (o *outbounder) fallback() *ir.VirtualHost {
	if o.anywhere {
		return &ir.VirtualHost{Name: "allow_any", Domains: []string{"*"}, Routes: []ir.Route{{Name: "allow_any", Action: ir.Forward{To: []ir.Weighted{{Cluster: passthroughCluster, Weight: 1}}}}}}
	}
	return &ir.VirtualHost{Name: "block_all", Domains: []string{"*"}, Routes: []ir.Route{{Name: "block_all", Action: ir.Respond{Status: 502}}}}
}

// bound adds the listeners that a Sidecar's egress binds.
func (o *outbounder) bound() {
	for n, e := range o.sidecarEgress() {
		if e.Port == nil || o.key.Redirect && e.CaptureMode != networkingv1alpha3.CaptureMode_NONE && e.Bind == "" {
			continue
		}
		address, number := cmp.Or(e.Bind, loopback), e.Port.Number
		if path, ok := strings.CutPrefix(address, "unix://"); ok {
			address, number = path, 0
		}
		name := address + "_" + decimal(number)
		l := ir.Listener{Name: name, Address: address, Port: number, Direction: ir.Outbound, Sources: o.sources()}
		services := within(o.services, scopes(e.Hosts, o.key.Namespace))
		if protocolOf(e.Port.Protocol, e.Port.Name).IsHTTP() {
			o.part.Routes = append(o.part.Routes, newTable(name, o.key.Namespace, services, false, 0, o.fallback()))
			l.Chains = []ir.Chain{{Name: "http", TLS: ir.DownstreamTLS{Mode: ir.Plaintext}, Handler: o.client(name, name)}}
		} else {
			l.Chains = []ir.Chain{{Name: "tcp", TLS: ir.DownstreamTLS{Mode: ir.Plaintext}, Handler: o.stream(n, name, e.Port.Number, services)}}
		}
		o.part.Listeners = append(o.part.Listeners, l)
	}
}

func (o *outbounder) sidecarEgress() []*networkingv1alpha3.IstioEgressListener {
	if o.sidecar == nil {
		return nil
	}
	return o.sidecar.Spec.GetEgress()
}

// stream forwards bytes to the one service that a bound TCP listener names: the one with the listener's port, or the only port there is.
func (o *outbounder) stream(n int, name string, number uint32, services []*service) ir.Handler {
	var all, exact []string
	for _, s := range services {
		for _, p := range s.ports {
			all = append(all, p.cluster.Name)
			if p.number == number {
				exact = append(exact, p.cluster.Name)
			}
		}
	}
	if len(exact) == 0 {
		exact = all
	}
	if len(exact) == 1 {
		return &ir.TCP{Name: "outbound_" + name, To: []ir.Weighted{{Cluster: exact[0], Weight: 1}}, Egress: true, Sources: o.sources()}
	}
	field := fmt.Sprintf("spec.egress[%d].hosts", n)
	o.problems = append(o.problems, policy.Problem{
		At: o.sidecar.Where(field), Object: o.sidecar.Key.String(), Field: field, Code: "EGRESS_NOT_ONE_SERVICE",
		Says: fmt.Sprintf("a TCP listener goes to one service, and %d ports match; its connections are closed", len(exact)),
		Try:  "name one host that has this port",
	})
	return nil
}

// capture adds the listener that iptables sends all outbound connections to, and those that it hands them over to by destination.
func (o *outbounder) capture() {
	l := ir.Listener{
		Name: "virtualOutbound", Address: "0.0.0.0", Port: outboundCapturePort, Direction: ir.Outbound, Capture: ir.Redirect, Sources: o.sources(),
		Chains: []ir.Chain{{Name: "virtualOutbound-trafficloop", Match: ir.ChainMatch{Port: outboundCapturePort}, TLS: ir.DownstreamTLS{Mode: ir.Plaintext}}},
	}
	rest := ir.Chain{Name: "virtualOutbound-catchall-tcp", TLS: ir.DownstreamTLS{Mode: ir.Plaintext}}
	if o.anywhere {
		rest.Handler = &ir.TCP{Name: passthroughCluster, To: []ir.Weighted{{Cluster: passthroughCluster, Weight: 1}}, Egress: true}
		o.part.Clusters = append(o.part.Clusters, ir.Cluster{Name: passthroughCluster, Kind: ir.OriginalDst, TLS: ir.UpstreamTLS{Mode: ir.UpstreamPlain}})
	}
	l.Chains = append(l.Chains, rest)
	o.part.Listeners = append(o.part.Listeners, l)
	byPort := map[uint32]*handoff{}
	for _, s := range o.unbound() {
		for i := range s.ports {
			p := &s.ports[i]
			h := byPort[p.number]
			if h == nil {
				h = &handoff{number: p.number}
				byPort[p.number] = h
			}
			h.add(s, p)
		}
	}
	for _, number := range sortedKeys(byPort) {
		o.handoff(byPort[number])
	}
}

// handoff is what services have on one port number.
type handoff struct {
	number uint32
	http   []*service
	tls    []*service // without an address: told apart by server name
	plain  []*service // TCP without an address: at most one can be told apart
	vips   []*service // TCP or TLS with addresses
}

func (h *handoff) add(s *service, p *servicePort) {
	switch {
	case p.protocol.IsHTTP():
		if n := len(h.http); n == 0 || h.http[n-1] != s {
			h.http = append(h.http, s)
		}
	case len(s.addresses) > 0:
		h.vips = append(h.vips, s)
	case p.protocol == TLS && s.name == "":
		h.tls = append(h.tls, s)
	default:
		h.plain = append(h.plain, s)
	}
}

func (o *outbounder) handoff(h *handoff) {
	for _, s := range h.vips {
		for _, a := range s.addresses {
			if takes, told := o.reg.takes(s, a, h.number, o.key.Namespace); !takes {
				o.problems = append(o.problems, told)
				continue
			}
			o.handed(a, h.number, s.source, []ir.Chain{o.tunnel(a+"_"+decimal(h.number), clusterName(h.number, s.host), nil)})
		}
	}
	var chains []ir.Chain
	var source ir.Source
	name := "0.0.0.0_" + decimal(h.number)
	for _, s := range h.tls {
		chains, source = append(chains, o.tunnel(name+"_"+s.host, clusterName(h.number, s.host), []string{s.host})), s.source
	}
	switch {
	case len(h.http) > 0:
		table := decimal(h.number)
		o.part.Routes = append(o.part.Routes, newTable(table, o.key.Namespace, h.http, true, h.number, o.fallback()))
		chains, source = append(chains, ir.Chain{Name: "http", TLS: ir.DownstreamTLS{Mode: ir.Plaintext}, Handler: o.client(name, table)}), h.http[0].source
	case len(h.plain) == 1:
		chains, source = append(chains, o.tunnel(name, clusterName(h.number, h.plain[0].host), nil)), h.plain[0].source
	case len(chains) > 0 && o.anywhere:
		chains = append(chains, o.tunnel(name, passthroughCluster, nil))
	}
	if len(chains) > 0 {
		o.handed("0.0.0.0", h.number, source, chains)
	}
	if clash := h.plain; len(clash) > 1 || len(clash) == 1 && len(h.http) > 0 {
		o.problems = append(o.problems, policy.Problem{
			Object: clash[0].source.Object, Code: "TCP_SERVICES_SHARE_PORT", Severity: policy.Warning,
			Says: fmt.Sprintf("port %d of %s cannot be told apart from other services with the port and without an address", h.number, clash[0].host),
			Try:  "give the service an address (clusterIP, ServiceEntry.addresses), or bind it by Sidecar.egress",
		})
	}
}

// handed adds a listener that gets its connections from the capture listener.
func (o *outbounder) handed(address string, number uint32, source ir.Source, chains []ir.Chain) {
	name := address + "_" + decimal(number)
	if len(o.taken) == 0 {
		for i := range o.part.Listeners {
			o.taken[o.part.Listeners[i].Name] = true
		}
	}
	if o.taken[name] {
		return
	}
	o.taken[name] = true
	o.part.Listeners = append(o.part.Listeners, ir.Listener{
		Name: name, Address: address, Port: number, Direction: ir.Outbound, Capture: ir.Handoff, Chains: chains, Sources: []ir.Source{source},
	})
}

func (o *outbounder) tunnel(name, cluster string, serverNames []string) ir.Chain {
	c := ir.Chain{Name: "tcp", TLS: ir.DownstreamTLS{Mode: ir.Plaintext}, Handler: &ir.TCP{Name: "outbound_" + name, To: []ir.Weighted{{Cluster: cluster, Weight: 1}}, Egress: true}}
	if len(serverNames) > 0 {
		c.Name, c.Match = serverNames[0], ir.ChainMatch{Transport: ir.TransportTLS, ServerNames: serverNames}
	}
	return c
}
