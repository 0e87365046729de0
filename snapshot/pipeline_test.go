package snapshot

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	"go.uber.org/goleak"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/compile"
	"github.com/credence-mesh/credence/xds/resource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// builder gives each workload an inbound part named after it, and all of a namespace one outbound part.
type builder struct {
	mu     sync.Mutex
	says   map[string]string // by part: what its one resource holds
	fails  map[string]bool
	panics map[string]bool
	builds map[string]int
}

func newBuilder() *builder {
	return &builder{says: map[string]string{}, fails: map[string]bool{}, panics: map[string]bool{}, builds: map[string]int{}}
}

func partID(k compile.PartKey) string { return fmt.Sprint(k.Kind, "/", k.Name) }

func (b *builder) Parts(_ *policy.Set, w *policy.Workload) []compile.PartKey {
	return []compile.PartKey{{Kind: compile.InboundPart, Namespace: w.Namespace, Name: w.Name}, {Kind: compile.OutboundPart, Namespace: w.Namespace}}
}

func (b *builder) Build(_ *policy.Set, k compile.PartKey) ([]*resource.Resource, []policy.Problem, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	id := partID(k)
	b.builds[id]++
	if b.panics[id] {
		panic("nil pointer, say")
	}
	if b.fails[id] {
		return nil, nil, errors.New("no such thing")
	}
	r, err := resource.New(resource.Cluster, "of "+id, &clusterv3.Cluster{Name: b.says[id]})
	return []*resource.Resource{r}, nil, err
}

func (b *builder) Affected(_, _ *policy.Set, changes []policy.Change) compile.Affected {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.panics["affected"] {
		panic("index out of range, say")
	}
	a := compile.Affected{Parts: map[compile.PartKey]bool{}, Workloads: map[policy.Key]bool{}}
	for _, c := range changes {
		m := c.New
		if m == nil {
			m = c.Old
		}
		k := m.Meta().Key
		a.Workloads[k] = true
		a.Parts[compile.PartKey{Kind: compile.InboundPart, Namespace: k.Namespace, Name: k.Name}] = true
		a.Outbound = a.Outbound || k.Name == "b"
	}
	return a
}

func (b *builder) set(f func(*builder)) {
	b.mu.Lock()
	defer b.mu.Unlock()
	f(b)
}

func (b *builder) count(id string) int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.builds[id]
}

func entry(name string, digest uint64) *policy.WorkloadEntry {
	e := &policy.WorkloadEntry{Spec: &networkingv1alpha3.WorkloadEntry{ServiceAccount: name}}
	e.Key = policy.Key{Kind: policy.KindWorkloadEntry, Namespace: "prod", Name: name}
	e.Digest = digest
	e.At = policy.Origin{File: name + ".yaml", Line: 1}
	return e
}

func run(t *testing.T, b *builder) *Pipeline {
	t.Helper()
	p := New(b)
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = p.Run(ctx) }()
	t.Cleanup(func() { cancel(); <-done })
	return p
}

func follow(t *testing.T, p *Pipeline, name string) (*Subscription, *atomic.Int32) {
	t.Helper()
	var woken atomic.Int32
	s, ok := p.Subscribe(identity.Workload{Namespace: "prod", Name: name}, func() { woken.Add(1) })
	if !ok {
		t.Fatalf("no workload %s", name)
	}
	t.Cleanup(s.Close)
	return s, &woken
}

func two() *policy.Set {
	return policy.NewSet(policy.DefaultMesh()).Apply([]policy.Resource{entry("a", 1), entry("b", 1)}, nil)
}

func code(p *Pipeline, code string) int {
	n := 0
	for _, x := range p.Report().Problems() {
		if x.Code == code {
			n++
		}
	}
	return n
}

func TestOnlyTheTouchedAreWoken(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBuilder()
		p := run(t, b)
		set := two()
		p.Put(set, nil)
		synctest.Wait()
		a, wokenA := follow(t, p, "a")
		other, wokenB := follow(t, p, "b")
		synctest.Wait()
		va, vb := a.State().View, other.State().View
		if va == nil || vb == nil || va.layers[1] != vb.layers[1] {
			t.Fatal("the outbound part must be the same object")
		}
		n, m := wokenA.Load(), wokenB.Load()
		b.set(func(b *builder) { b.says["0/a"] = "new" })
		p.Put(set.Apply([]policy.Resource{entry("a", 2)}, nil), nil)
		<-time.After(maxWindow)
		synctest.Wait()
		if wokenA.Load() != n+1 || wokenB.Load() != m {
			t.Errorf("woken %d and %d times, want 1 and 0", wokenA.Load()-n, wokenB.Load()-m)
		}
		d := a.State().View.Since(va)[resource.Cluster]
		if len(d.Changed) != 1 || d.Changed[0].Name != "of 0/a" || len(d.Removed) != 0 {
			t.Errorf("%+v", d)
		}
		if b.count("0/b") != 1 || b.count("1/") != 1 {
			t.Errorf("built again: %v", b.builds)
		}
	})
}

func TestLastGoodStays(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name string
		set  func(*builder)
	}{
		{"an error", func(b *builder) { b.fails["0/a"] = true }},
		{"a panic", func(b *builder) { b.panics["0/a"] = true }},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) {
				b := newBuilder()
				p := run(t, b)
				set := two()
				p.Put(set, nil)
				synctest.Wait()
				a, woken := follow(t, p, "a")
				synctest.Wait()
				before, n := a.State().View, woken.Load()
				b.set(c.set)
				p.Put(set.Apply([]policy.Resource{entry("a", 2)}, nil), nil)
				<-time.After(maxWindow)
				synctest.Wait()
				if a.State().View != before || woken.Load() != n {
					t.Error("the view must stay")
				}
				if code(p, "BUILD_FAILED_LAST_GOOD_KEPT") != 1 || len(p.Report().Kept) != 1 {
					t.Errorf("not told: %v", p.Report().Problems())
				}
				b.set(func(b *builder) { b.fails, b.panics, b.says["0/a"] = map[string]bool{}, map[string]bool{}, "mended" })
				p.Put(set.Apply([]policy.Resource{entry("a", 3)}, nil), nil)
				<-time.After(maxWindow)
				synctest.Wait()
				if a.State().View == before || len(p.Report().Problems()) != 0 {
					t.Errorf("not mended: %v", p.Report().Problems())
				}
			})
		})
	}
}

func TestNeverGoodIsWithheld(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBuilder()
		b.fails["0/a"] = true
		p := run(t, b)
		p.Put(two(), nil)
		synctest.Wait()
		if code(p, "BUILD_FAILED_WITHHELD") != 1 {
			t.Error("must be told before any proxy connects")
		}
		a, _ := follow(t, p, "a")
		synctest.Wait()
		v := a.State().View
		if v == nil {
			t.Fatal("no view")
		}
		if _, ok := v.Get(resource.Cluster, "of 0/a"); ok || len(v.List(resource.Cluster)) != 1 {
			t.Error("only the outbound part must be there")
		}
	})
}

// TestChurn: twelve changes, 5 ms apart, are published at once and then in growing windows.
func TestChurn(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBuilder()
		p := run(t, b)
		set := two()
		p.Put(set, nil)
		<-time.After(time.Second)
		synctest.Wait()
		start := b.count("0/a")
		for n := range 12 {
			set = set.Apply([]policy.Resource{entry("a", uint64(n)+2)}, nil)
			p.Put(set, nil)
			synctest.Wait()
			if n == 0 && b.count("0/a") != start+1 {
				t.Error("the first change must not wait")
			}
			<-time.After(5 * time.Millisecond)
		}
		<-time.After(maxWindow)
		synctest.Wait()
		if n := b.count("0/a") - start; n < 3 || n > 5 {
			t.Errorf("built %d times", n)
		}
		if p.set != set {
			t.Error("the newest Set must win")
		}
	})
}

func TestWorkloadsComeAndGo(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBuilder()
		p := run(t, b)
		if _, ok := p.Subscribe(identity.Workload{Namespace: "prod", Name: "a"}, func() {}); ok {
			t.Error("before the first Set nobody exists")
		}
		set := two()
		p.Put(set, nil)
		synctest.Wait()
		<-p.Ready()
		a, woken := follow(t, p, "a")
		synctest.Wait()
		n := woken.Load()
		set = set.Apply(nil, []policy.Key{entry("a", 1).Key})
		p.Put(set, nil)
		<-time.After(maxWindow)
		synctest.Wait()
		if a.State().Exists() || woken.Load() == n {
			t.Error("the proxies of a workload that is gone must be told")
		}
		if r := p.Report(); r.Workloads != 1 || r.Parts != 2 {
			t.Errorf("%d workloads, %d parts", r.Workloads, r.Parts)
		}
		p.Put(set.Apply([]policy.Resource{entry("a", 9)}, nil), nil)
		<-time.After(maxWindow)
		synctest.Wait()
		if again, _ := follow(t, p, "a"); !again.State().Exists() {
			t.Error("it came back")
		}
	})
}

// TestOutboundIsLazy: what names every service is not built for nobody.
func TestOutboundIsLazy(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBuilder()
		p := run(t, b)
		p.Put(two(), nil)
		synctest.Wait()
		if b.count("1/") != 0 || b.count("0/a") != 1 {
			t.Errorf("%v", b.builds)
		}
		d, err := p.Dump(t.Context(), identity.Workload{Namespace: "prod", Name: "a"})
		if err != nil || len(d.Resources) != 2 || d.Identity != "spiffe://cluster.local/ns/prod/sa/a" {
			t.Errorf("%+v %v", d, err)
		}
		if _, err := p.Dump(t.Context(), identity.Workload{Namespace: "prod", Name: "x"}); err == nil {
			t.Error("no such workload")
		}
	})
}

// TestStaleIsNotShown: a part that changed while nobody needed it is built again for the next proxy, and never shown as it was.
func TestStaleIsNotShown(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBuilder()
		p := run(t, b)
		set := two()
		p.Put(set, nil)
		synctest.Wait()
		a, _ := follow(t, p, "a")
		synctest.Wait()
		before := a.State().View
		a.Close()
		b.set(func(b *builder) { b.says["1/"] = "new" })
		p.Put(set.Apply([]policy.Resource{entry("b", 2)}, nil), nil) // changes what a sees of b
		<-time.After(maxWindow)
		synctest.Wait()
		if p.State(identity.Workload{Namespace: "prod", Name: "a"}).View != nil {
			t.Error("shown")
		}
		again, _ := follow(t, p, "a")
		synctest.Wait()
		if v := again.State().View; v == nil || v == before || v.Version(resource.Cluster) == before.Version(resource.Cluster) {
			t.Errorf("%v", v)
		}
	})
}

// TestAffectedPanics: where nobody knows what a change touches, everything is built.
func TestAffectedPanics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBuilder()
		p := run(t, b)
		set := two()
		p.Put(set, nil)
		synctest.Wait()
		a, _ := follow(t, p, "a")
		synctest.Wait()
		before := a.State().View
		b.set(func(b *builder) { b.panics["affected"], b.says["0/a"] = true, "new" })
		p.Put(set.Apply([]policy.Resource{entry("c", 1)}, nil), nil)
		<-time.After(maxWindow)
		synctest.Wait()
		if v := a.State().View; v == nil || v == before {
			t.Error("not built")
		}
		if _, ok := p.Subscribe(identity.Workload{Namespace: "prod", Name: "c"}, func() {}); !ok {
			t.Error("the new workload is not there")
		}
	})
}
