package patch

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"

	"github.com/credence-mesh/credence/xds/filter"
	"github.com/credence-mesh/credence/xds/resource"
)

const (
	managerName   = "envoy.filters.network.http_connection_manager"
	rateLimitName = "envoy.filters.http.ratelimit"
	// inserted is the part of an extension's name that marks a filter of an EnvoyFilter; the filter's own name follows.
	inserted = "/envoyfilter/"
)

// canonical is the name by which users know a filter: the slots of the chain stand for Istio's filters.
func canonical(name string) string {
	if i := strings.Index(name, inserted); i >= 0 {
		_, own, _ := strings.Cut(name[i+len(inserted):], "/")
		return own
	}
	switch name[strings.LastIndexByte(name, '/')+1:] {
	case filter.SlotJWT:
		return "envoy.filters.http.jwt_authn"
	case filter.SlotExtAuthz:
		return "envoy.filters.http.ext_authz"
	case filter.SlotRBACDeny, filter.SlotRBACAllow:
		return "envoy.filters.http.rbac"
	default:
		return name
	}
}

// http edits the HTTP filters of the connection managers that are named.
func (t *trial) http(l *listenerv3.Listener) error {
	if name := t.spec.GetMatch().GetListener().GetFilterChain().GetFilter().GetName(); name != "" && !sameName(name, managerName) {
		return nil
	}
	for _, c := range l.FilterChains {
		if !t.hitsChain(l, c) {
			continue
		}
		for _, f := range c.Filters {
			m := &hcmv3.HttpConnectionManager{}
			if f.GetTypedConfig() == nil || !f.GetTypedConfig().MessageIs(m) {
				continue
			}
			if err := f.GetTypedConfig().UnmarshalTo(m); err != nil {
				return err
			}
			n, err := t.manager(m)
			if err != nil {
				return err
			}
			packed, err := resource.Pack(m)
			if err != nil {
				return err
			}
			f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed}
			t.count(l, n)
		}
	}
	return nil
}

func (t *trial) manager(m *hcmv3.HttpConnectionManager) (int, error) {
	sub := t.spec.GetMatch().GetListener().GetFilterChain().GetFilter().GetSubFilter().GetName()
	h := &httpEdit{trial: t, prefix: m.StatPrefix}
	e := edit[*hcmv3.HttpFilter]{
		list: m.HttpFilters, hit: func(f *hcmv3.HttpFilter) bool { return sub == "" || sameName(sub, canonical(f.Name)) }, relative: sub != "",
		front: front(m.HttpFilters), end: max(0, len(m.HttpFilters)-1), make: h.add, merge: h.merge,
	}
	switch op := t.operation(); {
	case op == networkingv1alpha3.EnvoyFilter_Patch_MERGE && sub == "", op == networkingv1alpha3.EnvoyFilter_Patch_REMOVE && sub == "", op == networkingv1alpha3.EnvoyFilter_Patch_REPLACE && sub == "":
		return 0, errors.New("match.listener.filterChain.filter.subFilter.name must say which HTTP filter is meant")
	case sub == "" && h.limiterWithoutActions():
		e.front = e.end // what it counts by is known only after tokens were verified
	}
	list, n, err := e.apply(t.operation())
	m.HttpFilters = list
	if t.operation() == networkingv1alpha3.EnvoyFilter_Patch_REMOVE && err == nil {
		t.forget()
	}
	return n, err
}

// front is the place after the slot that removes forged identity headers: nothing runs before it.
func front(filters []*hcmv3.HttpFilter) int {
	return 1 + slices.IndexFunc(filters, func(f *hcmv3.HttpFilter) bool { return strings.HasSuffix(f.Name, "/"+filter.SlotStrip) })
}

// httpEdit makes and merges the HTTP filters of one connection manager. They become extensions like our own, so that an edit of what they
// say changes no listener.
type httpEdit struct {
	*trial
	prefix string
}

func (h *httpEdit) value() (*hcmv3.HttpFilter, error) {
	f := &hcmv3.HttpFilter{}
	if err := decode(h.spec.GetPatch().GetValue(), f); err != nil {
		return nil, err
	}
	if f.Name == "" {
		return nil, errors.New("the filter has no name")
	}
	return f, nil
}

func (h *httpEdit) limiterWithoutActions() bool {
	f, err := h.value()
	if err != nil {
		return false
	}
	_, needs := h.generates(f.GetTypedConfig())
	return needs
}

func (h *httpEdit) add() (*hcmv3.HttpFilter, error) {
	f, err := h.value()
	if err != nil {
		return nil, err
	}
	if f.GetConfigDiscovery() != nil {
		return f, nil
	}
	config, err := repack(f.GetTypedConfig())
	if err != nil {
		return nil, err
	}
	if config, err = h.limiter(config); err != nil {
		return nil, err
	}
	name := fmt.Sprintf("%s%s%s.%s.%d/%s", h.prefix, inserted, h.object.Key.Namespace, h.object.Key.Name, h.index, f.Name)
	h.messages.Extensions = append(h.messages.Extensions, &corev3.TypedExtensionConfig{Name: name, TypedConfig: config})
	h.messages.From(resource.ExtensionConfig, name, h.source())
	f.Name, f.ConfigType = name, discovered(config.TypeUrl)
	return f, nil
}

// discovered is a filter whose configuration comes over ADS: the listener does not serve before it is there.
func discovered(url string) *hcmv3.HttpFilter_ConfigDiscovery {
	return &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: &corev3.ExtensionConfigSource{
		ConfigSource: &corev3.ConfigSource{
			ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
			ResourceApiVersion:    corev3.ApiVersion_V3,
			InitialFetchTimeout:   durationpb.New(0),
		},
		TypeUrls: []string{url},
	}}
}

// merge changes the configuration of a filter where it lives: in its extension, or in the connection manager.
func (h *httpEdit) merge(f *hcmv3.HttpFilter) (*hcmv3.HttpFilter, error) {
	from, err := h.value()
	if err != nil {
		return nil, err
	}
	if f.GetConfigDiscovery() == nil {
		merged, err := merge(f.GetTypedConfig(), from.GetTypedConfig())
		f.ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: merged}
		return f, err
	}
	for _, e := range h.messages.Extensions {
		if e.Name == f.Name {
			h.messages.From(resource.ExtensionConfig, e.Name, h.source())
			e.TypedConfig, err = merge(e.TypedConfig, from.GetTypedConfig())
			return f, err
		}
	}
	return nil, fmt.Errorf("filter %s has no configuration", f.Name)
}

// forget drops the extensions that no filter refers to any more.
func (t *trial) forget() {
	used := map[string]bool{}
	for _, l := range t.messages.Listeners {
		for _, c := range l.FilterChains {
			for _, f := range c.Filters {
				m := &hcmv3.HttpConnectionManager{}
				if f.GetTypedConfig() == nil || !f.GetTypedConfig().MessageIs(m) || f.GetTypedConfig().UnmarshalTo(m) != nil {
					continue
				}
				for _, h := range m.HttpFilters {
					used[h.Name] = true
				}
			}
		}
	}
	t.messages.Extensions = slices.DeleteFunc(t.messages.Extensions, func(e *corev3.TypedExtensionConfig) bool {
		return strings.Contains(e.Name, inserted) && !used[e.Name]
	})
}
