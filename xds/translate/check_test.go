package translate_test

import (
	"slices"
	"strings"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/xds/filter"
	"github.com/credence-mesh/credence/xds/ir"
	"github.com/credence-mesh/credence/xds/translate"
)

// sound is a part that the check lets pass.
func sound(t *testing.T) *translate.Resources {
	t.Helper()
	const name = "inbound|8080||"
	r, err := translate.Part(&ir.Part{
		Name: "inbound/ns/w",
		Listeners: []ir.Listener{{Name: "l", Address: "127.0.0.1", Port: 8080, Chains: []ir.Chain{{
			Name: "c", Handler: &ir.HTTP{Name: name, Table: name, Guard: ir.Guard{Enforce: true, Rules: authz.Rules{Open: true}}},
		}}}},
		Routes: []ir.RouteTable{{Name: name, Hosts: []*ir.VirtualHost{{
			Name: "h", Domains: []string{"*"}, Routes: []ir.Route{{Name: "r", Action: ir.Forward{To: []ir.Weighted{{Cluster: name, Weight: 1}}}}},
		}}}},
		Clusters: []ir.Cluster{{Name: name, Kind: ir.Static, Address: "127.0.0.1", Port: 1, TLS: ir.UpstreamTLS{Mode: ir.UpstreamPlain}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := translate.Check(r); err != nil {
		t.Fatal(err)
	}
	return r
}

func edit[M proto.Message](t *testing.T, in *anypb.Any, m M, change func(M)) *anypb.Any {
	t.Helper()
	if err := in.UnmarshalTo(m); err != nil {
		t.Fatal(err)
	}
	change(m)
	return packed(t, m)
}

func extension[M proto.Message](t *testing.T, r *translate.Resources, slot string, m M, change func(M)) {
	t.Helper()
	i := slices.IndexFunc(r.Extensions, func(e *corev3.TypedExtensionConfig) bool { return strings.HasSuffix(e.Name, "/"+slot) })
	r.Extensions[i].TypedConfig = edit(t, r.Extensions[i].TypedConfig, m, change)
}

func manager(t *testing.T, r *translate.Resources, change func(*hcmv3.HttpConnectionManager)) {
	t.Helper()
	f := r.Listeners[0].FilterChains[0].Filters[0]
	f.ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: edit(t, f.GetTypedConfig(), &hcmv3.HttpConnectionManager{}, change)}
}

func downstream(t *testing.T, r *translate.Resources, change func(*tlsv3.DownstreamTlsContext)) {
	t.Helper()
	s := r.Listeners[0].FilterChains[0].TransportSocket
	s.ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: edit(t, s.GetTypedConfig(), &tlsv3.DownstreamTlsContext{}, change)}
}

// TestCheckRefuses spoils a sound part in one place at a time.
func TestCheckRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name  string
		spoil func(*testing.T, *translate.Resources)
		says  string
	}{
		{"rbac without rules", func(t *testing.T, r *translate.Resources) {
			extension(t, r, "rbac-allow", &rbacv3.RBAC{}, func(m *rbacv3.RBAC) { m.Rules = nil })
		}, "RBAC without a policy"},
		{"rbac with empty rules", func(t *testing.T, r *translate.Resources) {
			extension(t, r, "rbac-deny", &rbacv3.RBAC{}, func(m *rbacv3.RBAC) { m.Rules = &rbacconfigv3.RBAC{} })
		}, "RBAC without a policy"},
		{"empty override of rbac", func(t *testing.T, r *translate.Resources) {
			r.Routes[0].VirtualHosts[0].TypedPerFilterConfig = map[string]*anypb.Any{"inbound|8080||/rbac-deny": packed(t, &rbacv3.RBACPerRoute{})}
		}, "switches authorization off"},
		{"override of a filter that is not there", func(t *testing.T, r *translate.Resources) {
			r.Routes[0].VirtualHosts[0].Routes[0].TypedPerFilterConfig = map[string]*anypb.Any{"envoy.filters.http.rbac": packed(t, &routev3.FilterConfig{Disabled: true})}
		}, "which no chain has"},
		{"decision service fails open", func(t *testing.T, r *translate.Resources) {
			extension(t, r, "ext-authz", &extauthzv3.ExtAuthz{}, func(m *extauthzv3.ExtAuthz) { m.FailureModeAllow = true })
		}, "failure_mode_allow"},
		{"a slot is missing", func(t *testing.T, r *translate.Resources) {
			manager(t, r, func(m *hcmv3.HttpConnectionManager) { m.HttpFilters = m.HttpFilters[1:] })
		}, "of l is missing"},
		{"a slot is disabled", func(t *testing.T, r *translate.Resources) {
			manager(t, r, func(m *hcmv3.HttpConnectionManager) { m.HttpFilters[len(m.HttpFilters)-2].Disabled = true })
		}, "may be without its configuration"},
		{"a slot is optional", func(t *testing.T, r *translate.Resources) {
			manager(t, r, func(m *hcmv3.HttpConnectionManager) { m.HttpFilters[len(m.HttpFilters)-2].IsOptional = true })
		}, "may be without its configuration"},
		{"an upgrade without the slots", func(t *testing.T, r *translate.Resources) {
			manager(t, r, func(m *hcmv3.HttpConnectionManager) {
				m.UpgradeConfigs[0].Filters = m.HttpFilters[len(m.HttpFilters)-1:]
			})
		}, "in place of the guards"},
		{"a default chain without the slots", func(t *testing.T, r *translate.Resources) {
			c := r.Listeners[0].FilterChains[0]
			r.Listeners[0].DefaultFilterChain = &listenerv3.FilterChain{Name: "open", Filters: []*listenerv3.Filter{{Name: c.Filters[0].Name, ConfigType: &listenerv3.Filter_TypedConfig{
				TypedConfig: edit(t, c.Filters[0].GetTypedConfig(), &hcmv3.HttpConnectionManager{}, func(m *hcmv3.HttpConnectionManager) {
					m.StatPrefix, m.HttpFilters = "outbound_x", m.HttpFilters[len(m.HttpFilters)-1:]
				}),
			}}}}
		}, "is missing"},
		{"slots change places", func(t *testing.T, r *translate.Resources) {
			manager(t, r, func(m *hcmv3.HttpConnectionManager) {
				m.HttpFilters[1], m.HttpFilters[5] = m.HttpFilters[5], m.HttpFilters[1]
			})
		}, "missing or out of order"},
		{"router is not last", func(t *testing.T, r *translate.Resources) {
			manager(t, r, func(m *hcmv3.HttpConnectionManager) { slices.Reverse(m.HttpFilters) })
		}, "not the router"},
		{"an extension is missing", func(_ *testing.T, r *translate.Resources) { r.Extensions = r.Extensions[1:] }, "waits for an extension"},
		{"the route table is missing", func(_ *testing.T, r *translate.Resources) { r.Routes = nil }, "route table"},
		{"the cluster is missing", func(_ *testing.T, r *translate.Resources) { r.Clusters = nil }, "does not exist"},
		{"nobody limits", func(t *testing.T, r *translate.Resources) {
			m := &ratelimitv3.RateLimit{Domain: "d", RateLimitService: filter.RateLimitService()}
			m.RateLimitService.GrpcService.GetEnvoyGrpc().ClusterName = "rate_limit_cluster"
			r.Extensions = append(r.Extensions, &corev3.TypedExtensionConfig{Name: "limit", TypedConfig: packed(t, m)})
		}, `cluster "rate_limit_cluster" does not exist`},
		{"a name twice", func(_ *testing.T, r *translate.Resources) { r.Clusters = append(r.Clusters, r.Clusters[0]) }, "given twice"},
		{"a domain twice", func(_ *testing.T, r *translate.Resources) {
			h := r.Routes[0].VirtualHosts[0]
			r.Routes[0].VirtualHosts = append(r.Routes[0].VirtualHosts, &routev3.VirtualHost{Name: "other", Domains: h.Domains})
		}, `domain "*" twice`},
		{"no chain", func(_ *testing.T, r *translate.Resources) { r.Listeners[0].FilterChains = nil }, "no filter chain"},
		{"no client certificate", func(t *testing.T, r *translate.Resources) {
			downstream(t, r, func(m *tlsv3.DownstreamTlsContext) { m.RequireClientCertificate = wrapperspb.Bool(false) })
		}, "does not demand one"},
		{"anybody's certificate", func(t *testing.T, r *translate.Resources) {
			downstream(t, r, func(m *tlsv3.DownstreamTlsContext) {
				m.CommonTlsContext.GetCombinedValidationContext().DefaultValidationContext.MatchTypedSubjectAltNames = nil
			})
		}, "does not demand one"},
		{"endpoints are missing", func(_ *testing.T, r *translate.Resources) {
			r.Clusters[0].ClusterDiscoveryType = &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}
		}, "no endpoints resource"},
		{"what protoc-gen-validate finds", func(_ *testing.T, r *translate.Resources) { r.Routes[0].VirtualHosts[0].Domains = nil }, "Domains"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			r := sound(t)
			c.spoil(t, r)
			if err := translate.Check(r); err == nil || !strings.Contains(err.Error(), c.says) {
				t.Fatalf("got %v, want something with %q", err, c.says)
			}
		})
	}
}

// TestNobodyIsAccepted: mutual TLS with no peer named refuses everyone, where Envoy alone would accept everyone.
func TestNobodyIsAccepted(t *testing.T) {
	t.Parallel()
	m := &tlsv3.DownstreamTlsContext{}
	if err := sound(t).Listeners[0].FilterChains[0].TransportSocket.GetTypedConfig().UnmarshalTo(m); err != nil {
		t.Fatal(err)
	}
	if got := m.CommonTlsContext.GetCombinedValidationContext().DefaultValidationContext.MatchTypedSubjectAltNames[0].Matcher.GetExact(); got != "spiffe://nobody.invalid/nobody" {
		t.Errorf("got %q", got)
	}
}
