// Package filter makes Envoy's filters out of what a listener must enforce. Every HTTP security filter is an extension configuration that a
// fixed slot of the chain refers to, so that no edit of a policy changes a listener: see docs/adr/2026-11-23-extension-config-slots.md.
package filter

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/credence-mesh/credence/xds/ir"
	"github.com/credence-mesh/credence/xds/resource"
)

// slot is one place of the chain. Its configuration is always present: where nothing is asked for, one that lets everything pass.
type slot struct {
	name  string
	types []proto.Message // what may stand in the slot
	make  func(h *ir.HTTP) (made, error)
}

// made is the configuration of one slot and what users wrote that it came from.
type made struct {
	config  proto.Message
	sources []ir.Source
}

// The slots that other packages name, to place a filter before or after one.
const (
	SlotRefuse    = "refuse"
	SlotStrip     = "strip"
	SlotJWT       = "jwt-authn"
	SlotCustom    = "custom"
	SlotExtAuthz  = "ext-authz"
	SlotRBACDeny  = "rbac-deny"
	SlotRBACAllow = "rbac-allow"
)

// RouterName is the name of the last filter of every chain.
const RouterName = "envoy.filters.http.router"

// slots is the chain, in the order in which a request passes it.
func slots() []slot {
	return []slot{
		{SlotRefuse, rbacTypes(), refuse},        // first: nothing decides on what two servers could read differently
		{SlotStrip, stripTypes(), strip},         // nothing after it may see an identity that the client made up
		{SlotJWT, jwtTypes(), jwtAuthn},          // before all that reads claims
		{SlotCustom, rbacTypes(), custom},        // says which requests the next filter is asked about, and marks those to be audited
		{SlotExtAuthz, extAuthzTypes(), extAuth}, // after jwt-authn, so that it decides on verified claims
		{SlotRBACDeny, rbacTypes(), rbacDeny},    // before rbac-allow: a DENY rule wins over every ALLOW rule
		{SlotRBACAllow, rbacTypes(), rbacAllow},
	}
}

// Extension is the configuration of a slot, to be delivered by extension config discovery.
type Extension struct {
	Name    string // "<HTTP.Name>/<slot>": the name of the HTTP filter, by which Envoy asks for it
	Config  proto.Message
	Sources []ir.Source
}

// Resource packs the extension for the wire.
func (e Extension) Resource() (*resource.Resource, error) {
	packed, err := resource.Pack(e.Config)
	if err != nil {
		return nil, fmt.Errorf("extension %s: %w", e.Name, err)
	}
	sources := make([]resource.Source, len(e.Sources))
	for i, s := range e.Sources {
		sources[i] = resource.Source{Object: s.Object, At: s.At}
	}
	return resource.New(resource.ExtensionConfig, e.Name, &corev3.TypedExtensionConfig{Name: e.Name, TypedConfig: packed}, sources...)
}

// ExtensionName is the name of the filter, and of the extension, in a slot of an HTTP connection manager.
func ExtensionName(httpName, slot string) string { return httpName + "/" + slot }

// Chain is the HTTP filters of a connection manager and the extensions that they refer to. The filters depend on the name of h alone
// (and on whether it is an egress, which has no guard): whatever policies say is in the extensions.
func Chain(h *ir.HTTP) ([]*hcmv3.HttpFilter, []Extension, error) {
	var filters []*hcmv3.HttpFilter
	var extensions []Extension
	if !h.Lenient {
		strict := *h
		strict.Guard.Rules = anyPort(h.Guard.Rules)
		h = &strict
	}
	if !h.Egress {
		for _, s := range slots() {
			m, err := s.make(h)
			if err == nil {
				err = valid(m.config)
			}
			if err != nil {
				return nil, nil, fmt.Errorf("%s: %s: %w", h.Name, s.name, err)
			}
			name := ExtensionName(h.Name, s.name)
			filters = append(filters, discovered(name, s.types))
			extensions = append(extensions, Extension{Name: name, Config: m.config, Sources: m.sources})
		}
	}
	router, err := resource.Pack(&routerv3.Router{SuppressEnvoyHeaders: true})
	if err != nil {
		return nil, nil, err
	}
	filters = append(filters, &hcmv3.HttpFilter{Name: RouterName, ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: router}})
	return filters, extensions, nil
}

// valid checks what Envoy's protos say about their fields: Envoy refuses a whole configuration for one of them, so it is better not sent.
func valid(m proto.Message) error {
	v, ok := m.(interface{ ValidateAll() error })
	if !ok {
		return fmt.Errorf("%s cannot be validated", m.ProtoReflect().Descriptor().FullName())
	}
	return v.ValidateAll()
}

// discovered is a filter whose configuration comes over ADS.
func discovered(name string, types []proto.Message) *hcmv3.HttpFilter {
	return &hcmv3.HttpFilter{Name: name, ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: overADS(types)}}
}

// overADS is where the configuration of a slot comes from. There is no default configuration and no time limit: the listener does not serve
// before it has every guard.
func overADS(types []proto.Message) *corev3.ExtensionConfigSource {
	source := &corev3.ExtensionConfigSource{ConfigSource: &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   durationpb.New(0),
	}}
	for _, t := range types {
		source.TypeUrls = append(source.TypeUrls, "type.googleapis.com/"+string(t.ProtoReflect().Descriptor().FullName()))
	}
	return source
}
