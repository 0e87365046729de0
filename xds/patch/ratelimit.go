package patch

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/filter"
	"github.com/credence-mesh/credence/xds/resource"
)

// generates tells whether a configuration is a rate limit filter to which nobody says what to count.
func (h *httpEdit) generates(config *anypb.Any) (*ratelimitv3.RateLimit, bool) {
	m := &ratelimitv3.RateLimit{}
	if config == nil || !config.MessageIs(m) || config.UnmarshalTo(m) != nil {
		return nil, false
	}
	return m, len(m.RateLimits) == 0 && !slices.ContainsFunc(h.messages.Routes, hasActions)
}

func hasActions(t *routev3.RouteConfiguration) bool {
	return slices.ContainsFunc(t.VirtualHosts, func(v *routev3.VirtualHost) bool {
		return len(v.RateLimits) > 0 || slices.ContainsFunc(v.Routes, func(r *routev3.Route) bool { return len(r.GetRoute().GetRateLimits()) > 0 })
	})
}

// limiter makes a rate limit filter work that would silently do nothing in Istio: one whose service is no cluster asks the embedded limiter,
// and one without actions gets them from the configuration of its domain.
func (h *httpEdit) limiter(config *anypb.Any) (*anypb.Any, error) {
	m, generate := h.generates(config)
	if m == nil {
		return config, nil
	}
	field := h.field(".patch.value.typed_config")
	if cluster := m.GetRateLimitService().GetGrpcService().GetEnvoyGrpc().GetClusterName(); !h.hasCluster(cluster) {
		m.RateLimitService = filter.RateLimitService()
		h.applier.problem(h.one, policy.Problem{
			Field: field + ".rate_limit_service", Code: "RATELIMIT_CLUSTER_UNDEFINED", Severity: policy.Warning,
			Says: fmt.Sprintf("cluster %q is not defined; the embedded limiter is asked instead", cluster),
			Try:  "remove rate_limit_service, or add the cluster by a CLUSTER patch",
		})
	}
	if generate {
		if err := h.descriptors(m, field); err != nil {
			return nil, err
		}
	}
	return resource.Pack(m)
}

func (h *httpEdit) hasCluster(name string) bool {
	if name == filter.ServicesCluster || strings.HasPrefix(name, "outbound|") {
		return true
	}
	for _, c := range h.messages.Clusters {
		if c.Name == name {
			return true
		}
	}
	return false
}

// descriptors generates the actions of a filter that has none.
func (h *httpEdit) descriptors(m *ratelimitv3.RateLimit, field string) error {
	limits := h.applier.settings.Limits()
	tree, ok := limits[m.Domain]
	if !ok {
		known := slices.Sorted(maps.Keys(limits))
		try := "add a rate limit configuration with this domain"
		if len(known) > 0 {
			try = "one of the domains that are configured: " + strings.Join(known, ", ")
		}
		h.applier.problem(h.one, policy.Problem{
			Field: field + ".domain", Code: "RATELIMIT_DOMAIN_UNKNOWN", Severity: policy.Warning,
			Says: fmt.Sprintf("no rate limit configuration has the domain %q, so nothing is limited", m.Domain), Try: try,
		})
		return nil
	}
	var err error
	if m.RateLimits, err = filter.RateLimits(tree); err != nil {
		return err
	}
	h.applier.problem(h.one, policy.Problem{
		Field: field, Code: "RATELIMIT_ACTIONS_GENERATED", Severity: policy.Warning,
		Says: fmt.Sprintf("no route says what to count by, so in Istio nothing would be limited; %d descriptors were made from the configuration of domain %q, and the filter runs after tokens are verified", len(m.RateLimits), m.Domain),
		Try:  "nothing, or say rate_limits in the filter to choose them yourself",
	})
	return nil
}
