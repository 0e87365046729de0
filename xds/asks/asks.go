// Package asks reads from finished resources what they make a proxy ask of the services of the control plane. What no resource asks for, no
// proxy of theirs may ask.
package asks

import (
	"bytes"
	"strings"

	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/credence-mesh/credence/policy/opa"
	"github.com/credence-mesh/credence/xds/filter"
	"github.com/credence-mesh/credence/xds/resource"
)

// Asks is what some resources ask for. The zero value is nothing.
type Asks struct {
	Domains   map[string]bool // of rate limits
	Decisions map[string]bool // by the names that are asked for; "" is the default decision
}

// Of reads listeners, extension configurations and route tables; other resources ask for nothing.
func Of(lists ...[]*resource.Resource) Asks {
	r := reader{domains: map[string]bool{}, moved: map[string]bool{}, chosen: map[string]bool{}, authz: map[string]bool{}, marks: map[string]bool{}}
	for _, list := range lists {
		for _, res := range list {
			r.resource(res)
		}
	}
	return r.asks()
}

// reader gathers what messages say. The parts of one question may be in several resources.
type reader struct {
	name    string          // of the resource that is read
	domains map[string]bool // of filters that ask the control plane
	moved   map[string]bool // domains that routes put in the place of a filter's
	authz   map[string]bool // authorization filters that ask the control plane, by resource: whether they ask always
	marks   map[string]bool // resources that mark requests of CUSTOM policies
	chosen  map[string]bool // decisions that are named
}

// hints are in the bytes of every resource that may ask for something: type URLs are written out.
var hints = [...][]byte{[]byte("ratelimit"), []byte("ext_authz"), []byte("rbac")}

func (r *reader) resource(res *resource.Resource) {
	switch res.Type {
	case resource.Listener, resource.ExtensionConfig, resource.RouteConfig:
	default:
		return
	}
	for _, h := range hints {
		if bytes.Contains(res.Body.GetValue(), h) {
			r.name = res.Name
			r.any(res.Body)
			return
		}
	}
}

// any reads a packed message. What cannot be read asks for nothing.
func (r *reader) any(a *anypb.Any) {
	if m, err := a.UnmarshalNew(); err == nil {
		r.message(m.ProtoReflect())
	}
}

func (r *reader) message(m protoreflect.Message) {
	switch k := m.Interface().(type) {
	case *anypb.Any:
		r.any(k)
		return
	case *extauthzv3.ExtAuthz:
		if asksServices(m) {
			r.authz[r.name] = r.authz[r.name] || k.GetFilterEnabledMetadata() == nil
		}
	case *rbacv3.RBAC:
		if len(k.GetShadowRules().GetPolicies()) > 0 {
			r.marks[r.name] = true
		}
	}
	r.limit(m)
	r.chosenDecision(m)
	m.Range(func(f protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		switch {
		case f.IsMap():
			if f.MapValue().Message() != nil {
				v.Map().Range(func(_ protoreflect.MapKey, v protoreflect.Value) bool { r.message(v.Message()); return true })
			}
		case f.Message() == nil:
		case f.IsList():
			for i := range v.List().Len() {
				r.message(v.List().Get(i).Message())
			}
		default:
			r.message(v.Message())
		}
		return true
	})
}

// limit knows every message that names a domain and a service: filters of HTTP, of TCP and of other protocols; and the one of routes.
func (r *reader) limit(m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	domain := fields.ByName("domain")
	if domain == nil || domain.Kind() != protoreflect.StringKind || !strings.Contains(string(m.Descriptor().FullName()), "ratelimit") {
		return
	}
	name := m.Get(domain).String()
	switch service := fields.ByName("rate_limit_service"); {
	case name == "":
	case service == nil:
		r.moved[name] = true
	case service.Message() != nil && asksServices(m.Get(service).Message()):
		r.domains[name] = true
	}
}

// asksServices tells whether the gRPC service of a message is the control plane's.
func asksServices(m protoreflect.Message) bool {
	for _, step := range []protoreflect.Name{"grpc_service", "envoy_grpc"} {
		f := m.Descriptor().Fields().ByName(step)
		if f == nil || f.Message() == nil || f.IsList() || f.IsMap() {
			return false
		}
		m = m.Get(f).Message()
	}
	f := m.Descriptor().Fields().ByName("cluster_name")
	return f != nil && m.Get(f).String() == filter.ServicesCluster
}

// chosenDecision reads the extensions of a check that a route sets.
func (r *reader) chosenDecision(m protoreflect.Message) {
	if k, ok := m.Interface().(*extauthzv3.CheckSettings); ok {
		if d := k.GetContextExtensions()[opa.DecisionKey]; d != "" {
			r.chosen[d] = true
		}
	}
}

func (r *reader) asks() Asks {
	a := Asks{Domains: r.domains, Decisions: map[string]bool{}}
	if len(r.domains) > 0 {
		for d := range r.moved {
			a.Domains[d] = true
		}
	}
	for name, always := range r.authz {
		if always || r.marked(name) {
			a.Decisions[""] = true
		}
	}
	if a.Decisions[""] {
		for d := range r.chosen {
			a.Decisions[d] = true
		}
	}
	return a
}

// marked tells whether any request reaches an authorization filter that asks only about marked ones. In a slot, they are marked in the slot
// of the same connection manager; elsewhere, by anything in the same resource.
func (r *reader) marked(name string) bool {
	if http, ok := strings.CutSuffix(name, "/"+filter.SlotExtAuthz); ok {
		name = filter.ExtensionName(http, filter.SlotCustom)
	}
	return r.marks[name]
}
