package translate

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/credence-mesh/credence/xds/ir"
)

// assignment is endpoints grouped by locality.
func assignment(cluster string, members []ir.Endpoint) *endpointv3.ClusterLoadAssignment {
	groups := map[string]*endpointv3.LocalityLbEndpoints{}
	var names []string
	for i := range members {
		m := &members[i]
		g := groups[m.Locality]
		if g == nil {
			g = &endpointv3.LocalityLbEndpoints{Locality: locality(m.Locality)}
			groups[m.Locality] = g
			names = append(names, m.Locality)
		}
		g.LbEndpoints = append(g.LbEndpoints, endpoint(m))
	}
	slices.Sort(names)
	out := &endpointv3.ClusterLoadAssignment{ClusterName: cluster}
	for _, n := range names {
		out.Endpoints = append(out.Endpoints, groups[n])
	}
	return out
}

// locality reads "region/zone/subzone".
func locality(s string) *corev3.Locality {
	if s == "" {
		return nil
	}
	p := append(strings.SplitN(s, "/", 3), "", "")
	return &corev3.Locality{Region: p[0], Zone: p[1], SubZone: p[2]}
}

func endpoint(m *ir.Endpoint) *endpointv3.LbEndpoint {
	e := &endpointv3.LbEndpoint{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(m.Address, m.Port)}}}
	if m.Weight > 0 {
		e.LoadBalancingWeight = wrapperspb.UInt32(m.Weight)
	}
	if m.Unhealthy {
		e.HealthStatus = corev3.HealthStatus_UNHEALTHY
	}
	if m.Plain {
		e.Metadata = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
			socketMatch: {Fields: map[string]*structpb.Value{plaintextMark: structpb.NewBoolValue(true)}},
		}}
	}
	return e
}
