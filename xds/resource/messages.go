package resource

import (
	"cmp"
	"maps"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
)

// Messages is the resources of one part before they are packed: the only form in which they may still be edited.
type Messages struct {
	Clusters   []*clusterv3.Cluster
	Endpoints  []*endpointv3.ClusterLoadAssignment
	Extensions []*corev3.TypedExtensionConfig
	Listeners  []*listenerv3.Listener
	Routes     []*routev3.RouteConfiguration
	// Finished are clusters, then endpoints, each sorted by name, that were made and checked before and are shared; Tables are route tables
	// of hosts like that. Thaw makes both editable.
	Finished []*Resource
	Tables   []*Table
	// Client: the listeners are for requests of the workload itself, which no guard stands in front of. It is said here because patches edit
	// everything else that would tell.
	Client bool
	from   map[id]*origins
}

// origins is what one resource came from: thousands of objects, for the route table of a large mesh.
type origins struct {
	list []Source
	seen map[Source]bool
}

type id struct {
	kind Type
	name string
}

// From says what a resource came from; repeated calls add up.
func (m *Messages) From(t Type, name string, sources ...Source) {
	if len(sources) == 0 {
		return
	}
	if m.from == nil {
		m.from = map[id]*origins{}
	}
	key := id{t, name}
	o := m.from[key]
	if o == nil {
		o = &origins{seen: map[Source]bool{}}
		m.from[key] = o
	}
	for _, s := range sources {
		if !o.seen[s] {
			o.seen[s] = true
			o.list = append(o.list, s)
		}
	}
}

// Sources is what a resource came from.
func (m *Messages) Sources(t Type, name string) []Source {
	if o := m.from[id{t, name}]; o != nil {
		return o.list
	}
	return nil
}

// Clone copies deeply, but for what is finished.
func (m *Messages) Clone() *Messages {
	c := &Messages{
		Client:   m.Client,
		Finished: m.Finished, Tables: m.Tables,
		Clusters: cloneAll(m.Clusters), Endpoints: cloneAll(m.Endpoints), Extensions: cloneAll(m.Extensions),
		Listeners: cloneAll(m.Listeners), Routes: cloneAll(m.Routes), from: make(map[id]*origins, len(m.from)),
	}
	for k, v := range m.from {
		c.from[k] = &origins{list: slices.Clone(v.list), seen: maps.Clone(v.seen)}
	}
	return c
}

func cloneAll[M proto.Message](in []M) []M {
	out := make([]M, len(in))
	for i, m := range in {
		out[i] = proto.Clone(m).(M)
	}
	return out
}

// Pack serialises every message once, ordered by type and name.
func (m *Messages) Pack() ([]*Resource, error) {
	out := make([]*Resource, 0, len(m.Finished)+len(m.Tables)+len(m.Clusters)+len(m.Endpoints)+len(m.Extensions)+len(m.Listeners)+len(m.Routes))
	add := func(t Type, name string, msg proto.Message) error {
		r, err := New(t, name, msg, m.Sources(t, name)...)
		if err == nil {
			out = append(out, r)
		}
		return err
	}
	var err error
	for _, c := range m.Clusters {
		err = cmp.Or(err, add(Cluster, c.GetName(), c))
	}
	for _, e := range m.Endpoints {
		err = cmp.Or(err, add(Endpoints, e.GetClusterName(), e))
	}
	for _, e := range m.Extensions {
		err = cmp.Or(err, add(ExtensionConfig, e.GetName(), e))
	}
	for _, l := range m.Listeners {
		err = cmp.Or(err, add(Listener, l.GetName(), l))
	}
	for _, r := range m.Routes {
		err = cmp.Or(err, add(RouteConfig, r.GetName(), r))
	}
	for _, t := range m.Tables {
		r, failed := t.Pack()
		err = cmp.Or(err, failed)
		out = append(out, r)
	}
	if err != nil {
		return nil, err
	}
	slices.SortFunc(out, Compare)
	return merge(m.Finished, out), nil
}

// Compare orders resources by type and name.
func Compare(a, b *Resource) int {
	return cmp.Or(cmp.Compare(a.Type, b.Type), cmp.Compare(a.Name, b.Name))
}

// merge puts a short sorted list into a long one.
func merge(long, short []*Resource) []*Resource {
	if len(long) == 0 {
		return short
	}
	out := make([]*Resource, 0, len(long)+len(short))
	for _, r := range short {
		i, _ := slices.BinarySearchFunc(long, r, Compare)
		out, long = append(append(out, long[:i]...), r), long[i:]
	}
	return append(out, long...)
}
