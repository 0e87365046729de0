package translate

import (
	"cmp"
	"net/netip"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	httpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/credence-mesh/credence/xds/ir"
	"github.com/credence-mesh/credence/xds/resource"
)

const (
	connectTimeout = 5 * time.Second
	httpOptions    = "envoy.extensions.upstreams.http.v3.HttpProtocolOptions"
	socketMatch    = "envoy.transport_socket_match" // metadata by which an endpoint chooses its transport socket
	plaintextMark  = "plaintext"
)

func (t *translator) cluster(c *ir.Cluster) error {
	out := &clusterv3.Cluster{Name: c.Name, ConnectTimeout: durationpb.New(cmp.Or(c.Timeout, connectTimeout))}
	t.discovery(out, c)
	var err error
	if out.TransportSocket, err = upstream(&c.TLS); err != nil {
		return err
	}
	if c.TLS.PerEndpoint && out.TransportSocket != nil {
		if out.TransportSocketMatches, err = plaintextEndpoints(); err != nil {
			return err
		}
	}
	if c.HTTP2 {
		options, err := pack(&httpv3.HttpProtocolOptions{UpstreamProtocolOptions: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &httpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{Http2ProtocolOptions: &corev3.Http2ProtocolOptions{}},
			},
		}})
		if err != nil {
			return err
		}
		out.TypedExtensionProtocolOptions = map[string]*anypb.Any{httpOptions: options}
	}
	t.out.Clusters = append(t.out.Clusters, out)
	t.from(resource.Cluster, c.Name, c.Sources)
	return nil
}

func (t *translator) discovery(out *clusterv3.Cluster, c *ir.Cluster) {
	kind := clusterv3.Cluster_EDS
	switch c.Kind {
	case ir.Static:
		kind = clusterv3.Cluster_STATIC
		out.LoadAssignment = assignment(c.Name, []ir.Endpoint{{Address: c.Address, Port: c.Port}})
	case ir.DNS:
		kind = clusterv3.Cluster_STRICT_DNS
		members := c.Members
		if len(members) == 0 {
			members = []ir.Endpoint{{Address: c.Address, Port: c.Port}}
		}
		if !anyName(members) {
			kind = clusterv3.Cluster_STATIC
		}
		out.LoadAssignment = assignment(c.Name, members)
		out.RespectDnsTtl = kind == clusterv3.Cluster_STRICT_DNS //nolint:staticcheck // deprecated in favour of a cluster extension; every supported Envoy reads it
	case ir.OriginalDst:
		kind = clusterv3.Cluster_ORIGINAL_DST
		out.LbPolicy = clusterv3.Cluster_CLUSTER_PROVIDED
	default:
		out.EdsClusterConfig = &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads(), ServiceName: c.Name}
	}
	out.ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: kind}
}

func anyName(members []ir.Endpoint) bool {
	for _, m := range members {
		if _, err := netip.ParseAddr(m.Address); err != nil && m.Port != 0 {
			return true
		}
	}
	return false
}

// plaintextEndpoints lets the endpoints that are marked be reached without TLS; every other one needs it, so a mark that gets lost closes.
func plaintextEndpoints() ([]*clusterv3.Cluster_TransportSocketMatch, error) {
	raw, err := rawSocket()
	return []*clusterv3.Cluster_TransportSocketMatch{{
		Name: plaintextMark, Match: &structpb.Struct{Fields: map[string]*structpb.Value{plaintextMark: structpb.NewBoolValue(true)}}, TransportSocket: raw,
	}}, err
}

func (t *translator) endpoints(e *ir.Endpoints) {
	t.out.Endpoints = append(t.out.Endpoints, assignment(e.Cluster, e.Members))
	t.from(resource.Endpoints, e.Cluster, e.Sources)
}
