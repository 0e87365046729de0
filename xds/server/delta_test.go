package server

import (
	"testing"

	"github.com/credence-mesh/credence/xds/resource"
)

func TestDeltaWildcard(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.publish("a", res(t, resource.Cluster, "c1", 1), res(t, resource.Cluster, "c2", 1))
	c := f.delta("prod/a~1")
	c.subscribe(resource.Cluster)
	c.want(c.next(), resource.Cluster, []string{"c1", "c2"}, nil)
	f.publish("a", res(t, resource.Cluster, "c1", 1), res(t, resource.Cluster, "c2", 2))
	c.want(c.next(), resource.Cluster, []string{"c2"}, nil)
	f.publish("a", res(t, resource.Cluster, "c2", 2), res(t, resource.Cluster, "c3", 1))
	c.want(c.next(), resource.Cluster, []string{"c3"}, nil)
	c.want(c.next(), resource.Cluster, nil, []string{"c1"})
}
