// Package translate turns ir into Envoy's resources. It is pure: equal input gives equal bytes. What it makes is read once more by Check,
// the last guard before anything is published.
package translate

import (
	"fmt"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/credence-mesh/credence/xds/ir"
	"github.com/credence-mesh/credence/xds/resource"
)

// Resources is the messages of one part before they are packed.
type Resources = resource.Messages

// Part translates a part.
func Part(p *ir.Part) (*Resources, error) {
	t := &translator{part: p, out: &Resources{Client: p.Direction == ir.Outbound}}
	for i := range p.Clusters {
		if err := t.cluster(&p.Clusters[i]); err != nil {
			return nil, fmt.Errorf("cluster %s: %w", p.Clusters[i].Name, err)
		}
	}
	for i := range p.Endpoints {
		t.endpoints(&p.Endpoints[i])
	}
	if err := t.upstreams(p.Upstreams); err != nil {
		return nil, err
	}
	for i := range p.Routes {
		add := t.table
		if p.Routes[i].Shared {
			add = t.shared
		}
		if err := add(&p.Routes[i]); err != nil {
			return nil, fmt.Errorf("route table %s: %w", p.Routes[i].Name, err)
		}
	}
	for i := range p.Listeners {
		if err := t.listener(&p.Listeners[i]); err != nil {
			return nil, fmt.Errorf("listener %s: %w", p.Listeners[i].Name, err)
		}
	}
	return t.out, nil
}

// translator gathers the resources of a part.
type translator struct {
	part *ir.Part
	out  *Resources
}

func (t *translator) from(kind resource.Type, name string, sources []ir.Source) {
	for _, s := range sources {
		t.out.From(kind, name, resource.Source{Object: s.Object, At: s.At})
	}
}

// pack packs a message of the code's own making, which cannot fail to marshal unless a string is no UTF-8.
func pack(m proto.Message) (*anypb.Any, error) { return resource.Pack(m) }
