package server

import (
	"context"
	"fmt"
	"io"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/snapshot"
	"github.com/credence-mesh/credence/xds/resource"
)

// fromDelta is a request as it comes off the wire.
func fromDelta(r *discoveryv3.DeltaDiscoveryRequest) *request {
	b, err := proto.Marshal(r)
	if err != nil {
		panic(err)
	}
	out, err := decodeDelta(b)
	if err != nil {
		panic(err)
	}
	return out
}

// looseStream is a stream without a network: requests go in by handle, responses come out as they would be on the wire.
type looseStream struct {
	*stream
	sent []*discoveryv3.DeltaDiscoveryResponse
}

func (l *looseStream) receive() (*request, error) { return nil, io.EOF }
func (l *looseStream) Context() context.Context   { return context.Background() }

func (l *looseStream) SendMsg(m any) error {
	c, err := newCodec()
	if err != nil {
		return err
	}
	b, err := c.Marshal(m)
	if err != nil {
		return err
	}
	r := &discoveryv3.DeltaDiscoveryResponse{}
	if err := proto.Unmarshal(b.Materialize(), r); err != nil {
		return err
	}
	l.sent = append(l.sent, r)
	return nil
}

// loose makes a stream of workload prod/a over a pipeline that is not running: the test sets its target.
func loose(t testing.TB) *looseStream {
	t.Helper()
	p := snapshot.New(&parts{})
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	p.Put(policy.NewSet(policy.DefaultMesh()).Apply([]policy.Resource{entry("a")}, nil), nil)
	<-p.Ready()
	cancel()
	<-done
	status := snapshot.NewStatus(p)
	who := identity.Workload{Namespace: "prod", Name: "a"}
	sub, ok := p.Subscribe(who, func() {})
	if !ok {
		t.Fatal("no workload")
	}
	l := &looseStream{}
	l.stream = &stream{Server: &Server{limits: Limits{Names: 1000, Hold: time.Hour}.orDefaults(), status: status, edge: newEdge(nil)}, node: "prod/a~1",
		wake: make(chan struct{}, 1), wire: l, sub: sub, peer: snapshot.Peer{Workload: who}, prefix: "n."}
	l.log, l.account = l.edge, status.Connect(l.peer)
	return l
}

// model is a proxy that follows the specification.
type model struct {
	*looseStream
	holds map[string]string
	names map[string]bool
}

func (m *model) take(rng *rand.Rand, t resource.Type) error {
	for len(m.sent) > 0 {
		r := m.sent[0]
		m.sent = m.sent[1:]
		answer := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: t.URL(), ResponseNonce: r.Nonce}
		if rng.IntN(8) == 0 && len(r.Resources) > 0 { // refused: nothing of it is taken
			answer.ErrorDetail = &statuspb.Status{Message: "refused " + r.Resources[0].Name}
		} else {
			for _, x := range r.Resources {
				if x.Resource == nil || x.Version == "" {
					return fmt.Errorf("%s has no body", x.Name)
				}
				m.holds[x.Name] = x.Version
			}
			for _, n := range r.RemovedResources {
				delete(m.holds, n)
			}
		}
		if err := m.handle(fromDelta(answer)); err != nil {
			return err
		}
		if err := m.pump(context.Background()); err != nil {
			return err
		}
	}
	return nil
}

// settle takes everything, refusals included, as after all back-offs.
func (m *model) settle(t resource.Type) error {
	calm := rand.New(rand.NewPCG(1, 1))
	for range 1000 {
		if sub := m.types[t]; sub != nil {
			for _, q := range sub.bad {
				q.until = time.Time{}
			}
		}
		if err := m.pump(context.Background()); err != nil {
			return err
		}
		if len(m.sent) == 0 {
			return nil
		}
		if err := m.take(calm, t); err != nil {
			return err
		}
	}
	return fmt.Errorf("never settles")
}

func randomView(t testing.TB, rng *rand.Rand, ty resource.Type) *snapshot.View {
	t.Helper()
	var list []*resource.Resource
	for i := range 8 {
		if rng.IntN(3) > 0 {
			list = append(list, res(t, ty, fmt.Sprint("r", i), rng.IntN(3)))
		}
	}
	v, err := snapshot.NewView(list...)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

// F78: whatever a proxy held when it came back, and whatever it subscribes to, refuses and misses on the way, it ends with what a new
// proxy would get.
func TestModel(t *testing.T) {
	t.Parallel()
	for _, ty := range []resource.Type{resource.Cluster, resource.Endpoints, resource.Listener} {
		t.Run(ty.String(), func(t *testing.T) {
			t.Parallel()
			for seed := range uint64(300) {
				rng := rand.New(rand.NewPCG(seed, 7))
				if err := play(t, rng, ty); err != nil {
					t.Fatalf("seed %d: %v", seed, err)
				}
			}
		})
	}
}

func play(t *testing.T, rng *rand.Rand, ty resource.Type) error {
	t.Helper()
	m := &model{looseStream: loose(t), holds: map[string]string{}, names: map[string]bool{}}
	m.target = randomView(t, rng, ty)
	wildcard := ty != resource.Endpoints
	first := &discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "prod/a~1"}, TypeUrl: ty.URL(), InitialResourceVersions: map[string]string{}}
	for i := range 10 {
		name := fmt.Sprint("r", i)
		if !wildcard && rng.IntN(2) == 0 {
			m.names[name] = true
			first.ResourceNamesSubscribe = append(first.ResourceNamesSubscribe, name)
		}
		if wildcard || m.names[name] {
			switch v, ok := m.target.Get(ty, name); {
			case rng.IntN(3) == 0 && ok:
				m.holds[name] = v.Version
			case rng.IntN(3) == 0:
				m.holds[name] = "of another time"
			}
		}
	}
	maps.Copy(first.InitialResourceVersions, m.holds)
	if err := m.handle(fromDelta(first)); err != nil {
		return err
	}
	for range rng.IntN(20) {
		switch rng.IntN(4) {
		case 0:
			m.target = randomView(t, rng, ty)
		case 1:
			if err := m.resubscribe(rng, ty, wildcard); err != nil {
				return err
			}
		case 2:
			if err := m.take(rng, ty); err != nil {
				return err
			}
		}
		if err := m.pump(context.Background()); err != nil {
			return err
		}
	}
	if err := m.settle(ty); err != nil {
		return err
	}
	want := map[string]string{}
	for _, i := range m.target.List(ty) {
		if wildcard || m.names[i.Name] {
			want[i.Name] = i.Version
		}
	}
	if !maps.Equal(m.holds, want) {
		return fmt.Errorf("it holds %v, a new proxy would get %v", m.holds, want)
	}
	return nil
}

func (m *model) resubscribe(rng *rand.Rand, ty resource.Type, wildcard bool) error {
	name := fmt.Sprint("r", rng.IntN(10))
	r := &discoveryv3.DeltaDiscoveryRequest{TypeUrl: ty.URL()}
	if !wildcard && m.names[name] && rng.IntN(2) == 0 {
		r.ResourceNamesUnsubscribe = []string{name}
		delete(m.names, name)
		// What is under way may still arrive; a real proxy drops it, because it has no subscription.
		defer func() { delete(m.holds, name) }()
		m.sent = slices.Clone(m.sent)
		for i, s := range m.sent {
			m.sent[i] = proto.Clone(s).(*discoveryv3.DeltaDiscoveryResponse)
			m.sent[i].Resources = slices.DeleteFunc(m.sent[i].Resources, func(x *discoveryv3.Resource) bool { return x.Name == name })
		}
	} else {
		r.ResourceNamesSubscribe = []string{name}
		m.names[name] = true
	}
	return m.handle(fromDelta(r))
}

// FuzzRequests: any requests, in any order, leave a stream that ends with an error or goes on; what it sends is well formed.
func FuzzRequests(f *testing.F) {
	for _, r := range []*discoveryv3.DeltaDiscoveryRequest{
		{TypeUrl: resource.Cluster.URL()},
		{TypeUrl: resource.Endpoints.URL(), ResourceNamesSubscribe: []string{"*", "r1", "r1"}, ResourceNamesUnsubscribe: []string{"*", "r1"}},
		{TypeUrl: resource.Cluster.URL(), ResponseNonce: "n.1", ErrorDetail: &statuspb.Status{Message: "r1"}},
		{TypeUrl: resource.Listener.URL(), InitialResourceVersions: map[string]string{"r1": "", "": "x"}},
		{TypeUrl: resource.Secret.URL(), ResourceNamesSubscribe: []string{"default"}},
	} {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b, b, uint64(1))
	}
	f.Fuzz(func(t *testing.T, a, b []byte, seed uint64) {
		rng := rand.New(rand.NewPCG(seed, 1))
		for _, sotw := range []bool{false, true} {
			l := loose(t)
			l.sotw = sotw
			for n, raw := range [][]byte{a, b, a, b} {
				l.target = randomView(t, rng, resource.Type(n%2)*resource.Listener)
				var d discoveryv3.DeltaDiscoveryRequest
				var s discoveryv3.DiscoveryRequest
				var r *request
				if sotw {
					if proto.Unmarshal(raw, &s) != nil {
						return
					}
					r = fromSotW(&s)
				} else {
					var err error
					if r, err = decodeDelta(raw); (err == nil) != (proto.Unmarshal(raw, &d) == nil) {
						t.Fatalf("decoded with %v, which protobuf sees otherwise", err)
					} else if err != nil {
						return
					}
					agree(t, r, &d)
				}
				if l.handle(r) != nil {
					break
				}
				if sotw {
					l.wire = sotwSink{l}
				}
				if err := l.pump(t.Context()); err != nil {
					t.Fatal(err)
				}
			}
		}
	})
}

// agree fails unless our decoder read what protobuf reads.
func agree(t *testing.T, r *request, d *discoveryv3.DeltaDiscoveryRequest) {
	t.Helper()
	held := map[string]string{}
	for _, h := range r.held {
		held[h.name] = h.version
	}
	if r.url != d.TypeUrl || r.nonce != d.ResponseNonce || !slices.Equal(r.subscribe, d.ResourceNamesSubscribe) ||
		!slices.Equal(r.unsubscribe, d.ResourceNamesUnsubscribe) || !maps.Equal(held, d.InitialResourceVersions) ||
		r.node.GetId() != d.Node.GetId() || r.refused != (d.ErrorDetail != nil) {
		t.Fatalf("%+v is read from %v", r, d)
	}
}

// sotwSink checks that what is sent is a DiscoveryResponse.
type sotwSink struct{ *looseStream }

func (s sotwSink) SendMsg(m any) error {
	c, err := newCodec()
	if err != nil {
		return err
	}
	b, err := c.Marshal(m)
	if err != nil {
		return err
	}
	return proto.Unmarshal(b.Materialize(), &discoveryv3.DiscoveryResponse{})
}
