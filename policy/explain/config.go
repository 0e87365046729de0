package explain

import (
	"fmt"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/credence-mesh/credence/xds/resource"
)

// Config is what one proxy gets, unpacked. It is immutable but for what it remembers, and safe for concurrent use.
type Config struct {
	listeners  []*listenerv3.Listener
	extensions map[string]extension
	tables     map[string]*routev3.RouteConfiguration
	clusters   map[string]bool
	remembered *memory
}

// extension is the configuration of a slot and the objects that it came from.
type extension struct {
	config  proto.Message
	sources []resource.Source
}

// Read unpacks the resources of a workload.
func Read(resources []*resource.Resource) (*Config, error) {
	c := &Config{extensions: map[string]extension{}, tables: map[string]*routev3.RouteConfiguration{}, clusters: map[string]bool{}, remembered: newMemory()}
	for _, r := range resources {
		m, err := r.Body.UnmarshalNew()
		if err != nil {
			return nil, fmt.Errorf("%s %s: %w", r.Type, r.Name, err)
		}
		switch m := m.(type) {
		case *listenerv3.Listener:
			c.listeners = append(c.listeners, m)
		case *corev3.TypedExtensionConfig:
			inner, err := c.unpack(m.GetTypedConfig())
			if err != nil {
				return nil, fmt.Errorf("%s %s: %w", r.Type, r.Name, err)
			}
			c.extensions[r.Name] = extension{config: inner, sources: r.Sources}
		case *routev3.RouteConfiguration:
			c.tables[r.Name] = m
		case *clusterv3.Cluster:
			c.clusters[r.Name] = true
		}
	}
	return c, nil
}

// unpack decodes an Any once.
func (c *Config) unpack(a *anypb.Any) (proto.Message, error) {
	if m, ok := c.remembered.messages.Load(a); ok {
		return m.(proto.Message), nil
	}
	m, err := a.UnmarshalNew()
	if err == nil {
		c.remembered.messages.Store(a, m)
	}
	return m, err
}
