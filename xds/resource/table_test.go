package resource

import (
	"testing"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"
)

// TestTableIsTheWholeMessage: a table that is put together of finished hosts has the bytes, and so the version, of the whole message.
func TestTableIsTheWholeMessage(t *testing.T) {
	t.Parallel()
	whole := &routev3.RouteConfiguration{
		Name: "t", ValidateClusters: wrapperspb.Bool(false), IgnorePortInHostMatching: true,
		VirtualHosts: []*routev3.VirtualHost{{Name: "a", Domains: []string{"a", "a:80"}}, {Name: "b", Domains: []string{"*"}}},
	}
	a, b := Source{Object: "Service n/a"}, Source{Object: "Service n/b"}
	table := &Table{Config: proto.CloneOf(whole)}
	table.Config.VirtualHosts = nil
	for i, v := range whole.VirtualHosts {
		h, err := NewHost(v, nil, [][]Source{{a, b}, {a}}[i])
		if err != nil {
			t.Fatal(err)
		}
		table.Hosts = append(table.Hosts, h)
	}
	m := &Messages{Tables: []*Table{table}}
	got, err := m.Pack()
	if err != nil {
		t.Fatal(err)
	}
	want, err := New(RouteConfig, "t", whole)
	if err != nil {
		t.Fatal(err)
	}
	if got[0].Version != want.Version || !proto.Equal(got[0].Body, want.Body) || len(got[0].Sources) != 2 {
		t.Errorf("got %v %v, want %v and two sources", got[0].Body, got[0].Sources, want.Body)
	}
	if err := m.Thaw(); err != nil || len(m.Routes) != 1 || !proto.Equal(m.Routes[0], whole) || len(m.Tables) != 0 {
		t.Errorf("thawed: %v %v", m.Routes, err)
	}
}
