package compile

import (
	"cmp"
	"slices"
	"strconv"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/ir"
)

const (
	// AnnotationEgressPort on a WorkloadEntry is the port of the HTTP egress listener of its proxy, on 127.0.0.1.
	AnnotationEgressPort = "credence.dev/egress-port"
	// DefaultEgressPort is the port of the HTTP egress listener where the annotation does not say another.
	DefaultEgressPort = 15080
	// annotationInterception is Istio's: how a proxy gets the traffic of its workload.
	annotationInterception = "sidecar.istio.io/interceptionMode"

	inboundCapturePort  = 15006
	outboundCapturePort = 15001
)

// Compiler compiles parts. It remembers the services of the last sets, so that a change of policies alone does not compute them again.
// It is safe for concurrent use.
type Compiler struct{ registries registries }

// New is a Compiler that remembers nothing.
func New() *Compiler { return &Compiler{} }

// Parts is the parts that the proxies of a workload consist of.
func (c *Compiler) Parts(set *policy.Set, w *policy.Workload) []PartKey {
	if w.Gateway != nil {
		return []PartKey{{Kind: GatewayPart, Namespace: w.Namespace, Name: w.Name}}
	}
	return []PartKey{{Kind: InboundPart, Namespace: w.Namespace, Name: w.Name}, outboundKey(set, w)}
}

func outboundKey(set *policy.Set, w *policy.Workload) PartKey {
	k := PartKey{Kind: OutboundPart, Namespace: w.Namespace, Redirect: redirects(set, w)}
	if !k.Redirect {
		k.EgressPort = egressPort(w)
	}
	if patchedAlone(set, w) {
		k.Name, k.Alone = w.Name, true
	} else if s := ownSidecar(set, w); s != nil {
		k.Name = s.Key.Name
	}
	return k
}

func redirects(set *policy.Set, w *policy.Workload) bool {
	return cmp.Or(w.Entry.Annotations[annotationInterception], set.Mesh().DefaultConfig.InterceptionMode) == "REDIRECT"
}

func egressPort(w *policy.Workload) uint32 {
	n, err := strconv.ParseUint(w.Entry.Annotations[AnnotationEgressPort], 10, 16)
	if err != nil || n == 0 {
		return DefaultEgressPort
	}
	return uint32(n)
}

// Build compiles one part. A part of something that is not there is nil. The problems are about what users wrote; the part is complete
// in spite of them, and closed where they leave open what was meant.
func (c *Compiler) Build(set *policy.Set, key PartKey) (*ir.Part, []policy.Problem) {
	reg := c.registries.of(set)
	var part *ir.Part
	var problems []policy.Problem
	switch key.Kind {
	case InboundPart:
		part, problems = inbound(reg, set, key)
	case OutboundPart:
		part, problems = outbound(reg, set, key)
	case GatewayPart:
		part, problems = gateway(reg, set, key)
	}
	if part != nil {
		part.AccessLog = set.Mesh().AccessLogFile
		sortPart(part)
	}
	slices.SortFunc(problems, policy.Problem.Compare)
	return part, slices.Compact(problems)
}

// sortPart orders what has names, so that equal input gives equal bytes.
func sortPart(p *ir.Part) {
	slices.SortFunc(p.Listeners, func(a, b ir.Listener) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(p.Routes, func(a, b ir.RouteTable) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(p.Clusters, func(a, b ir.Cluster) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(p.Upstreams, func(a, b *ir.Upstream) int { return cmp.Compare(a.Cluster.Name, b.Cluster.Name) })
	slices.SortFunc(p.Endpoints, func(a, b ir.Endpoints) int { return cmp.Compare(a.Cluster, b.Cluster) })
}
