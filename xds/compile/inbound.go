package compile

import (
	"cmp"
	"fmt"
	"net"
	"net/netip"
	"slices"
	"strconv"
	"strings"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/peer"
	"github.com/credence-mesh/credence/xds/ir"
)

const loopback = "127.0.0.1"

// inboundPort is a port of a workload that its proxy serves.
type inboundPort struct {
	number   uint32
	protocol Protocol
	bind     string // address of the listener; empty: the workload's
	to       string // address of the application, or the path of a socket
	toPort   uint32
	captured bool // reached through the capture listener
	source   ir.Source
}

func inboundName(port uint32) string { return "inbound|" + decimal(port) + "||" }

// inbounder compiles the inbound part of one workload.
type inbounder struct {
	set      *policy.Set
	workload *policy.Workload
	guards   *guards
	part     *ir.Part
	problems []policy.Problem
}

func inbound(reg *registry, set *policy.Set, key PartKey) (*ir.Part, []policy.Problem) {
	w, ok := set.Workload(key.Namespace, key.Name)
	if !ok || w.Entry == nil {
		return nil, nil
	}
	i := &inbounder{set: set, workload: w, guards: newGuards(set, w), part: &ir.Part{Name: "inbound/" + w.String(), Direction: ir.Inbound}}
	if s := sidecarOf(set, w); s != nil && (s.Void || s.Spec == nil) {
		i.guards.broken = append(i.guards.broken, &s.Object)
	}
	ports := i.ports(reg)
	for _, p := range ports {
		i.forward(p)
	}
	var captured []inboundPort
	for _, p := range ports {
		if p.captured {
			captured = append(captured, p)
			continue
		}
		i.bound(p)
	}
	if redirects(set, w) {
		i.capture(captured)
	}
	i.telemetry()
	return i.part, append(i.problems, i.guards.problems...)
}

// telemetry tells that traces are not made yet, lest somebody waits for them.
func (i *inbounder) telemetry() {
	for _, ns := range i.set.Namespaces(i.workload) {
		for o := range policy.In[*policy.Telemetry](i.set, ns) {
			if i.set.Attached(i.workload, ns, policy.Scope{Selector: o.Spec.GetSelector(), Refs: o.Spec.GetTargetRefs()}) {
				i.problems = append(i.problems, policy.Problem{
					At: o.At, Object: o.Key.String(), Code: "TELEMETRY_NOT_IN_FORCE", Severity: policy.Info,
					Says: "Telemetry is read and checked, but proxies do not trace yet", Try: "mesh.accessLogFile for access logs",
				})
			}
		}
	}
}

// ports is what the workload serves: what a Sidecar's ingress lists, or else its own ports and those that services send to.
func (i *inbounder) ports(reg *registry) []inboundPort {
	if s := sidecarOf(i.set, i.workload); s != nil && len(s.Spec.GetIngress()) > 0 {
		return i.ingress(s)
	}
	found := map[uint32]inboundPort{}
	own := sourceOf(&i.workload.Entry.Object)
	add := func(number uint32, protocol Protocol, source ir.Source) {
		if known, ok := found[number]; ok && (known.protocol != TCP || protocol == TCP) {
			if known.protocol != protocol && protocol != TCP {
				i.conflict(number, known.source, source)
			}
			return
		}
		found[number] = inboundPort{number: number, protocol: protocol, to: loopback, toPort: number, captured: redirects(i.set, i.workload), source: source}
	}
	for _, t := range reg.in(i.workload.Namespace).targets[i.workload.Name] {
		add(t.port, t.protocol, t.service.source)
	}
	ports := i.workload.Entry.Spec.Ports
	for _, name := range sortedKeys(ports) {
		if _, ok := found[ports[name]]; !ok {
			add(ports[name], protocolOf("", name), own)
		}
	}
	out := make([]inboundPort, 0, len(found))
	for _, p := range found {
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b inboundPort) int { return cmp.Compare(a.number, b.number) })
	return out
}

func (i *inbounder) conflict(number uint32, a, b ir.Source) {
	o := &i.workload.Entry.Object
	i.problems = append(i.problems, policy.Problem{
		At: o.At, Object: o.Key.String(), Code: "PORT_PROTOCOL_CONFLICT", Severity: policy.Warning,
		Says: fmt.Sprintf("port %d has different protocols in %s and %s; the first counts", number, a, b), Try: "name the port alike in both",
	})
}

// ingress is the ports that a Sidecar lists.
func (i *inbounder) ingress(s *policy.Sidecar) []inboundPort {
	var out []inboundPort
	seen := map[uint32]bool{}
	for n, l := range s.Spec.Ingress {
		number := l.GetPort().GetNumber()
		if seen[number] || number == 0 {
			continue
		}
		seen[number] = true
		p := inboundPort{
			number: number, protocol: protocolOf(l.Port.Protocol, l.Port.Name), bind: l.Bind, source: sourceOf(&s.Object),
			captured: redirects(i.set, i.workload) && l.CaptureMode != networkingv1alpha3.CaptureMode_NONE,
		}
		var err error
		if p.to, p.toPort, err = i.defaultEndpoint(l.DefaultEndpoint, number); err != nil {
			field := fmt.Sprintf("spec.ingress[%d].defaultEndpoint", n)
			i.problems = append(i.problems, policy.Problem{
				At: s.Where(field), Object: s.Key.String(), Field: field, Code: "BAD_DEFAULT_ENDPOINT",
				Says: err.Error() + "; connections to the port are closed", Try: "127.0.0.1:PORT, 0.0.0.0:PORT or unix:///path",
			})
			continue
		}
		out = append(out, p)
	}
	slices.SortFunc(out, func(a, b inboundPort) int { return cmp.Compare(a.number, b.number) })
	return out
}

// defaultEndpoint reads where the application of an ingress port listens. 0.0.0.0 is, as in Istio, the workload's own address.
func (i *inbounder) defaultEndpoint(s string, number uint32) (string, uint32, error) {
	if s == "" {
		return loopback, number, nil
	}
	if path, ok := strings.CutPrefix(s, "unix://"); ok {
		if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, "@") {
			return "", 0, fmt.Errorf("%q has no absolute path", s)
		}
		return path, 0, nil
	}
	host, port, err := net.SplitHostPort(s)
	if err != nil {
		return "", 0, fmt.Errorf("%q is no address", s)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil || n == 0 {
		return "", 0, fmt.Errorf("%q has no port", s)
	}
	switch host {
	case "0.0.0.0", "::":
		return i.workload.Entry.Spec.Address, uint32(n), nil
	}
	// Istio takes 127.0.0.1 and ::1 only; any loopback address is as much of this host.
	if ip, err := netip.ParseAddr(host); err != nil || !ip.IsLoopback() && host != i.workload.Entry.Spec.Address {
		return "", 0, fmt.Errorf("%q is not on this host", s)
	}
	return host, uint32(n), nil
}

// forward adds the cluster of the application behind a port.
func (i *inbounder) forward(p inboundPort) {
	i.part.Clusters = append(i.part.Clusters, ir.Cluster{
		Name: inboundName(p.number), Kind: ir.Static, Address: p.to, Port: p.toPort, TLS: ir.UpstreamTLS{Mode: ir.UpstreamPlain},
		HTTP2: p.protocol == HTTP2 || p.protocol == GRPC, Sources: []ir.Source{p.source},
	})
	if !p.protocol.IsHTTP() {
		return
	}
	name := inboundName(p.number)
	i.part.Routes = append(i.part.Routes, ir.RouteTable{Name: name, Sources: []ir.Source{p.source}, Hosts: []*ir.VirtualHost{{
		Name: "inbound|http|" + decimal(p.number), Domains: []string{"*"},
		Routes: []ir.Route{{Name: "default", Action: ir.Forward{To: []ir.Weighted{{Cluster: name, Weight: 1}}}}},
	}}})
}

// bound adds a listener on the port itself.
func (i *inbounder) bound(p inboundPort) {
	address := cmp.Or(p.bind, i.workload.Entry.Spec.Address)
	l := ir.Listener{
		Name: "inbound_" + address + "_" + decimal(p.number), Address: address, Port: p.number, Direction: ir.Inbound,
		Sources: []ir.Source{p.source, sourceOf(&i.workload.Entry.Object)},
	}
	if _, err := netip.ParseAddr(address); err != nil {
		i.problem("WORKLOAD_ADDRESS", fmt.Sprintf("port %d has no listener: %q is no IP address", p.number, address), "give spec.address an IP address of the workload's host")
		return
	}
	if p.to == "" || p.toPort == p.number && (p.to == address || address == "0.0.0.0" || address == "::") {
		if p.to != "" {
			i.problem("FORWARDS_TO_ITSELF", fmt.Sprintf("port %d is bound on %s and would forward to itself; its connections are closed", p.number, address),
				"give the workload another address than 127.0.0.1, or its application another port by Sidecar.ingress.defaultEndpoint")
		}
		l.Chains = []ir.Chain{{Name: "closed", TLS: ir.DownstreamTLS{Mode: ir.MutualTLS}}}
	} else {
		l.Chains = i.chains(p, 0)
	}
	i.part.Listeners = append(i.part.Listeners, l)
}

// capture adds the listener that iptables sends all inbound connections to. What is no port of the workload is closed.
func (i *inbounder) capture(ports []inboundPort) {
	l := ir.Listener{
		Name: "virtualInbound", Address: "0.0.0.0", Port: inboundCapturePort, Direction: ir.Inbound, Capture: ir.Redirect,
		Sources: []ir.Source{sourceOf(&i.workload.Entry.Object)},
	}
	for _, p := range ports {
		if p.to != "" {
			l.Chains = append(l.Chains, i.chains(p, p.number)...)
		}
	}
	l.Chains = append(l.Chains, ir.Chain{Name: "virtualInbound-blackhole", Match: ir.ChainMatch{Port: inboundCapturePort}, TLS: ir.DownstreamTLS{Mode: ir.Plaintext}})
	i.part.Listeners = append(i.part.Listeners, l)
}

func (i *inbounder) problem(code, says, try string) {
	o := &i.workload.Entry.Object
	i.problems = append(i.problems, policy.Problem{At: o.At, Object: o.Key.String(), Code: code, Says: says, Try: try})
}

// chains is how a port may be reached, as PeerAuthentication says.
func (i *inbounder) chains(p inboundPort, match uint32) []ir.Chain {
	mode, _ := peer.For(i.set, i.workload, p.number)
	mutual := ir.Chain{
		Name: decimal(p.number) + "-mtls", Match: ir.ChainMatch{Port: match},
		TLS:     ir.DownstreamTLS{Mode: ir.MutualTLS, Peers: accepted(i.set)},
		Handler: i.handler(p, peers),
	}
	if p.protocol.IsHTTP() {
		mutual.TLS.ALPN = []string{"h2", "http/1.1"}
	}
	plain := ir.Chain{
		Name: decimal(p.number) + "-plaintext", Match: ir.ChainMatch{Port: match}, TLS: ir.DownstreamTLS{Mode: ir.Plaintext}, Handler: i.handler(p, anyone),
	}
	switch mode {
	case peer.Permissive:
		mutual.Match.Transport, plain.Match.Transport = ir.TransportTLS, ir.TransportRaw
		return []ir.Chain{mutual, plain}
	case peer.Disable:
		return []ir.Chain{plain}
	default:
		return []ir.Chain{mutual}
	}
}

// handler serves a port. Chains of one port share the route table but have guards of their own, since they trust different headers.
func (i *inbounder) handler(p inboundPort, t trust) ir.Handler {
	name := inboundName(p.number)
	if t == anyone {
		name = "inbound-plaintext|" + decimal(p.number) + "||"
	}
	if p.protocol.IsHTTP() {
		return &ir.HTTP{Name: name, Table: inboundName(p.number), Guard: i.guards.http(p.number, t), Edge: t == anyone, HTTP2: true, Paths: pathsOf(i.set), Lenient: i.set.Mesh().Profile.Istio()}
	}
	return &ir.TCP{Name: name, Rules: i.guards.tcp(p.number), To: []ir.Weighted{{Cluster: inboundName(p.number), Weight: 1}}, Sources: []ir.Source{p.source}}
}
