package compile

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	corev1 "k8s.io/api/core/v1"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/peer"
	"github.com/credence-mesh/credence/xds/ir"
)

// tlsModeLabel on a workload says, as in Istio, that it has no sidecar.
const tlsModeLabel = "security.istio.io/tlsMode"

// member is a WorkloadEntry as an endpoint of services.
type member struct {
	workload *policy.Workload
	id       identity.ID
}

// target is a port of a workload that a service sends to.
type target struct {
	port     uint32
	protocol Protocol
	service  *service
	number   uint32 // of the service
}

func trustDomain(name string) (identity.TrustDomain, error) {
	return spiffeid.TrustDomainFromString(name)
}

func decimal(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

func sourceOf(o *policy.Object) ir.Source {
	return ir.Source{Object: o.Key.String(), At: o.At.String()}
}

// selected is the workloads that have all labels of a selector, by name. An empty selector selects nobody, as in Kubernetes.
func (b *spaceBuilder) selected(selector map[string]string) []*member {
	var fewest []*member
	first := true
	for k, v := range selector {
		if have := b.out.byLabel[label{k, v}]; first || len(have) < len(fewest) {
			fewest, first = have, false
		}
	}
	var out []*member
	for _, m := range fewest {
		if policy.Selects(selector, m.workload.Labels) {
			out = append(out, m)
		}
	}
	return out
}

// isPlain tells whether a port of a workload must be reached without TLS.
func (b *spaceBuilder) isPlain(m *member, port uint32) bool {
	if m.workload.Labels[tlsModeLabel] == "disabled" {
		return true
	}
	a := ask{member: m, port: port}
	a.plain = b.plainNow(a)
	b.asked = append(b.asked, a)
	return a.plain
}

// plainNow asks once for a port of a workload.
func (b *spaceBuilder) plainNow(a ask) bool {
	a.plain = false
	plain, known := b.plain[a]
	if !known {
		mode, _ := peer.For(b.set, a.member.workload, a.port)
		plain = mode == peer.Disable
		b.plain[a] = plain
	}
	return plain
}

// targetPort is the port of a workload behind a port of a service.
func targetPort(ports map[string]uint32, name string, number uint32, targetName string, targetNumber uint32) (uint32, bool) {
	if p, ok := ports[name]; ok && name != "" {
		return p, true
	}
	if targetName != "" {
		p, ok := ports[targetName]
		return p, ok
	}
	return cmp.Or(targetNumber, number), true
}

func protocolOfService(p corev1.ServicePort) Protocol {
	if p.Protocol == corev1.ProtocolUDP || p.Protocol == corev1.ProtocolSCTP {
		return UDP
	}
	app := ""
	if p.AppProtocol != nil {
		app = *p.AppProtocol
	}
	return protocolOf(app, p.Name)
}

// reach makes the cluster of a port: mutual TLS to exactly the identities behind it, plaintext to endpoints that have none.
func reach(p *servicePort, s *service, peers []identity.ID) {
	slices.SortFunc(p.endpoints, func(a, b ir.Endpoint) int {
		return cmp.Or(cmp.Compare(a.Address, b.Address), cmp.Compare(a.Port, b.Port), cmp.Compare(a.Locality, b.Locality))
	})
	p.endpoints = slices.CompactFunc(p.endpoints, func(a, b ir.Endpoint) bool { return a.Address == b.Address && a.Port == b.Port })
	c := &p.cluster
	c.Name = clusterName(p.number, s.host)
	c.HTTP2 = p.protocol == HTTP2 || p.protocol == GRPC
	c.Sources = []ir.Source{s.source}
	if c.Kind == ir.DNS {
		c.Members = p.endpoints
	}
	c.TLS.Mode = ir.UpstreamPlain
	defer func() { p.upstream = &ir.Upstream{Cluster: p.cluster, Members: p.endpoints} }()
	anyPlain, anyMutual := false, false
	for _, e := range p.endpoints {
		anyPlain, anyMutual = anyPlain || e.Plain, anyMutual || !e.Plain
	}
	if !anyMutual {
		return
	}
	c.TLS = ir.UpstreamTLS{Mode: ir.UpstreamMutual, SNI: "outbound_." + decimal(p.number) + "_._." + s.host, PerEndpoint: anyPlain}
	slices.SortFunc(peers, func(a, b identity.ID) int { return cmp.Compare(a.String(), b.String()) })
	for _, id := range slices.Compact(peers) {
		c.TLS.Peers = append(c.TLS.Peers, identity.MatchID(id))
	}
}
