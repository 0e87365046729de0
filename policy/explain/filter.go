package explain

import (
	"fmt"
	"strings"

	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	bufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/buffer/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	jwtauthnv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	localratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/local_ratelimit/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"
)

// filter takes the request through one HTTP filter.
func (r *run) filter(f *hcmv3.HttpFilter, table *routev3.RouteConfiguration) {
	name := slot(f.GetName())
	config, ok := r.configuration(f)
	switch {
	case f.GetDisabled():
		r.skip(name, "is disabled")
		return
	case !ok:
		r.unsure(name, "has no configuration that can be read here")
		return
	case overridden(table, f.GetName()):
		r.unsure(name, "routes have configurations of their own for this filter, which are not evaluated here")
		return
	}
	switch m := config.(type) {
	case *headermutationv3.HeaderMutation:
		r.strip(name, m)
	case *faultv3.HTTPFault:
		r.fault(name, f.GetName(), m)
	case *jwtauthnv3.JwtAuthentication:
		r.jwt(name, m)
	case *rbacv3.RBAC:
		r.rules(name, f.GetName(), m)
	case *extauthzv3.ExtAuthz:
		r.external(name, m)
	case *localratelimitv3.LocalRateLimit:
		r.local(name, m)
	case *ratelimitv3.RateLimit:
		r.limits(name, m)
	case *bufferv3.Buffer:
		r.buffer(name, m)
	case *routerv3.Router:
		r.route(table)
	default:
		r.unsure(name, fmt.Sprintf("not evaluated: %s", config.ProtoReflect().Descriptor().FullName()))
	}
}

// slot is the short name of a filter: its slot, or the name that an EnvoyFilter gave it.
func slot(name string) string {
	if _, own, ok := strings.Cut(name, "/envoyfilter/"); ok {
		if _, filter, ok := strings.Cut(own, "/"); ok {
			return filter
		}
		return own
	}
	switch own := name[strings.LastIndexByte(name, '/')+1:]; own {
	case "jwt-authn":
		return "jwt"
	case "ext-authz":
		return "opa"
	case "rbac-deny":
		return "deny"
	case "rbac-allow":
		return "allow"
	default:
		return own
	}
}

func (r *run) configuration(f *hcmv3.HttpFilter) (proto.Message, bool) {
	if f.GetConfigDiscovery() != nil {
		e, ok := r.config.extensions[f.GetName()]
		return e.config, ok
	}
	m, err := r.config.unpack(f.GetTypedConfig())
	return m, err == nil
}

// overridden tells whether any route has a say in a filter.
func overridden(table *routev3.RouteConfiguration, name string) bool {
	if _, ok := table.GetTypedPerFilterConfig()[name]; ok {
		return true
	}
	for _, v := range table.GetVirtualHosts() {
		if _, ok := v.GetTypedPerFilterConfig()[name]; ok {
			return true
		}
		for _, x := range v.GetRoutes() {
			if _, ok := x.GetTypedPerFilterConfig()[name]; ok {
				return true
			}
		}
	}
	return false
}

// refusedPrefix is the statistics prefix of the slot that refuses ambiguous requests.
const refusedPrefix = "credence_refused_"

func (r *run) rules(name, full string, m *rbacv3.RBAC) {
	if m.GetMatcher() != nil || m.GetShadowMatcher() != nil {
		r.unsure(name, "rules in a matcher tree cannot be evaluated here")
		return
	}
	before := len(r.out.Steps)
	r.shadow(name, m.GetShadowRules(), m.GetShadowRulesStatPrefix(), "envoy.filters.http.rbac")
	if m.GetRules() != nil {
		status := 403
		if m.GetRulesStatPrefix() == refusedPrefix { // the connection manager makes it so
			status = 400
		}
		r.authorization(name, m.GetRules(), status)
		r.enforced(m)
	}
	if r.done && r.out.Policy == "" {
		for _, s := range r.config.extensions[full].sources {
			if r.out.Policy == "" {
				r.out.Policy, r.out.At = objectName(s.Object), s.At
			}
		}
	}
	if len(r.out.Steps) == before {
		r.skip(name, "no CUSTOM or AUDIT rule matches")
	}
}

// enforced is what Envoy leaves in metadata of rules that let a request pass. Of those that refuse it says so too late for its own answer.
func (r *run) enforced(m *rbacv3.RBAC) {
	if r.done || m.GetRules().GetAction() == rbacconfigv3.RBAC_LOG {
		return
	}
	const namespace = "envoy.filters.http.rbac"
	r.metadata.set(namespace, m.GetRulesStatPrefix()+"enforced_engine_result", text("allowed"))
	if x, _ := r.first(m.GetRules()); x != nil {
		r.metadata.set(namespace, m.GetRulesStatPrefix()+"enforced_effective_policy_id", text(x.id))
	}
}

// strip removes and sets headers.
func (r *run) strip(name string, m *headermutationv3.HeaderMutation) {
	r.edit(name, m.GetMutations().GetRequestMutations())
}

// edit removes headers.
func (r *run) edit(name string, edits []*mutationrulesv3.HeaderMutation) {
	var removed []string
	for _, x := range edits {
		switch {
		case x.GetRemove() != "":
			if _, ok := r.headers.get(x.GetRemove()); ok {
				removed = append(removed, x.GetRemove())
				r.headers.remove(x.GetRemove())
			}
		case x.GetRemoveOnMatch() != nil:
			for _, h := range append([]Header(nil), r.headers.list...) {
				if r.config.remembered.text(x.GetRemoveOnMatch().GetKeyMatcher(), h.Name) == yes {
					removed = append(removed, h.Name)
					r.headers.remove(h.Name)
				}
			}
		default:
			r.unsure(name, "sets headers, which is not evaluated here")
		}
	}
	if len(removed) > 0 {
		r.note(name, "removed what only the proxy may say: "+strings.Join(removed, ", "))
	}
}

func (r *run) fault(name, full string, m *faultv3.HTTPFault) {
	a := m.GetAbort()
	if a.GetHttpStatus() == 0 || a.GetPercentage().GetNumerator() < 100 || len(m.GetHeaders()) > 0 || m.GetDelay() != nil {
		r.unsure(name, "a fault that hits some requests")
		return
	}
	by := decided{rule: NoRule}
	because := "everything is refused"
	if s := r.config.extensions[full].sources; len(s) > 0 {
		by.policy, by.at = objectName(s[0].Object), s[0].At
		because = "everything is refused, because this is not valid: " + s[0].Object
	}
	r.denied(name, int(a.GetHttpStatus()), because, by)
}

func (r *run) buffer(name string, m *bufferv3.Buffer) {
	most := int64(m.GetMaxRequestBytes().GetValue())
	if r.req.Body > most {
		r.deny(name, 413, fmt.Sprintf("the body of %d bytes is larger than %d", r.req.Body, most))
		return
	}
	r.pass(name, fmt.Sprintf("the body has at most %d bytes", most))
}

func (r *run) local(name string, m *localratelimitv3.LocalRateLimit) {
	b := m.GetTokenBucket()
	r.note(name, fmt.Sprintf("would take 1 of %d tokens of this proxy, refilled every %s; not counted here", b.GetMaxTokens(), b.GetFillInterval().AsDuration()))
}

func (r *run) limits(name string, m *ratelimitv3.RateLimit) {
	n := len(m.GetRateLimits())
	what := fmt.Sprintf("%d descriptors", n)
	if n == 0 {
		what = "the descriptors of its route"
	}
	r.note(name, fmt.Sprintf("would count against the limits of domain %s (%s); not counted here", m.GetDomain(), what))
}
