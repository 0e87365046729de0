package translate

import (
	"cmp"
	"slices"
	"strings"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	"google.golang.org/protobuf/proto"

	"github.com/credence-mesh/credence/xds/filter"
	"github.com/credence-mesh/credence/xds/resource"
)

// references collects what may be referred to, and refuses what refers to nothing.
func (c *checker) references() {
	c.clusters = map[string]bool{blackHole: true, filter.ServicesCluster: true, xdsCluster: true}
	endpoints := map[string]bool{}
	for _, e := range c.r.Endpoints {
		endpoints[e.ClusterName] = true
	}
	for _, m := range c.r.Clusters {
		c.clusters[m.Name] = true
		if m.GetType() == clusterv3.Cluster_EDS && !endpoints[m.Name] {
			c.fail("cluster %s: no endpoints resource", m.Name)
		}
	}
	c.tables, c.extensionNames, c.filters = map[string]bool{}, map[string]bool{}, map[string][]string{}
	for _, t := range c.r.Routes {
		c.tables[t.Name] = true
	}
	for _, t := range c.r.Tables {
		c.tables[t.Config.Name] = true
	}
	for _, e := range c.r.Extensions {
		c.extensionNames[e.Name] = true
	}
	for _, r := range c.wanted {
		c.cluster(r.what, r.cluster)
	}
}

// refer notes the clusters that a filter names. A service of the mesh may decide or limit, which the outbound part of the same proxy reaches:
// such a cluster is not looked for here.
func (c *checker) refer(what string, m proto.Message) {
	asked := ""
	switch m := m.(type) {
	case *tcpproxyv3.TcpProxy:
		c.wanted = append(c.wanted, reference{what, m.GetCluster()})
		for _, w := range m.GetWeightedClusters().GetClusters() {
			c.wanted = append(c.wanted, reference{what, w.Name})
		}
	case *extauthzv3.ExtAuthz:
		asked = m.GetGrpcService().GetEnvoyGrpc().GetClusterName()
	case *ratelimitv3.RateLimit:
		asked = m.GetRateLimitService().GetGrpcService().GetEnvoyGrpc().GetClusterName()
	}
	if !strings.HasPrefix(asked, "outbound|") {
		c.wanted = append(c.wanted, reference{what, asked})
	}
}

func (c *checker) cluster(what, name string) {
	if name == "" || c.clusters[name] {
		return
	}
	if c.asks {
		c.asked = append(c.asked, name)
	} else if !c.finished(name) {
		c.fail("%s: cluster %q does not exist", what, name)
	}
}

// finished tells whether a cluster is among those that are finished. Both these and the hosts that name them are in the order of services, so
// that the next one asked for mostly follows one that was.
func (c *checker) finished(name string) bool {
	list := c.r.Finished
	for i, at := range c.next {
		if at < len(list) && list[at].Name == name && list[at].Type == resource.Cluster {
			c.next[i]++
			return true
		}
	}
	at, ok := slices.BinarySearchFunc(list, name, func(r *resource.Resource, n string) int {
		return cmp.Or(cmp.Compare(r.Type, resource.Cluster), cmp.Compare(r.Name, n))
	})
	if ok {
		c.next[c.turn%len(c.next)] = at + 1
		c.turn++
	}
	return ok
}

func (c *checker) routes() {
	for _, t := range c.r.Tables {
		for _, h := range t.Hosts {
			for _, name := range h.Clusters {
				c.cluster(t.Config.Name, name)
			}
		}
	}
	for _, t := range c.r.Routes {
		domains, hosts := map[string]bool{}, map[string]bool{}
		for _, h := range t.VirtualHosts {
			if hosts[h.Name] {
				c.fail("route table %s: two hosts are called %q", t.Name, h.Name)
			}
			hosts[h.Name] = true
			for _, d := range h.Domains {
				if d = strings.ToLower(d); domains[d] {
					c.fail("route table %s: domain %q twice", t.Name, d)
				}
				domains[d] = true
			}
			for _, r := range h.Routes {
				c.route("route table "+t.Name+": route "+r.Name, r)
			}
		}
		c.overrides(t.Name, overridesOf(t))
	}
}

func (c *checker) route(what string, r *routev3.Route) {
	a := r.GetRoute()
	c.cluster(what, a.GetCluster())
	total := uint32(0)
	for _, w := range a.GetWeightedClusters().GetClusters() {
		total += w.GetWeight().GetValue()
		if w.Name != invalidBackend {
			c.cluster(what, w.Name)
		}
	}
	if a.GetWeightedClusters() != nil && total == 0 {
		c.fail("%s: weights are all zero", what)
	}
	for _, m := range a.GetRequestMirrorPolicies() {
		c.cluster(what, m.Cluster)
	}
}
