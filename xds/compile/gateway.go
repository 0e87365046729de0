package compile

import (
	"cmp"
	"fmt"
	"net/netip"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/ir"
)

const gatewayGroup = "gateway.networking.k8s.io"

// gatewayer compiles the part of one Gateway.
type gatewayer struct {
	set      *policy.Set
	reg      *registry
	object   *policy.Gateway
	guards   *guards
	part     *ir.Part
	clusters map[string]bool
	problems []policy.Problem
}

func gateway(reg *registry, set *policy.Set, key PartKey) (*ir.Part, []policy.Problem) {
	w, ok := set.Workload(key.Namespace, key.Name)
	if !ok || w.Gateway == nil {
		return nil, nil
	}
	g := &gatewayer{
		set: set, reg: reg, object: w.Gateway, guards: newGuards(set, w), clusters: map[string]bool{},
		part: &ir.Part{Name: key.String(), Direction: ir.Edge},
	}
	if w.Gateway.Void {
		g.guards.broken = append(g.guards.broken, &w.Gateway.Object)
	}
	attached := g.attachments()
	for _, port := range g.ports() {
		g.listen(port, attached)
	}
	for _, p := range g.part.Listeners {
		g.authorizers(&p)
	}
	return g.part, append(g.problems, g.guards.problems...)
}

// authorizers adds the clusters of external authorizers, which no route names.
func (g *gatewayer) authorizers(l *ir.Listener) {
	for _, c := range l.Chains {
		h, ok := c.Handler.(*ir.HTTP)
		if !ok {
			continue
		}
		for _, custom := range h.Guard.Rules.Custom {
			if s, ok := g.reg.named(g.object.Key.Namespace, g.object.Key.Namespace, custom.Authorizer.Host); ok && !custom.Authorizer.Embedded() {
				if p, ok := s.port(custom.Authorizer.Port); ok {
					addCluster(g.part, g.clusters, p)
				}
			}
		}
	}
}

// gatewayListener is a listener of the Gateway, with its place in the list.
type gatewayListener struct {
	index int
	spec  *gatewayv1.Listener
}

func (l gatewayListener) hostname() string {
	if l.spec.Hostname == nil {
		return ""
	}
	return strings.ToLower(string(*l.spec.Hostname))
}

// ports groups the listeners by port, in order.
func (g *gatewayer) ports() [][]gatewayListener {
	byPort := map[uint32][]gatewayListener{}
	for i := range g.object.Spec.Listeners {
		l := gatewayListener{i, &g.object.Spec.Listeners[i]}
		if n := uint32(l.spec.Port); g.supported(l) {
			byPort[n] = append(byPort[n], l)
		}
	}
	var out [][]gatewayListener
	for _, n := range sortedKeys(byPort) {
		out = append(out, byPort[n])
	}
	return out
}

func (g *gatewayer) supported(l gatewayListener) bool {
	switch l.spec.Protocol {
	case gatewayv1.HTTPProtocolType:
		return true
	case gatewayv1.HTTPSProtocolType:
		if l.spec.TLS == nil || l.spec.TLS.Mode == nil || *l.spec.TLS.Mode == gatewayv1.TLSModeTerminate {
			return true
		}
	}
	g.problem(g.listenerField(l, "protocol"), "GATEWAY_PROTOCOL", fmt.Sprintf("protocol %s is not served; the listener stays closed", l.spec.Protocol),
		"HTTP, or HTTPS with tls.mode Terminate")
	return false
}

func (g *gatewayer) listenerField(l gatewayListener, field string) string {
	return fmt.Sprintf("spec.listeners[%d].%s", l.index, field)
}

func (g *gatewayer) problem(field, code, says, try string) {
	g.problems = append(g.problems, policy.Problem{
		At: g.object.Where(field), Object: g.object.Key.String(), Field: field, Code: code, Says: says, Try: try,
	})
}

// addresses is where a gateway listens: its spec.addresses, or every address of the host.
func (g *gatewayer) addresses() []string {
	var out []string
	for i, a := range g.object.Spec.Addresses {
		ip, err := netip.ParseAddr(a.Value)
		if err != nil || a.Type != nil && *a.Type != gatewayv1.IPAddressType {
			g.problem(fmt.Sprintf("spec.addresses[%d]", i), "GATEWAY_ADDRESS", fmt.Sprintf("%q is no IP address of this host; nothing listens there", a.Value), "type IPAddress with an address of the host")
			continue
		}
		out = append(out, ip.String())
	}
	if len(g.object.Spec.Addresses) == 0 {
		return []string{"0.0.0.0"}
	}
	return out
}

// listen adds the listeners of one port: plain HTTP shares one chain, HTTPS has a chain a server name.
func (g *gatewayer) listen(port []gatewayListener, routes []attachment) {
	number := uint32(port[0].spec.Port)
	var plain []gatewayListener
	var chains []ir.Chain
	for _, l := range port {
		if l.spec.Protocol == gatewayv1.HTTPProtocolType {
			plain = append(plain, l)
		} else if c, ok := g.secure(l); ok && !slices.ContainsFunc(chains, func(have ir.Chain) bool { return slices.Equal(have.Match.ServerNames, c.Match.ServerNames) }) {
			chains = append(chains, c)
			g.table("https."+decimal(number)+"."+string(l.spec.Name), []gatewayListener{l}, routes)
		} else if ok {
			g.problem(g.listenerField(l, "hostname"), "GATEWAY_LISTENER_CONFLICT", "another listener has this port and hostname; this one is not served", "give it another hostname or port")
		}
	}
	if len(plain) > 0 && len(chains) > 0 {
		g.problem(g.listenerField(plain[0], "port"), "GATEWAY_LISTENER_CONFLICT", "the port speaks HTTP and HTTPS; only HTTPS is served", "give each protocol a port of its own")
	} else if len(plain) > 0 {
		table := "http." + decimal(number)
		g.table(table, plain, routes)
		chains = append(chains, ir.Chain{Name: "http", TLS: ir.DownstreamTLS{Mode: ir.Plaintext}, Handler: g.handler("gateway|"+decimal(number)+"|http", table, number)})
	}
	if len(chains) == 0 {
		chains = []ir.Chain{{Name: "closed", TLS: ir.DownstreamTLS{Mode: ir.Plaintext}}}
	}
	for _, a := range g.addresses() {
		g.part.Listeners = append(g.part.Listeners, ir.Listener{
			Name: a + "_" + decimal(number), Address: a, Port: number, Direction: ir.Edge, Chains: chains, Sources: []ir.Source{sourceOf(&g.object.Object)},
			ProxyProtocol: g.set.Mesh().DefaultConfig.GatewayTopology.ProxyProtocol != nil,
		})
	}
}

func (g *gatewayer) handler(name, table string, port uint32) *ir.HTTP {
	return &ir.HTTP{
		Name: name, Table: table, Guard: g.guards.http(port, anyone), Edge: true, HTTP2: true, Paths: pathsOf(g.set), Lenient: g.set.Mesh().Profile.Istio(),
		Hops: g.set.Mesh().DefaultConfig.GatewayTopology.NumTrustedProxies,
	}
}

// secure is the chain of an HTTPS listener; false where it has no certificate that it may use.
func (g *gatewayer) secure(l gatewayListener) (ir.Chain, bool) {
	var secrets []string
	if l.spec.TLS != nil {
		for i, ref := range l.spec.TLS.CertificateRefs {
			if name, ok := g.certificate(l, i, ref); ok {
				secrets = append(secrets, name)
			}
		}
	}
	if len(secrets) == 0 {
		g.problem(g.listenerField(l, "tls.certificateRefs"), "GATEWAY_NO_CERTIFICATE", "the listener has no certificate that it may use; it stays closed", "name a Secret of type kubernetes.io/tls")
		return ir.Chain{}, false
	}
	name := "https-" + string(l.spec.Name)
	c := ir.Chain{
		Name: name, TLS: ir.DownstreamTLS{Mode: ir.Terminate, Secrets: secrets, ALPN: []string{"h2", "http/1.1"}},
		Handler: g.handler("gateway|"+decimal(uint32(l.spec.Port))+"|"+string(l.spec.Name), "https."+decimal(uint32(l.spec.Port))+"."+string(l.spec.Name), uint32(l.spec.Port)),
	}
	if h := l.hostname(); h != "" {
		c.Match = ir.ChainMatch{Transport: ir.TransportTLS, ServerNames: []string{h}}
	}
	return c, true
}

func (g *gatewayer) certificate(l gatewayListener, i int, ref gatewayv1.SecretObjectReference) (string, bool) {
	field := fmt.Sprintf("%s[%d]", g.listenerField(l, "tls.certificateRefs"), i)
	if ref.Group != nil && *ref.Group != "" || ref.Kind != nil && *ref.Kind != "Secret" {
		g.problem(field, "GATEWAY_CERTIFICATE_KIND", "only a Secret can hold a certificate", "kind: Secret")
		return "", false
	}
	ns := g.object.Key.Namespace
	if ref.Namespace != nil {
		ns = string(*ref.Namespace)
	}
	if !granted(g.set, reference{gatewayGroup, "Gateway", g.object.Key.Namespace, "", "Secret", ns, string(ref.Name)}) {
		g.problem(field, "REFERENCE_NOT_GRANTED", fmt.Sprintf("no ReferenceGrant in %s lets a Gateway of %s use Secret %s", ns, g.object.Key.Namespace, ref.Name), "add a ReferenceGrant to the Secret's namespace")
		return "", false
	}
	if s, ok := policy.Get[*policy.Secret](g.set, ns, string(ref.Name)); !ok || s.Void {
		g.problem(field, "SECRET_NOT_FOUND", fmt.Sprintf("there is no usable Secret %s/%s", ns, ref.Name), "check the name, and that its document is valid")
		return "", false
	}
	return "kubernetes://" + ns + "/" + string(ref.Name), true
}

// reference is a use of an object by another.
type reference struct {
	fromGroup, fromKind, fromNamespace string
	toGroup, toKind, toNamespace       string
	toName                             string
}

// granted tells whether a reference stays in its namespace, or a ReferenceGrant of the target's namespace allows it.
func granted(set *policy.Set, r reference) bool {
	if r.fromNamespace == r.toNamespace {
		return true
	}
	for g := range policy.In[*policy.ReferenceGrant](set, r.toNamespace) {
		if g.Void || g.Spec == nil {
			continue
		}
		from := slices.ContainsFunc(g.Spec.From, func(f gatewayv1.ReferenceGrantFrom) bool {
			return string(f.Group) == r.fromGroup && string(f.Kind) == r.fromKind && string(f.Namespace) == r.fromNamespace
		})
		to := slices.ContainsFunc(g.Spec.To, func(t gatewayv1.ReferenceGrantTo) bool {
			return cmp.Or(string(t.Group), r.toGroup) == r.toGroup && string(t.Kind) == r.toKind && (t.Name == nil || string(*t.Name) == r.toName)
		})
		if from && to {
			return true
		}
	}
	return false
}
