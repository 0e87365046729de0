// Package compile turns a policy.Set and a workload into ir: what the proxies of that workload must do. It does no I/O; a Compiler only
// remembers what it computed before.
package compile

import "github.com/credence-mesh/credence/policy"

// PartKind is a kind of part.
type PartKind uint8

// The kinds of part. A sidecar consists of an InboundPart and an OutboundPart, a gateway of a GatewayPart.
const (
	InboundPart  PartKind = iota // of one workload
	OutboundPart                 // of all workloads that see the same services
	GatewayPart                  // of one gateway
)

// PartKey names a part of the configuration. Workloads that list an equal key share the very same resources.
type PartKey struct {
	Kind      PartKind
	Namespace string
	// Name of the workload or gateway; for an outbound part, of the Sidecar object that narrows it ("" for the namespace's default), or the
	// workload itself where an EnvoyFilter makes it unlike its neighbours.
	Name  string
	Alone bool // an outbound part of the one workload that Name names
	// Redirect: iptables hands outbound connections over; only of an outbound part.
	Redirect bool
	// EgressPort of the HTTP egress listener on 127.0.0.1; only of an outbound part without Redirect.
	EgressPort uint32
}

// Affected is what a change touches.
type Affected struct {
	Parts    map[PartKey]bool // to be built again
	Outbound bool             // every outbound part is to be built again
	// Sees tells of an outbound part whether it has a service that differs; nil: none does.
	Sees      func(PartKey) bool
	Gateways  bool                // every gateway part is to be built again
	Inbound   bool                // every inbound part is to be built again
	Workloads map[policy.Key]bool // workloads (by the key of their WorkloadEntry or Gateway) whose list of parts may differ, or that came or went
}

// Wide tells whether parts are touched that Parts does not list.
func (a Affected) Wide() bool { return a.Outbound || a.Gateways || a.Inbound || a.Sees != nil }

// Touches tells whether a part is to be built again.
func (a Affected) Touches(k PartKey) bool {
	switch {
	case a.Parts[k]:
		return true
	case k.Kind == InboundPart:
		return a.Inbound
	case k.Kind == GatewayPart:
		return a.Gateways
	default:
		return a.Outbound || a.Sees != nil && a.Sees(k)
	}
}
