package server

import (
	"context"
	"fmt"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"

	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/snapshot"
	"github.com/credence-mesh/credence/xds/compile"
	"github.com/credence-mesh/credence/xds/resource"
)

func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m)
}

const patience = 20 * time.Second

// parts is a Builder whose parts are what a test says.
type parts struct {
	mu    sync.Mutex
	held  map[string][]*resource.Resource // by workload "ns/name"
	fails map[string]error
}

func (b *parts) Parts(_ *policy.Set, w *policy.Workload) []compile.PartKey {
	return []compile.PartKey{{Kind: compile.InboundPart, Namespace: w.Namespace, Name: w.Name}}
}

func (b *parts) Build(_ *policy.Set, k compile.PartKey) ([]*resource.Resource, []policy.Problem, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	name := k.Namespace + "/" + k.Name
	return slices.Clone(b.held[name]), nil, b.fails[name]
}

func (b *parts) Affected(_, _ *policy.Set, changes []policy.Change) compile.Affected {
	a := compile.Affected{Inbound: true, Workloads: map[policy.Key]bool{}}
	for _, c := range changes {
		if c.New != nil {
			a.Workloads[c.New.Meta().Key] = true
		} else {
			a.Workloads[c.Old.Meta().Key] = true
		}
	}
	return a
}

// fixture is a server with workloads prod/a and prod/b.
type fixture struct {
	*testing.T
	parts    *parts
	pipeline *snapshot.Pipeline
	status   *snapshot.Status
	server   *Server
	addr     string
	set      *policy.Set
	stop     func() // and waits until everything has ended
}

type change func(*Options)

func start(t *testing.T, changes ...change) *fixture {
	t.Helper()
	return startAt(t, "127.0.0.1:0", changes...)
}

func startAt(t *testing.T, addr string, changes ...change) *fixture {
	t.Helper()
	f := &fixture{T: t, parts: &parts{held: map[string][]*resource.Resource{}, fails: map[string]error{}}}
	f.pipeline = snapshot.New(f.parts)
	f.status = snapshot.NewStatus(f.pipeline)
	o := Options{Credentials: insecure.NewCredentials(), Views: f.pipeline, Status: f.status, Authenticate: claimed(t)}
	for _, c := range changes {
		c(&o)
	}
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	f.server = s
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	f.addr = l.Addr().String()
	ctx, cancel := context.WithCancel(t.Context())
	var wg sync.WaitGroup
	wg.Go(func() { _ = f.pipeline.Run(ctx) })
	wg.Go(func() {
		if err := s.Serve(ctx, l); err != nil {
			t.Error(err)
		}
	})
	f.stop = func() { cancel(); wg.Wait() }
	t.Cleanup(f.stop)
	f.set = policy.NewSet(policy.DefaultMesh()).Apply([]policy.Resource{entry("a"), entry("b")}, nil)
	return f
}

// claimed believes the service account that a header names. Real credentials are tested with TLS.
func claimed(t testing.TB) func(context.Context) (identity.Proven, error) {
	return func(ctx context.Context) (identity.Proven, error) {
		md, _ := metadata.FromIncomingContext(ctx)
		p := identity.Proven{ID: sa(t, md.Get("sa")[0])}
		if w := md.Get("workload"); len(w) > 0 {
			p.Workload = identity.Workload{Namespace: "prod", Name: w[0]}
		}
		return p, nil
	}
}

func sa(t testing.TB, name string) identity.ID {
	t.Helper()
	td, err := spiffeid.TrustDomainFromString("cluster.local")
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.ForServiceAccount(td, "prod", name)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func entry(name string) *policy.WorkloadEntry {
	e := &policy.WorkloadEntry{Spec: &networkingv1alpha3.WorkloadEntry{ServiceAccount: name}}
	e.Key = policy.Key{Kind: policy.KindWorkloadEntry, Namespace: "prod", Name: name}
	e.Digest = 1
	return e
}

// publish gives a workload resources, and waits until its view has them.
func (f *fixture) publish(workload string, list ...*resource.Resource) {
	f.Helper()
	f.parts.mu.Lock()
	f.parts.held["prod/"+workload] = list
	f.parts.mu.Unlock()
	want, err := snapshot.NewView(list...)
	if err != nil {
		f.Fatal(err)
	}
	f.set = f.set.Apply(nil, nil)
	f.pipeline.Put(f.set, nil)
	f.until("the view of "+workload, func() bool {
		v := f.pipeline.State(identity.Workload{Namespace: "prod", Name: workload}).View
		if v == nil {
			return false
		}
		for t := range resource.NumTypes {
			if v.Version(t) != want.Version(t) {
				return false
			}
		}
		return true
	})
}

// until waits for a fact.
func (f *fixture) until(what string, ok func() bool) {
	f.Helper()
	ctx, cancel := context.WithTimeout(f.Context(), patience)
	defer cancel()
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !ok() {
		select {
		case <-ctx.Done():
			f.Fatalf("never came: %s", what)
		case <-tick.C:
		}
	}
}

func pack(t testing.TB, ty resource.Type, name string, m proto.Message) *resource.Resource {
	t.Helper()
	r, err := resource.New(ty, name, m, resource.Source{Object: "Test " + name, At: name + ".yaml:1"})
	if err != nil {
		t.Fatal(err)
	}
	return r
}

// res makes a resource of a type; n makes its content differ.
func res(t testing.TB, ty resource.Type, name string, n int) *resource.Resource {
	t.Helper()
	var m proto.Message
	switch ty {
	case resource.Cluster:
		m = &clusterv3.Cluster{Name: name, ConnectTimeout: durationpb.New(time.Duration(n+1) * time.Second)}
	case resource.Endpoints:
		m = &endpointv3.ClusterLoadAssignment{ClusterName: name, Policy: &endpointv3.ClusterLoadAssignment_Policy{EndpointStaleAfter: durationpb.New(time.Duration(n+1) * time.Second)}}
	case resource.Listener:
		m = &listenerv3.Listener{Name: name, StatPrefix: fmt.Sprint(n)}
	case resource.RouteConfig:
		m = &routev3.RouteConfiguration{Name: name, MostSpecificHeaderMutationsWins: n%2 == 1, ResponseHeadersToRemove: []string{fmt.Sprint("x-", n)}}
	default:
		m = &corev3.TypedExtensionConfig{Name: name, TypedConfig: res(t, resource.Cluster, fmt.Sprint(n), n).Body}
	}
	return pack(t, ty, name, m)
}

// client speaks delta on the wire. It holds what a real proxy would hold.
type client struct {
	*fixture
	stream discoveryv3.AggregatedDiscoveryService_DeltaAggregatedResourcesClient
	holds  [resource.NumTypes]map[string]string
	node   *corev3.Node
}

func (f *fixture) dial(creds credentials.TransportCredentials) *grpc.ClientConn {
	f.Helper()
	cc, err := grpc.NewClient("passthrough:///"+f.addr, grpc.WithTransportCredentials(creds))
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = cc.Close() })
	return cc
}

func (f *fixture) delta(node string) *client {
	f.Helper()
	return f.deltaAs(node, "sa", "a")
}

// deltaAs connects with headers that say who the peer is.
func (f *fixture) deltaAs(node string, headers ...string) *client {
	f.Helper()
	ctx, cancel := context.WithCancel(metadata.AppendToOutgoingContext(f.Context(), headers...))
	f.Cleanup(cancel)
	st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(f.dial(insecure.NewCredentials())).DeltaAggregatedResources(ctx)
	if err != nil {
		f.Fatal(err)
	}
	c := &client{fixture: f, stream: st, node: &corev3.Node{Id: node}}
	for t := range c.holds {
		c.holds[t] = map[string]string{}
	}
	return c
}

func (c *client) send(r *discoveryv3.DeltaDiscoveryRequest) {
	c.Helper()
	if r.Node == nil {
		r.Node, c.node = c.node, nil
	}
	if err := c.stream.Send(r); err != nil {
		c.Fatal(err)
	}
}

func (c *client) subscribe(t resource.Type, names ...string) {
	c.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: t.URL(), ResourceNamesSubscribe: names})
}

// recv takes the next response, and notes what it says.
func (c *client) recv() *discoveryv3.DeltaDiscoveryResponse {
	c.Helper()
	type got struct {
		r   *discoveryv3.DeltaDiscoveryResponse
		err error
	}
	ch := make(chan got, 1)
	go func() {
		r, err := c.stream.Recv()
		ch <- got{r, err}
	}()
	select {
	case g := <-ch:
		if g.err != nil {
			c.Fatal(g.err)
		}
		c.note(g.r)
		return g.r
	case <-time.After(patience):
		c.Fatal("no response came")
		return nil
	}
}

func (c *client) note(r *discoveryv3.DeltaDiscoveryResponse) {
	t, ok := resource.TypeOf(r.TypeUrl)
	if !ok {
		c.Fatalf("unknown type %q", r.TypeUrl)
	}
	for _, x := range r.Resources {
		c.holds[t][x.Name] = x.Version
	}
	for _, n := range r.RemovedResources {
		delete(c.holds[t], n)
	}
}

func (c *client) ack(r *discoveryv3.DeltaDiscoveryResponse) {
	c.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce})
}

func (c *client) nack(r *discoveryv3.DeltaDiscoveryResponse, says string) {
	c.Helper()
	c.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: r.TypeUrl, ResponseNonce: r.Nonce, ErrorDetail: &statuspb.Status{Code: 3, Message: says}})
}

// next receives and acknowledges.
func (c *client) next() *discoveryv3.DeltaDiscoveryResponse {
	c.Helper()
	r := c.recv()
	c.ack(r)
	return r
}

func sentNames(r *discoveryv3.DeltaDiscoveryResponse) []string {
	var out []string
	for _, x := range r.Resources {
		out = append(out, x.Name)
	}
	slices.Sort(out)
	return out
}

func (c *client) want(r *discoveryv3.DeltaDiscoveryResponse, t resource.Type, names, removed []string) {
	c.Helper()
	gone := slices.Sorted(slices.Values(r.RemovedResources))
	if r.TypeUrl != t.URL() || !slices.Equal(sentNames(r), names) || !slices.Equal(gone, removed) {
		c.Fatalf("got %s %v removed %v, want %s %v removed %v", r.TypeUrl, sentNames(r), gone, t.URL(), names, removed)
	}
}
