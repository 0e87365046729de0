package server

import (
	"github.com/credence-mesh/credence/snapshot"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"testing"
	"time"

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

func TestDeltaByName(t *testing.T) {
	t.Parallel()
	f := start(t)
	e := func(name string, n int) *resource.Resource { return res(t, resource.Endpoints, name, n) }
	f.publish("a", e("e1", 1), e("e2", 1), e("e3", 1))
	c := f.delta("prod/a~1")
	c.subscribe(resource.Endpoints, "e1", "none")
	c.want(c.next(), resource.Endpoints, []string{"e1"}, []string{"none"})
	c.subscribe(resource.Endpoints, "e2")
	c.want(c.next(), resource.Endpoints, []string{"e2"}, nil)
	c.subscribe(resource.Endpoints, "e2") // asked for again: sent again
	c.want(c.next(), resource.Endpoints, []string{"e2"}, nil)
	f.publish("a", e("e1", 2), e("e2", 1), e("e3", 2)) // e3 is not subscribed to
	c.want(c.next(), resource.Endpoints, []string{"e1"}, nil)
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.Endpoints.URL(), ResourceNamesUnsubscribe: []string{"e1"}})
	c.subscribe(resource.Endpoints, "e3")
	c.want(c.next(), resource.Endpoints, []string{"e3"}, nil)
	f.publish("a", e("e1", 3), e("e2", 2))
	c.want(c.next(), resource.Endpoints, []string{"e2"}, nil)
	c.want(c.next(), resource.Endpoints, nil, []string{"e3"})
	f.publish("a", e("e1", 3), e("e2", 2), e("none", 1)) // asked for before it existed
	c.want(c.next(), resource.Endpoints, []string{"none"}, nil)
}

func TestDeltaWildcardAndNames(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.publish("a", res(t, resource.Cluster, "c1", 1), res(t, resource.Cluster, "c2", 1))
	c := f.delta("prod/a~1")
	c.subscribe(resource.Cluster, "*", "c2", "c9")
	c.want(c.next(), resource.Cluster, []string{"c1", "c2"}, []string{"c9"})
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.Cluster.URL(), ResourceNamesUnsubscribe: []string{"c9"}})
	c.want(c.next(), resource.Cluster, nil, []string{"c9"})
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.Cluster.URL(), ResourceNamesUnsubscribe: []string{"*"}})
	c.subscribe(resource.Endpoints, "fence") // what was sent above has been read once this is answered
	c.want(c.next(), resource.Endpoints, nil, []string{"fence"})
	f.publish("a", res(t, resource.Cluster, "c1", 2), res(t, resource.Cluster, "c2", 2))
	c.want(c.next(), resource.Cluster, []string{"c2"}, nil)
}

func TestDeltaEmptyWildcardIsAnswered(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.publish("a", res(t, resource.Endpoints, "e", 1))
	c := f.delta("prod/a~1")
	c.subscribe(resource.Listener)
	c.want(c.next(), resource.Listener, nil, nil)
}

// F78: only differences and removals are sent to a proxy that comes back.
func TestDeltaReconnect(t *testing.T) {
	t.Parallel()
	f := start(t)
	list := []*resource.Resource{res(t, resource.Cluster, "same", 1), res(t, resource.Cluster, "other", 2), res(t, resource.Cluster, "new", 1)}
	f.publish("a", list...)
	c := f.delta("prod/a~2")
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.Cluster.URL(),
		InitialResourceVersions: map[string]string{"same": list[0].Version, "other": "old", "gone": "x"}})
	c.want(c.next(), resource.Cluster, []string{"new", "other"}, []string{"gone"})
	f.inStep()
}

// F75: an answer to what was never sent, or was answered before, changes nothing.
func TestDeltaStaleNonce(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.publish("a", res(t, resource.Cluster, "c", 1))
	c := f.delta("prod/a~1")
	c.subscribe(resource.Cluster)
	first := c.next()
	f.inStep()
	f.publish("a", res(t, resource.Cluster, "c", 2))
	second := c.recv()
	c.nack(first, "replayed")
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.Cluster.URL(), ResponseNonce: "never-sent"})
	c.subscribe(resource.Endpoints, "fence")
	c.want(c.next(), resource.Endpoints, nil, []string{"fence"})
	if s := f.status.Proxies()[0]; s.InStep || s.Nack != nil {
		t.Fatalf("%+v", s)
	}
	c.ack(second)
	f.inStep()
}

// One unanswered response of a type at a time; what happens meanwhile is sent as one.
func TestDeltaCoalescesUntilAcked(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.publish("a", res(t, resource.Cluster, "c", 1))
	c := f.delta("prod/a~1")
	c.subscribe(resource.Cluster)
	r := c.recv()
	for n := 2; n < 6; n++ {
		f.publish("a", res(t, resource.Cluster, "c", n), res(t, resource.Cluster, "d", n))
	}
	last := res(t, resource.Cluster, "d", 5)
	c.ack(r)
	r = c.next()
	c.want(r, resource.Cluster, []string{"c", "d"}, nil)
	if c.holds[resource.Cluster]["d"] != last.Version {
		t.Error("not the newest")
	}
	f.inStep()
}

// F81: what others refer to comes first, what nothing refers to any longer goes last.
func TestMakeBeforeBreak(t *testing.T) {
	t.Parallel()
	f := start(t)
	of := func(n string) []*resource.Resource {
		return []*resource.Resource{res(t, resource.Cluster, n, 1), res(t, resource.Listener, "l", len(n)), res(t, resource.RouteConfig, "r", len(n))}
	}
	f.publish("a", of("x")...)
	c := f.delta("prod/a~1")
	c.subscribe(resource.Cluster)
	c.next()
	c.subscribe(resource.Listener)
	c.next()
	c.subscribe(resource.RouteConfig, "r")
	c.next()
	f.inStep()
	f.publish("a", of("yy")...)
	cds := c.recv()
	c.want(cds, resource.Cluster, []string{"yy"}, nil)
	c.subscribe(resource.ExtensionConfig, "fence") // the listener must wait for the cluster: this comes first
	c.want(c.next(), resource.ExtensionConfig, nil, []string{"fence"})
	c.ack(cds)
	lds, rds := c.recv(), c.recv()
	c.want(lds, resource.Listener, []string{"l"}, nil)
	c.want(rds, resource.RouteConfig, []string{"r"}, nil)
	c.ack(lds)
	c.ack(rds)
	c.want(c.next(), resource.Cluster, nil, []string{"x"})
	f.inStep()
}

// The configuration of a filter stays as long as the proxy wants it: the connections of a listener that drains still pass the filter.
func TestExtensionConfigStays(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.publish("a", res(t, resource.Listener, "l", 1), res(t, resource.ExtensionConfig, "l/filter", 1))
	c := f.delta("prod/a~1")
	c.subscribe(resource.Listener)
	c.next()
	c.subscribe(resource.ExtensionConfig, "l/filter")
	c.next()
	f.publish("a", res(t, resource.Listener, "l", 2))
	c.want(c.next(), resource.Listener, []string{"l"}, nil)
	f.inStep()
	c.subscribe(resource.ExtensionConfig, "fence")
	c.want(c.next(), resource.ExtensionConfig, nil, []string{"fence"})
	f.publish("a", res(t, resource.Listener, "l", 2), res(t, resource.ExtensionConfig, "l/filter", 2))
	c.want(c.next(), resource.ExtensionConfig, []string{"l/filter"}, nil)
	f.inStep()
}

// The same after a reconnect; what the proxy waits for and does not have is said to be absent.
func TestExtensionConfigStaysOverAReconnect(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.publish("a", res(t, resource.Listener, "l", 2), res(t, resource.ExtensionConfig, "l/other", 2))
	c := f.delta("prod/a~1")
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.ExtensionConfig.URL(), ResourceNamesSubscribe: []string{"l/drains", "l/other", "l/waits"},
		InitialResourceVersions: map[string]string{"l/drains": "1", "l/other": "1"}})
	c.want(c.next(), resource.ExtensionConfig, []string{"l/other"}, []string{"l/waits"})
	f.inStep()
}

// A cluster that never gets warm does not keep back the listeners for ever.
func TestHoldEnds(t *testing.T) {
	t.Parallel()
	f := start(t, func(o *Options) { o.Limits.Hold = 1 })
	f.publish("a", res(t, resource.Cluster, "c", 1), res(t, resource.Listener, "l", 1))
	c := f.delta("prod/a~1")
	c.subscribe(resource.Cluster)
	c.recv()
	c.subscribe(resource.Listener)
	c.want(c.next(), resource.Listener, []string{"l"}, nil)
}

// The endpoints of a cluster that changed are sent again: Envoy does not ask for them, but warms the cluster with them.
func TestEndpointsFollowTheirCluster(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.publish("a", res(t, resource.Cluster, "c", 1), res(t, resource.Endpoints, "c", 1))
	c := f.delta("prod/a~1")
	c.subscribe(resource.Cluster)
	c.next()
	c.subscribe(resource.Endpoints, "c")
	c.next()
	f.publish("a", res(t, resource.Cluster, "c", 2), res(t, resource.Endpoints, "c", 1))
	c.want(c.next(), resource.Cluster, []string{"c"}, nil)
	c.want(c.next(), resource.Endpoints, []string{"c"}, nil)
}

func TestNack(t *testing.T) {
	t.Parallel()
	f := start(t)
	at := func(good, bad int) {
		f.publish("a", res(t, resource.Cluster, "good", good), res(t, resource.Cluster, "bad", bad))
	}
	at(1, 1)
	c, sibling := f.delta("prod/a~1"), f.delta("prod/a~2")
	for _, x := range []*client{c, sibling} {
		x.subscribe(resource.Cluster)
		x.next()
	}
	at(2, 2)
	c.nack(c.recv(), "Error adding/updating cluster(s) bad: no such thing")
	c.want(c.next(), resource.Cluster, []string{"good"}, nil) // the innocent part of the response again
	sibling.want(sibling.next(), resource.Cluster, []string{"bad", "good"}, nil)
	n := f.status.Proxies()[0].Nack
	if n == nil || len(n.Resources) != 1 || n.Resources[0] != "bad" || n.Sources[0] != "Test bad (bad.yaml:1)" {
		t.Fatalf("%+v", n)
	}
	at(3, 2) // the refused version is withheld
	c.want(c.next(), resource.Cluster, []string{"good"}, nil)
	at(3, 3) // a new version is tried at once
	c.want(c.next(), resource.Cluster, []string{"bad"}, nil)
	sibling.next()
	sibling.next()
	f.inStep()
	if n := f.status.Proxies()[0].Nack; n != nil {
		t.Errorf("taken, and yet %+v", n)
	}
}

// Where the error names nothing, the resources are sent one by one, until the culprit is found.
func TestNackWithoutName(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.publish("a", res(t, resource.Cluster, "c1", 1), res(t, resource.Cluster, "c2", 1), res(t, resource.Cluster, "c3", 1))
	c := f.delta("prod/a~1")
	c.subscribe(resource.Cluster)
	c.nack(c.recv(), "something is wrong")
	for range 3 {
		r := c.recv()
		if n := sentNames(r); len(n) != 1 {
			t.Fatalf("sent %v", n)
		} else if n[0] == "c2" {
			c.nack(r, "something is wrong")
		} else {
			c.ack(r)
		}
	}
	f.until("the culprit", func() bool {
		n := f.status.Proxies()[0].Nack
		return n != nil && len(n.Resources) == 1 && n.Resources[0] == "c2"
	})
}

// F76: a refused version is tried again after 5 s, then ever more rarely.
func TestQuarantineBacksOff(t *testing.T) {
	t.Parallel()
	v, err := snapshot.NewView(res(t, resource.Cluster, "c", 1))
	if err != nil {
		t.Fatal(err)
	}
	s := &subscription{t: resource.Cluster, wildcard: true}
	now := time.Now()
	var waits []time.Duration
	for range 9 {
		r := s.next(v, now)
		if r == nil || len(r.items) != 1 {
			t.Fatalf("after %v: %+v", waits, r)
		}
		s.refuse(r, "no", now)
		if s.next(v, now.Add(time.Second)) != nil {
			t.Fatal("tried again too early")
		}
		waits = append(waits, s.retryAt().Sub(now))
		now = s.retryAt()
	}
	if waits[0] != 5*time.Second || waits[1] != 10*time.Second || waits[8] != 5*time.Minute {
		t.Errorf("%v", waits)
	}
}

// Two proxies of two workloads: each gets its own, and a change of one costs the other nothing.
func TestTwoNodes(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.publish("a", res(t, resource.Cluster, "ca", 1))
	f.publish("b", res(t, resource.Cluster, "cb", 1))
	a, b := f.delta("prod/a~1"), f.deltaAs("prod/b~1", "sa", "b")
	a.subscribe(resource.Cluster)
	b.subscribe(resource.Cluster)
	a.want(a.next(), resource.Cluster, []string{"ca"}, nil)
	b.want(b.next(), resource.Cluster, []string{"cb"}, nil)
	f.publish("a", res(t, resource.Cluster, "ca", 2))
	a.want(a.next(), resource.Cluster, []string{"ca"}, nil)
	b.subscribe(resource.Endpoints, "fence")
	b.want(b.next(), resource.Endpoints, nil, []string{"fence"})
}
