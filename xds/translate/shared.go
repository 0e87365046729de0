package translate

import (
	"errors"
	"fmt"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/credence-mesh/credence/xds/ir"
	"github.com/credence-mesh/credence/xds/resource"
)

// sharedUpstream is what is kept of an ir.Upstream.
type sharedUpstream struct {
	cluster   *resource.Resource
	endpoints *resource.Resource // nil: not found by EDS
}

// upstreams adds what parts share. What was never translated before is, and is checked then.
func (t *translator) upstreams(list []*ir.Upstream) error {
	if len(list) == 0 {
		return nil
	}
	clusters, endpoints := make([]*resource.Resource, 0, 2*len(list)), make([]*resource.Resource, 0, len(list))
	for _, u := range list {
		kept, ok := u.Memo.Load().(*sharedUpstream)
		if !ok {
			made, err := newUpstream(u)
			if err != nil {
				return fmt.Errorf("cluster %s: %w", u.Cluster.Name, err)
			}
			kept = u.Memo.Keep(made).(*sharedUpstream)
		}
		clusters = append(clusters, kept.cluster)
		if kept.endpoints != nil {
			endpoints = append(endpoints, kept.endpoints)
		}
	}
	t.out.Finished = append(clusters, endpoints...)
	return nil
}

func newUpstream(u *ir.Upstream) (*sharedUpstream, error) {
	one := &translator{out: &Resources{}}
	if err := one.cluster(&u.Cluster); err != nil {
		return nil, err
	}
	if u.Cluster.Kind == ir.EDS {
		one.endpoints(&ir.Endpoints{Cluster: u.Cluster.Name, Members: u.Members, Sources: u.Cluster.Sources})
	}
	c := &checker{r: one.out}
	c.valid()
	if err := errors.Join(c.errs...); err != nil {
		return nil, fmt.Errorf("refused by the last check: %w", err)
	}
	packed, err := one.out.Pack()
	if err != nil {
		return nil, err
	}
	out := &sharedUpstream{cluster: packed[0]}
	if len(packed) > 1 {
		out.endpoints = packed[1]
	}
	return out, nil
}

// shared adds a table of hosts that other tables have too.
func (t *translator) shared(r *ir.RouteTable) error {
	out := &resource.Table{
		Config: &routev3.RouteConfiguration{Name: r.Name, ValidateClusters: wrapperspb.Bool(false), IgnorePortInHostMatching: r.AnyPort},
		Hosts:  make([]*resource.Host, 0, len(r.Hosts)),
	}
	for _, h := range r.Hosts {
		kept, ok := h.Memo.Load().(*resource.Host)
		if !ok {
			made, err := newHost(h)
			if err != nil {
				return fmt.Errorf("host %s: %w", h.Name, err)
			}
			kept = h.Memo.Keep(made).(*resource.Host)
		}
		out.Hosts = append(out.Hosts, kept)
	}
	t.out.Tables = append(t.out.Tables, out)
	return nil
}

// newHost translates and checks a host by itself: in a table of its own, with the clusters that it names taken as given.
func newHost(h *ir.VirtualHost) (*resource.Host, error) {
	one := &translator{out: &Resources{}}
	if err := one.table(&ir.RouteTable{Name: "host", Hosts: []*ir.VirtualHost{h}}); err != nil {
		return nil, err
	}
	c := &checker{r: one.out, asks: true}
	c.valid()
	c.routes()
	if err := errors.Join(c.errs...); err != nil {
		return nil, fmt.Errorf("refused by the last check: %w", err)
	}
	return resource.NewHost(one.out.Routes[0].VirtualHosts[0], c.asked, one.out.Sources(resource.RouteConfig, "host"))
}
