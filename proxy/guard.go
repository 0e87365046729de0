package proxy

import (
	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	overloadv3 "github.com/envoyproxy/go-control-plane/envoy/config/overload/v3"
	connectionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/resource_monitors/downstream_connections/v3"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/credence-mesh/credence/xds/resource"
)

// overloadManager refuses connections beyond a limit. Without it Envoy takes them until it has no file descriptors or memory left.
func overloadManager(maxConnections int64) (*overloadv3.OverloadManager, error) {
	if maxConnections == 0 {
		maxConnections = defaultMaxConnections
	}
	limit, err := resource.Pack(&connectionsv3.DownstreamConnectionsConfig{MaxActiveDownstreamConnections: maxConnections})
	if err != nil {
		return nil, err
	}
	return &overloadv3.OverloadManager{ResourceMonitors: []*overloadv3.ResourceMonitor{{
		Name:       "envoy.resource_monitors.global_downstream_max_connections",
		ConfigType: &overloadv3.ResourceMonitor_TypedConfig{TypedConfig: limit},
	}}}, nil
}

// layeredRuntime has no admin layer: nobody loosens a limit at run time over the admin interface.
func layeredRuntime() *bootstrapv3.LayeredRuntime {
	return &bootstrapv3.LayeredRuntime{Layers: []*bootstrapv3.RuntimeLayer{{
		Name: "credence",
		LayerSpecifier: &bootstrapv3.RuntimeLayer_StaticLayer{StaticLayer: &structpb.Struct{Fields: map[string]*structpb.Value{
			// One HTTP/2 connection that opens and resets streams as fast as it can must not starve the others.
			"http.max_requests_per_io_cycle": structpb.NewNumberValue(1),
		}}},
	}}}
}
