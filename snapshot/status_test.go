package snapshot

import (
	"slices"
	"strings"
	"testing"
	"testing/synctest"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/resource"
)

func TestStatusAndMetrics(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		b := newBuilder()
		p := run(t, b)
		p.Put(two(), []policy.Problem{{Code: "X", Severity: policy.Warning}})
		synctest.Wait()
		a, _ := follow(t, p, "a")
		synctest.Wait()
		s := NewStatus(p)
		reg := prometheus.NewPedanticRegistry()
		if err := Register(reg, p, s); err != nil {
			t.Fatal(err)
		}
		x := s.Connect(Peer{Workload: identity.Workload{Namespace: "prod", Name: "a"}, Instance: "1", ID: a.State().ID})
		v := a.State().View.Version(resource.Cluster)
		x.Sent(resource.Cluster, v, 10)
		if got := s.Proxies(); len(got) != 1 || got[0].InStep || got[0].Types[0].Wanted != v || got[0].Types[0].Acked != "" {
			t.Errorf("%+v", got)
		}
		x.Nacked(resource.Cluster, Nack{Type: "cds", Says: "no"})
		if got := s.Proxies()[0]; got.InStep || got.Nack == nil {
			t.Errorf("%+v", got)
		}
		x.Acked(resource.Cluster, v, true)
		if got := s.Proxies()[0]; !got.InStep || got.Nack != nil {
			t.Errorf("%+v", got)
		}
		families, err := reg.Gather()
		if err != nil {
			t.Fatal(err)
		}
		var names []string
		for _, f := range families {
			names = append(names, f.GetName())
			if !strings.HasPrefix(f.GetName(), "credence_") {
				t.Error(f.GetName())
			}
		}
		if !slices.Contains(names, "credence_xds_proxies_in_step") {
			t.Error(names)
		}
		x.Close()
		if len(s.Proxies()) != 0 {
			t.Error("a proxy that left must leave nothing")
		}
	})
}
