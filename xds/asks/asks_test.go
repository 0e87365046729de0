package asks

import (
	"maps"
	"slices"
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	netlimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/ratelimit/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"

	"github.com/credence-mesh/credence/policy/opa"
	"github.com/credence-mesh/credence/xds/filter"
	"github.com/credence-mesh/credence/xds/resource"
)

func packed(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := resource.Pack(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func finished(t *testing.T, kind resource.Type, name string, m proto.Message) *resource.Resource {
	t.Helper()
	r, err := resource.New(kind, name, m)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func extension(t *testing.T, name string, m proto.Message) *resource.Resource {
	t.Helper()
	return finished(t, resource.ExtensionConfig, name, &corev3.TypedExtensionConfig{Name: name, TypedConfig: packed(t, m)})
}

// inline is a listener with an HTTP filter in its chain, as an EnvoyFilter inserts one.
func inline(t *testing.T, m proto.Message) *resource.Resource {
	t.Helper()
	hcm := &hcmv3.HttpConnectionManager{HttpFilters: []*hcmv3.HttpFilter{{Name: "x", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: packed(t, m)}}}}
	return network(t, hcm)
}

func network(t *testing.T, m proto.Message) *resource.Resource {
	t.Helper()
	return finished(t, resource.Listener, "l", &listenerv3.Listener{Name: "l", FilterChains: []*listenerv3.FilterChain{{
		Filters: []*listenerv3.Filter{{Name: "x", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: packed(t, m)}}},
	}}})
}

func route(t *testing.T, m proto.Message) *resource.Resource {
	t.Helper()
	return finished(t, resource.RouteConfig, "r", &routev3.RouteConfiguration{Name: "r", VirtualHosts: []*routev3.VirtualHost{{
		Name: "h", Domains: []string{"*"}, TypedPerFilterConfig: map[string]*anypb.Any{"x": packed(t, m)},
	}}})
}

func service(cluster string) *corev3.GrpcService {
	return &corev3.GrpcService{TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: cluster}}}
}

func authz(cluster string, always bool) *extauthzv3.ExtAuthz {
	m := &extauthzv3.ExtAuthz{Services: &extauthzv3.ExtAuthz_GrpcService{GrpcService: service(cluster)}}
	if !always {
		m.FilterEnabledMetadata = &matcherv3.MetadataMatcher{Filter: "envoy.filters.http.rbac"}
	}
	return m
}

func TestOf(t *testing.T) {
	t.Parallel()
	limit := &ratelimitv3.RateLimit{Domain: "shop", RateLimitService: filter.RateLimitService()}
	foreign := proto.Clone(limit).(*ratelimitv3.RateLimit)
	foreign.RateLimitService.GrpcService = service("outbound|8081||limits.example")
	marks := &rbacv3.RBAC{ShadowRules: &rbacconfigv3.RBAC{Policies: map[string]*rbacconfigv3.Policy{"istio-ext-authz-opa-x": {}}}}
	embedded, elsewhere := authz(filter.ServicesCluster, false), authz("outbound|9191||opa.example", false)
	chosen := &extauthzv3.ExtAuthzPerRoute{Override: &extauthzv3.ExtAuthzPerRoute_CheckSettings{
		CheckSettings: &extauthzv3.CheckSettings{ContextExtensions: map[string]string{opa.DecisionKey: "platform/authz/allow"}},
	}}
	for _, c := range []struct {
		name      string
		resources []*resource.Resource
		domains   []string
		decisions []string
	}{
		{"nothing", nil, nil, nil},
		{"a limit in an extension", []*resource.Resource{extension(t, "x", limit)}, []string{"shop"}, nil},
		{"a limit in a listener", []*resource.Resource{inline(t, limit)}, []string{"shop"}, nil},
		{"a limit of connections", []*resource.Resource{network(t, &netlimitv3.RateLimit{Domain: "tcp", StatPrefix: "x", RateLimitService: filter.RateLimitService()})}, []string{"tcp"}, nil},
		{"a limit that another service keeps", []*resource.Resource{inline(t, foreign)}, nil, nil},
		{"a route with a domain of its own", []*resource.Resource{inline(t, limit), route(t, &ratelimitv3.RateLimitPerRoute{Domain: "vip"})}, []string{"shop", "vip"}, nil},
		{"a route's domain without a filter", []*resource.Resource{route(t, &ratelimitv3.RateLimitPerRoute{Domain: "vip"})}, nil, nil},
		{"a CUSTOM policy", []*resource.Resource{extension(t, "h/custom", marks), extension(t, "h/ext-authz", embedded)}, nil, []string{""}},
		{"slots that let everything pass", []*resource.Resource{extension(t, "h/custom", &rbacv3.RBAC{}), extension(t, "h/ext-authz", embedded)}, nil, nil},
		{"a CUSTOM policy of another provider", []*resource.Resource{
			extension(t, "h/custom", marks), extension(t, "h/ext-authz", elsewhere), extension(t, "i/custom", &rbacv3.RBAC{}), extension(t, "i/ext-authz", embedded),
		}, nil, nil},
		{"a filter that always asks", []*resource.Resource{inline(t, authz(filter.ServicesCluster, true))}, nil, []string{""}},
		{"a filter that always asks another", []*resource.Resource{inline(t, authz("opa", true))}, nil, nil},
		{"a chosen decision", []*resource.Resource{inline(t, authz(filter.ServicesCluster, true)), route(t, chosen)}, nil, []string{"", "platform/authz/allow"}},
		{"a chosen decision without a filter", []*resource.Resource{route(t, chosen)}, nil, nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			got := Of(c.resources)
			if domains := slices.Sorted(maps.Keys(got.Domains)); !slices.Equal(domains, c.domains) {
				t.Errorf("domains %q, want %q", domains, c.domains)
			}
			if decisions := slices.Sorted(maps.Keys(got.Decisions)); !slices.Equal(decisions, c.decisions) {
				t.Errorf("decisions %q, want %q", decisions, c.decisions)
			}
		})
	}
}
