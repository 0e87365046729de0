package server

import (
	"context"
	"slices"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"

	"github.com/credence-mesh/credence/xds/resource"
)

type sotwClient struct {
	*fixture
	stream discoveryv3.AggregatedDiscoveryService_StreamAggregatedResourcesClient
}

func (f *fixture) sotw(node string) *sotwClient {
	f.Helper()
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(f.Context(), "sa", "a"))
	f.Cleanup(cancel)
	st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(f.dial(insecure.NewCredentials())).StreamAggregatedResources(ctx)
	if err != nil {
		f.Fatal(err)
	}
	c := &sotwClient{f, st}
	c.send(&discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: node}, TypeUrl: resource.Cluster.URL()})
	return c
}

func (c *sotwClient) send(r *discoveryv3.DiscoveryRequest) {
	c.Helper()
	if err := c.stream.Send(r); err != nil {
		c.Fatal(err)
	}
}

func (c *sotwClient) recv(t resource.Type, want ...string) *discoveryv3.DiscoveryResponse {
	c.Helper()
	stop := time.AfterFunc(patience, func() { c.Error("no response came") })
	defer stop.Stop()
	r, err := c.stream.Recv()
	if err != nil {
		c.Fatal(err)
	}
	var got []string
	for _, x := range r.Resources {
		if t == resource.Endpoints {
			e := &endpointv3.ClusterLoadAssignment{}
			if err := x.UnmarshalTo(e); err != nil {
				c.Fatal(err)
			}
			got = append(got, e.ClusterName)
			continue
		}
		cl := &clusterv3.Cluster{}
		if err := x.UnmarshalTo(cl); err != nil {
			c.Fatal(err)
		}
		got = append(got, cl.Name+cl.ConnectTimeout.String())
	}
	slices.Sort(got)
	if r.TypeUrl != t.URL() || !slices.Equal(got, want) || r.VersionInfo == "" {
		c.Fatalf("got %s %q %v, want %v", r.TypeUrl, r.VersionInfo, got, want)
	}
	return r
}

func (c *sotwClient) ack(r *discoveryv3.DiscoveryResponse, names ...string) {
	c.Helper()
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: r.TypeUrl, VersionInfo: r.VersionInfo, ResponseNonce: r.Nonce, ResourceNames: names})
}

func TestSotWWildcard(t *testing.T) {
	t.Parallel()
	f := start(t)
	cluster := func(name string, n int) *resource.Resource { return res(t, resource.Cluster, name, n) }
	f.publish("a", cluster("c1", 1), cluster("c2", 1))
	c := f.sotw("prod/a~1")
	c.ack(c.recv(resource.Cluster, "c1seconds:2", "c2seconds:2"))
	f.publish("a", cluster("c1", 1), cluster("c2", 2))
	c.ack(c.recv(resource.Cluster, "c1seconds:2", "c2seconds:3"))
	f.publish("a", cluster("c2", 2), cluster("c3", 1)) // first with what goes away, then without
	both := c.recv(resource.Cluster, "c1seconds:2", "c2seconds:3", "c3seconds:2")
	c.ack(both)
	after := c.recv(resource.Cluster, "c2seconds:3", "c3seconds:2")
	if after.VersionInfo == both.VersionInfo {
		t.Error("different content, same version")
	}
	c.ack(after)
	f.inStep()
}

func TestSotWByName(t *testing.T) {
	t.Parallel()
	f := start(t)
	e := func(name string, n int) *resource.Resource { return res(t, resource.Endpoints, name, n) }
	f.publish("a", res(t, resource.Cluster, "c", 1), e("e1", 1), e("e2", 1))
	c := f.sotw("prod/a~1")
	c.ack(c.recv(resource.Cluster, "cseconds:2"))
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: resource.Endpoints.URL(), ResourceNames: []string{"e1"}})
	r := c.recv(resource.Endpoints, "e1")
	c.ack(r, "e1", "e2", "e3") // an answer that subscribes to more
	r = c.recv(resource.Endpoints, "e2")
	c.ack(r, "e1", "e2", "e3")
	f.publish("a", res(t, resource.Cluster, "c", 1), e("e1", 2), e("e2", 1))
	r = c.recv(resource.Endpoints, "e1")
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: resource.Endpoints.URL(), ResourceNames: []string{"e9"}, ResponseNonce: "stale"}) // ignored
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: resource.Endpoints.URL(), ResourceNames: []string{"e1", "e2"}, ResponseNonce: r.Nonce, VersionInfo: "never-sent"})
	if f.status.Proxies()[0].InStep {
		t.Error("a version that was never sent was taken for an answer")
	}
	c.ack(r, "e1", "e2")
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: resource.Endpoints.URL(), ResourceNames: []string{"e2"}, ResponseNonce: r.Nonce, VersionInfo: r.VersionInfo})
	f.inStep()
}

// A proxy that refuses a response in state-of-the-world form keeps the last good version of the culprit, and gets the rest.
func TestSotWNack(t *testing.T) {
	t.Parallel()
	f := start(t)
	cluster := func(name string, n int) *resource.Resource { return res(t, resource.Cluster, name, n) }
	f.publish("a", cluster("good", 1), cluster("bad", 1))
	c := f.sotw("prod/a~1")
	first := c.recv(resource.Cluster, "badseconds:2", "goodseconds:2")
	c.ack(first)
	f.publish("a", cluster("good", 2), cluster("bad", 2))
	r := c.recv(resource.Cluster, "badseconds:3", "goodseconds:3")
	c.send(&discoveryv3.DiscoveryRequest{TypeUrl: r.TypeUrl, VersionInfo: first.VersionInfo, ResponseNonce: r.Nonce, ErrorDetail: &statuspb.Status{Code: 3, Message: "bad: no"}})
	c.ack(c.recv(resource.Cluster, "badseconds:2", "goodseconds:3"))
	if n := f.status.Proxies()[0].Nack; n == nil || !slices.Equal(n.Resources, []string{"bad"}) {
		t.Errorf("%+v", n)
	}
	f.publish("a", cluster("good", 2), cluster("bad", 3))
	c.ack(c.recv(resource.Cluster, "badseconds:4", "goodseconds:3"))
	f.inStep()
}
