package resource

import (
	"cmp"
	"fmt"
	"slices"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Host is a virtual host that was made, checked and serialised before. It is immutable and shared by tables.
type Host struct {
	Field    []byte   // the whole `virtual_hosts` field of a RouteConfiguration
	Clusters []string // that its routes name
	Sources  []Source
}

// Table is a route table of finished hosts.
type Table struct {
	Config *routev3.RouteConfiguration // without hosts
	Hosts  []*Host
	Packed *Resource // what Pack gives, where it was packed before
}

// hostsField is the number of `virtual_hosts` in a RouteConfiguration; only the name comes before it.
const hostsField = 2

// NewHost serialises a virtual host.
func NewHost(v *routev3.VirtualHost, clusters []string, sources []Source) (*Host, error) {
	body, err := Pack(v)
	if err != nil {
		return nil, err
	}
	b := make([]byte, 0, len(body.Value)+1+protowire.SizeVarint(uint64(len(body.Value))))
	b = protowire.AppendTag(b, hostsField, protowire.BytesType)
	return &Host{Field: protowire.AppendBytes(b, body.Value), Clusters: clusters, Sources: sources}, nil
}

func (h *Host) message() (*routev3.VirtualHost, error) {
	v := &routev3.VirtualHost{}
	_, _, tag := protowire.ConsumeTag(h.Field)
	if tag < 0 {
		return nil, protowire.ParseError(tag)
	}
	value, n := protowire.ConsumeBytes(h.Field[tag:])
	if n < 0 {
		return nil, protowire.ParseError(n)
	}
	return v, proto.Unmarshal(value, v)
}

// Pack makes the resource: the very bytes that the whole message would have.
func (t *Table) Pack() (*Resource, error) {
	if t.Packed != nil {
		return t.Packed, nil
	}
	head, err := Pack(&routev3.RouteConfiguration{Name: t.Config.Name})
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", RouteConfig, t.Config.Name, err)
	}
	rest := proto.CloneOf(t.Config)
	rest.Name = ""
	tail, err := Pack(rest)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", RouteConfig, t.Config.Name, err)
	}
	size := len(head.Value) + len(tail.Value)
	for _, h := range t.Hosts {
		size += len(h.Field)
	}
	b := append(make([]byte, 0, size), head.Value...)
	for _, h := range t.Hosts {
		b = append(b, h.Field...)
	}
	head.Value = append(b, tail.Value...)
	return &Resource{Type: RouteConfig, Name: t.Config.Name, Version: version(head.Value), Body: head, Sources: t.sources()}, nil
}

// sources is every object behind the hosts, once.
func (t *Table) sources() []Source {
	out := make([]Source, 0, len(t.Hosts))
	seen := make(map[Source]bool, len(t.Hosts))
	for _, h := range t.Hosts {
		for _, s := range h.Sources {
			if len(out) > 0 && s == out[len(out)-1] || seen[s] {
				continue
			}
			seen[s] = true
			out = append(out, s)
		}
	}
	return out
}

// Thaw makes everything editable that is finished, in place.
func (m *Messages) Thaw() error {
	for _, r := range m.Finished {
		body, err := r.Body.UnmarshalNew()
		if err != nil {
			return fmt.Errorf("%s %s: %w", r.Type, r.Name, err)
		}
		switch body := body.(type) {
		case *clusterv3.Cluster:
			m.Clusters = append(m.Clusters, body)
		case *endpointv3.ClusterLoadAssignment:
			m.Endpoints = append(m.Endpoints, body)
		default:
			return fmt.Errorf("%s %s: a finished resource that is no cluster and no endpoints", r.Type, r.Name)
		}
		m.From(r.Type, r.Name, r.Sources...)
	}
	slices.SortStableFunc(m.Clusters, func(a, b *clusterv3.Cluster) int { return cmp.Compare(a.Name, b.Name) })
	for _, t := range m.Tables {
		whole := proto.CloneOf(t.Config)
		for _, h := range t.Hosts {
			v, err := h.message()
			if err != nil {
				return fmt.Errorf("%s %s: %w", RouteConfig, whole.Name, err)
			}
			whole.VirtualHosts = append(whole.VirtualHosts, v)
		}
		m.Routes = append(m.Routes, whole)
		m.From(RouteConfig, whole.Name, t.sources()...)
	}
	slices.SortStableFunc(m.Routes, func(a, b *routev3.RouteConfiguration) int { return cmp.Compare(a.Name, b.Name) })
	m.Finished, m.Tables = nil, nil
	return nil
}
