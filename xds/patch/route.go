package patch

import (
	"fmt"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"

	"github.com/credence-mesh/credence/xds/resource"
)

// tables edits the route tables that are named, or what is in them.
func (t *trial) tables() error {
	m := t.spec.GetMatch().GetRouteConfiguration()
	for _, r := range t.messages.Routes {
		if m.GetName() != "" && m.GetName() != r.Name || m.GetPortNumber() != 0 && !mentions(r.Name, m.GetPortNumber()) {
			continue
		}
		n, err := 0, error(nil)
		switch t.spec.ApplyTo {
		case networkingv1alpha3.EnvoyFilter_ROUTE_CONFIGURATION:
			n, err = t.table(r)
		case networkingv1alpha3.EnvoyFilter_VIRTUAL_HOST:
			n, err = t.hosts(r)
		default:
			n, err = t.routes(r)
		}
		if err != nil {
			return err
		}
		if n > 0 {
			t.matched += n - 1
			t.changed(resource.RouteConfig, r.Name)
		}
	}
	return nil
}

// mentions tells whether the name of a route table has a port number in it.
func mentions(name string, port uint32) bool {
	words := strings.FieldsFunc(name, func(r rune) bool { return r < '0' || r > '9' })
	return slices.Contains(words, fmt.Sprint(port))
}

func (t *trial) table(r *routev3.RouteConfiguration) (int, error) {
	if op := t.operation(); op != networkingv1alpha3.EnvoyFilter_Patch_MERGE {
		return 0, fmt.Errorf("operation %s is not supported on a route table", op)
	}
	from := &routev3.RouteConfiguration{}
	if err := decode(t.spec.GetPatch().GetValue(), from); err != nil {
		return 0, err
	}
	proto.Merge(r, from)
	return 1, nil
}

func (t *trial) hitsHost(v *routev3.VirtualHost) bool {
	m := t.spec.GetMatch().GetRouteConfiguration().GetVhost()
	return (m.GetName() == "" || m.GetName() == v.Name) && (m.GetDomainName() == "" || slices.Contains(v.Domains, m.GetDomainName()))
}

func (t *trial) hosts(r *routev3.RouteConfiguration) (int, error) {
	list, n, err := edit[*routev3.VirtualHost]{
		list: r.VirtualHosts, hit: t.hitsHost, relative: true, end: len(r.VirtualHosts),
		make: func() (*routev3.VirtualHost, error) { return read(t, &routev3.VirtualHost{}) },
		merge: func(v *routev3.VirtualHost) (*routev3.VirtualHost, error) {
			return mergeWith(t, v, &routev3.VirtualHost{})
		},
	}.apply(t.operation())
	r.VirtualHosts = list
	return n, err
}

func (t *trial) hitsRoute(r *routev3.Route) bool {
	m := t.spec.GetMatch().GetRouteConfiguration().GetVhost().GetRoute()
	if m.GetName() != "" && m.GetName() != r.Name {
		return false
	}
	switch m.GetAction() {
	case networkingv1alpha3.EnvoyFilter_RouteConfigurationMatch_RouteMatch_ROUTE:
		return r.GetRoute() != nil
	case networkingv1alpha3.EnvoyFilter_RouteConfigurationMatch_RouteMatch_REDIRECT:
		return r.GetRedirect() != nil
	case networkingv1alpha3.EnvoyFilter_RouteConfigurationMatch_RouteMatch_DIRECT_RESPONSE:
		return r.GetDirectResponse() != nil
	default:
		return true
	}
}

func (t *trial) routes(r *routev3.RouteConfiguration) (int, error) {
	total := 0
	m := t.spec.GetMatch().GetRouteConfiguration().GetVhost().GetRoute()
	for _, v := range r.VirtualHosts {
		if !t.hitsHost(v) {
			continue
		}
		list, n, err := edit[*routev3.Route]{
			list: v.Routes, hit: t.hitsRoute, relative: m != nil, end: len(v.Routes),
			make:  func() (*routev3.Route, error) { return read(t, &routev3.Route{}) },
			merge: func(r *routev3.Route) (*routev3.Route, error) { return mergeWith(t, r, &routev3.Route{}) },
		}.apply(t.operation())
		if err != nil {
			return 0, err
		}
		v.Routes = list
		total += n
	}
	return total, nil
}

func read[M proto.Message](t *trial, into M) (M, error) {
	return into, decode(t.spec.GetPatch().GetValue(), into)
}

// mergeWith adds what the value says to a message.
func mergeWith[M proto.Message](t *trial, into, from M) (M, error) {
	if err := decode(t.spec.GetPatch().GetValue(), from); err != nil {
		return into, err
	}
	proto.Merge(into, from)
	return into, nil
}

// hitsCluster tells whether a cluster is named: by name, by the port and host in its name.
func (t *trial) hitsCluster(c *clusterv3.Cluster) bool {
	m := t.spec.GetMatch().GetCluster()
	if m.GetName() != "" {
		return m.GetName() == c.Name
	}
	parts := append(strings.Split(c.Name, "|"), "", "", "", "")
	return (m.GetPortNumber() == 0 || parts[1] == fmt.Sprint(m.GetPortNumber())) && (m.GetService() == "" || parts[3] == m.GetService()) &&
		(m.GetSubset() == "" || parts[2] == m.GetSubset())
}

func (t *trial) clusters() error {
	list, n, err := edit[*clusterv3.Cluster]{
		list: t.messages.Clusters, hit: t.hitsCluster, relative: true, end: len(t.messages.Clusters),
		make: func() (*clusterv3.Cluster, error) {
			c, err := read(t, &clusterv3.Cluster{})
			t.messages.From(resource.Cluster, c.GetName(), t.source())
			return c, err
		},
		merge: func(c *clusterv3.Cluster) (*clusterv3.Cluster, error) {
			t.messages.From(resource.Cluster, c.Name, t.source())
			return mergeCluster(t, c)
		},
	}.apply(t.operation())
	t.messages.Clusters, t.matched = list, t.matched+n
	return err
}

// mergeCluster merges the packed parts of a cluster by what they say, not by replacing them: a transport socket keeps its identity.
func mergeCluster(t *trial, c *clusterv3.Cluster) (*clusterv3.Cluster, error) {
	from := &clusterv3.Cluster{}
	if err := decode(t.spec.GetPatch().GetValue(), from); err != nil {
		return nil, err
	}
	merged, err := merge(c.GetTransportSocket().GetTypedConfig(), from.GetTransportSocket().GetTypedConfig())
	if err != nil {
		return nil, err
	}
	for name, packed := range from.TypedExtensionProtocolOptions {
		if have := c.TypedExtensionProtocolOptions[name]; have != nil {
			if packed, err = merge(have, packed); err != nil {
				return nil, err
			}
			from.TypedExtensionProtocolOptions[name] = packed
		}
	}
	proto.Merge(c, from)
	for name, packed := range from.TypedExtensionProtocolOptions {
		c.TypedExtensionProtocolOptions[name] = packed
	}
	if from.GetTransportSocket().GetTypedConfig() != nil {
		c.TransportSocket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: merged}
	}
	return c, nil
}
