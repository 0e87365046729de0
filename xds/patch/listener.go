package patch

import (
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	"google.golang.org/protobuf/proto"

	"github.com/credence-mesh/credence/xds/resource"
)

// hitsListener tells whether a listener is named: by name, and by its own port or that of one of its chains.
func (t *trial) hitsListener(l *listenerv3.Listener) bool {
	m := t.spec.GetMatch().GetListener()
	if m.GetName() != "" && m.GetName() != l.Name {
		return false
	}
	n := m.GetPortNumber()
	return n == 0 || l.GetAddress().GetSocketAddress().GetPortValue() == n ||
		slices.ContainsFunc(l.FilterChains, func(c *listenerv3.FilterChain) bool {
			return c.GetFilterChainMatch().GetDestinationPort().GetValue() == n
		})
}

func (t *trial) hitsChain(l *listenerv3.Listener, c *listenerv3.FilterChain) bool {
	m := t.spec.GetMatch().GetListener()
	match := c.GetFilterChainMatch()
	if n := m.GetPortNumber(); n != 0 && l.GetAddress().GetSocketAddress().GetPortValue() != n && match.GetDestinationPort().GetValue() != n {
		return false
	}
	f := m.GetFilterChain()
	switch {
	case f.GetName() != "" && f.GetName() != c.Name,
		f.GetSni() != "" && !slices.Contains(match.GetServerNames(), f.GetSni()),
		f.GetTransportProtocol() != "" && f.GetTransportProtocol() != match.GetTransportProtocol(),
		f.GetDestinationPort() != 0 && f.GetDestinationPort() != match.GetDestinationPort().GetValue():
		return false
	}
	for _, p := range strings.FieldsFunc(f.GetApplicationProtocols(), func(r rune) bool { return r == ',' || r == ' ' }) {
		if !slices.Contains(match.GetApplicationProtocols(), p) {
			return false
		}
	}
	return true
}

func (t *trial) listeners() error {
	e := edit[*listenerv3.Listener]{
		list: t.messages.Listeners, hit: t.hitsListener, relative: true, end: len(t.messages.Listeners),
		make: func() (*listenerv3.Listener, error) {
			l := &listenerv3.Listener{}
			err := decode(t.spec.GetPatch().GetValue(), l)
			t.messages.From(resource.Listener, l.GetName(), t.source())
			return l, err
		},
		merge: func(l *listenerv3.Listener) (*listenerv3.Listener, error) {
			from := &listenerv3.Listener{}
			if err := decode(t.spec.GetPatch().GetValue(), from); err != nil {
				return nil, err
			}
			proto.Merge(l, from)
			t.messages.From(resource.Listener, l.Name, t.source())
			return l, nil
		},
	}
	list, n, err := e.apply(t.operation())
	t.messages.Listeners, t.matched = list, t.matched+n
	return err
}

// chains calls do for every listener that is named.
func (t *trial) chains(do func(*listenerv3.Listener) error) error {
	for _, l := range t.messages.Listeners {
		if !t.hitsListener(l) {
			continue
		}
		if err := do(l); err != nil {
			return err
		}
	}
	return nil
}

func (t *trial) chain(l *listenerv3.Listener) error {
	e := edit[*listenerv3.FilterChain]{
		list: l.FilterChains, hit: func(c *listenerv3.FilterChain) bool { return t.hitsChain(l, c) }, relative: true, end: len(l.FilterChains),
		make: func() (*listenerv3.FilterChain, error) {
			c := &listenerv3.FilterChain{}
			return c, decode(t.spec.GetPatch().GetValue(), c)
		},
		merge: func(c *listenerv3.FilterChain) (*listenerv3.FilterChain, error) {
			from := &listenerv3.FilterChain{}
			if err := decode(t.spec.GetPatch().GetValue(), from); err != nil {
				return nil, err
			}
			merged, err := merge(c.GetTransportSocket().GetTypedConfig(), from.GetTransportSocket().GetTypedConfig())
			if err != nil {
				return nil, err
			}
			proto.Merge(c, from)
			if from.GetTransportSocket().GetTypedConfig() != nil {
				c.TransportSocket.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: merged}
			}
			return c, nil
		},
	}
	list, n, err := e.apply(t.operation())
	if err != nil {
		return err
	}
	l.FilterChains = list
	t.count(l, n)
	return nil
}

func (t *trial) count(l *listenerv3.Listener, n int) {
	if n > 0 {
		t.matched += n - 1
		t.changed(resource.Listener, l.Name)
	}
}

// network edits the network filters of the chains that are named.
func (t *trial) network(l *listenerv3.Listener) error {
	name := t.spec.GetMatch().GetListener().GetFilterChain().GetFilter().GetName()
	for _, c := range l.FilterChains {
		if !t.hitsChain(l, c) {
			continue
		}
		e := edit[*listenerv3.Filter]{
			list: c.Filters, hit: func(f *listenerv3.Filter) bool { return name == "" || sameName(name, f.Name) }, relative: name != "",
			end: max(0, len(c.Filters)-1), make: t.networkFilter, merge: t.mergeNetwork,
		}
		list, n, err := e.apply(t.operation())
		if err != nil {
			return err
		}
		c.Filters = list
		t.count(l, n)
	}
	return nil
}

func (t *trial) networkFilter() (*listenerv3.Filter, error) {
	f := &listenerv3.Filter{}
	if err := decode(t.spec.GetPatch().GetValue(), f); err != nil {
		return nil, err
	}
	packed, err := repack(f.GetTypedConfig())
	f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: packed}
	return f, err
}

func (t *trial) mergeNetwork(f *listenerv3.Filter) (*listenerv3.Filter, error) {
	from := &listenerv3.Filter{}
	if err := decode(t.spec.GetPatch().GetValue(), from); err != nil {
		return nil, err
	}
	merged, err := merge(f.GetTypedConfig(), from.GetTypedConfig())
	f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: merged}
	return f, err
}

// sameName compares filter names: users still write those of old.
func sameName(want, have string) bool {
	return want == have || strings.TrimPrefix(want, "envoy.") == strings.TrimPrefix(have, "envoy.filters.network.") || strings.TrimPrefix(want, "envoy.") == strings.TrimPrefix(have, "envoy.filters.http.")
}
