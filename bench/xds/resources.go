package main

import (
	"fmt"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// shared is a resource that all workloads have, of the size of a real cluster.
func shared(n int) *clusterv3.Cluster {
	return cluster(fmt.Sprintf("outbound|80||service-%d.prod.svc.cluster.local", n), 0)
}

// own is the resource of one workload that its policy is in; generation says how often the policy was edited.
func own(workload, generation int) *clusterv3.Cluster {
	return cluster(fmt.Sprintf("inbound|8080||w%d", workload), generation)
}

func cluster(name string, generation int) *clusterv3.Cluster {
	address := &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: "10.0.0.1",
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: 8080}}}}
	return &clusterv3.Cluster{Name: name, ConnectTimeout: durationpb.New(time.Second + time.Duration(generation)*time.Millisecond),
		ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_STATIC},
		LoadAssignment: &endpointv3.ClusterLoadAssignment{ClusterName: name, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address}}}}}}}}
}

func workloadName(n int) string { return fmt.Sprintf("w%d", n) }

func nodeID(proxy, workloads int) string { return fmt.Sprintf("prod/w%d~%d", proxy%workloads, proxy) }
