package translate

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"
)

// Weaker tells what guards a server less after an edit than before it. Check refuses what leaves a server without a guard, however it came about.
func Weaker(before, after *Resources) error {
	if after.Client {
		return nil
	}
	w := &weakening{}
	w.chains(before, after)
	w.extensions(before, after)
	w.overrides(before, after)
	if len(w.found) == 0 {
		return nil
	}
	slices.Sort(w.found)
	return errors.New(strings.Join(slices.Compact(w.found), "; "))
}

// weakening gathers what became weaker.
type weakening struct{ found []string }

func (w *weakening) tell(weaker bool, format string, args ...any) {
	if weaker {
		w.found = append(w.found, fmt.Sprintf(format, args...))
	}
}

// chainsOf is the chains of all listeners by the names of both.
func chainsOf(r *Resources) map[[2]string]*listenerv3.FilterChain {
	out := map[[2]string]*listenerv3.FilterChain{}
	for _, l := range r.Listeners {
		for _, c := range l.FilterChains {
			out[[2]string{l.Name, "chain " + c.Name}] = c
		}
		if l.DefaultFilterChain != nil {
			out[[2]string{l.Name, "the default chain"}] = l.DefaultFilterChain
		}
	}
	return out
}

func (w *weakening) chains(before, after *Resources) {
	was := chainsOf(before)
	for name, c := range chainsOf(after) {
		what := name[0] + ", " + name[1]
		b := was[name]
		if b == nil {
			w.tell(true, "%s: a server that no policy knows", what)
			continue
		}
		w.tell(mutual(b) && (!mutual(c) || !proto.Equal(validation(b), validation(c))), "%s: peers are verified less", what)
		x, y := managers(b), managers(c)
		w.tell(len(x) != len(y), "%s: another protocol is served", what)
		for i := range min(len(x), len(y)) {
			w.manager(what, x[i], y[i])
		}
		w.networkGuards(what, b, c)
	}
}

// networkGuards: what was discovered still is, as it was.
func (w *weakening) networkGuards(what string, before, after *listenerv3.FilterChain) {
	for _, f := range before.Filters {
		if f.GetConfigDiscovery() != nil {
			w.tell(!slices.ContainsFunc(after.Filters, func(g *listenerv3.Filter) bool { return proto.Equal(f, g) }), "%s: filter %s is changed", what, f.Name)
		}
	}
}

func downstreamOf(c *listenerv3.FilterChain) *tlsv3.DownstreamTlsContext {
	m := &tlsv3.DownstreamTlsContext{}
	if packed := c.GetTransportSocket().GetTypedConfig(); packed == nil || packed.UnmarshalTo(m) != nil {
		return &tlsv3.DownstreamTlsContext{}
	}
	return m
}

func mutual(c *listenerv3.FilterChain) bool {
	return downstreamOf(c).GetRequireClientCertificate().GetValue()
}

func validation(c *listenerv3.FilterChain) proto.Message {
	return downstreamOf(c).GetCommonTlsContext().GetCombinedValidationContext()
}

func managers(c *listenerv3.FilterChain) []*hcmv3.HttpConnectionManager {
	var out []*hcmv3.HttpConnectionManager
	for _, f := range c.Filters {
		m := &hcmv3.HttpConnectionManager{}
		if f.GetTypedConfig() != nil && f.GetTypedConfig().MessageIs(m) && f.GetTypedConfig().UnmarshalTo(m) == nil {
			out = append(out, m)
		}
	}
	return out
}

// isGuard tells whether a filter is one of ours, of HTTP or TCP: nobody else's has a slot's name and is not marked as an EnvoyFilter's.
func isGuard(name string) bool {
	return strings.Contains(name, "/") && !strings.Contains(name, "/envoyfilter/")
}

// extensions: what a guard says is what policies say.
func (w *weakening) extensions(before, after *Resources) {
	now := map[string]*anypb.Any{}
	for _, e := range after.Extensions {
		now[e.Name] = e.TypedConfig
	}
	for _, e := range before.Extensions {
		w.tell(isGuard(e.Name) && !proto.Equal(harmless(e.TypedConfig), harmless(now[e.Name])), "%s: what policies say is changed", e.Name)
	}
}

// harmless is a configuration without that which decides nothing.
func harmless(packed *anypb.Any) proto.Message {
	m := &extauthzv3.ExtAuthz{}
	if packed == nil || !packed.MessageIs(m) || packed.UnmarshalTo(m) != nil {
		return packed
	}
	m.StatPrefix, m.WithRequestBody, m.IncludePeerCertificate, m.IncludeTlsSession, m.ChargeClusterResponseStats, m.EmitFilterStateStats = "", nil, false, false, nil, false
	if g := m.GetGrpcService(); g != nil {
		g.Timeout = nil
	}
	return m
}

// overrides: a route may say more to the external authorizer, and nothing else to a guard.
func (w *weakening) overrides(before, after *Resources) {
	known := map[string]bool{}
	eachOverride(before, func(name string, config *anypb.Any) { known[name+"\x00"+string(config.GetValue())] = true })
	eachOverride(after, func(name string, config *anypb.Any) {
		w.tell(isGuard(name) && !known[name+"\x00"+string(config.GetValue())] && !context(config), "%s: overridden for some routes", name)
	})
}

// context tells whether an override only adds to what the external authorizer is told.
func context(config *anypb.Any) bool {
	m := &extauthzv3.ExtAuthzPerRoute{}
	if !config.MessageIs(m) || config.UnmarshalTo(m) != nil || m.GetCheckSettings() == nil {
		return false
	}
	return proto.Equal(m.GetCheckSettings(), &extauthzv3.CheckSettings{ContextExtensions: m.GetCheckSettings().ContextExtensions})
}

func eachOverride(r *Resources, visit func(string, *anypb.Any)) {
	each := func(m proto.Message) {
		overridesIn(m.ProtoReflect(), visit)
		// What cannot be unpacked was refused by Check.
		_ = eachPacked(m.ProtoReflect(), func(inner proto.Message) { overridesIn(inner.ProtoReflect(), visit) })
	}
	for _, t := range r.Routes {
		each(t)
	}
	for _, l := range r.Listeners {
		each(l)
	}
}

// overridesIn visits the overrides in a message, but not in what is packed in it.
func overridesIn(m protoreflect.Message, visit func(string, *anypb.Any)) {
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap() && f.Name() == "typed_per_filter_config":
			v.Map().Range(func(k protoreflect.MapKey, v protoreflect.Value) bool {
				if config, ok := v.Message().Interface().(*anypb.Any); ok {
					visit(k.String(), config)
				}
				return true
			})
		case f.IsMap() || f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				overridesIn(v.List().Get(i).Message(), visit)
			}
		default:
			overridesIn(v.Message(), visit)
		}
		return true
	})
}
