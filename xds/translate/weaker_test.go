package translate_test

import (
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/compile"
)

const guarded = `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: pay-1, namespace: production}
spec: {address: 127.0.90.2, ports: {http: 8080, tcp: 8081}, labels: {app: pay}, serviceAccount: pay}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: production}
spec: {action: ALLOW, rules: [{from: [{source: {principals: ["cluster.local/ns/production/sa/order"]}}]}]}
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: opens, namespace: production, annotations: {credence.dev/allow-weaker-guards: "REASON"}}
spec:
  configPatches:
`

// inManager is a patch of the connection manager of the inbound listener.
func inManager(value string) string {
	return `
  - applyTo: NETWORK_FILTER
    match: {context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}
    patch: {operation: MERGE, value: {typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager, ` + value + `}}}`
}

func inHost(key, config string) string {
	return `
  - applyTo: VIRTUAL_HOST
    match: {context: SIDECAR_INBOUND}
    patch: {operation: MERGE, value: {typed_per_filter_config: {"` + key + `": {"@type": type.googleapis.com/envoy.` + config + `}}}}`
}

// TestWeakerGuards: what an EnvoyFilter would take from the guards of a server is left out and told, unless its author gave a reason; what
// leaves none is left out in any case.
func TestWeakerGuards(t *testing.T) {
	t.Parallel()
	const (
		weaker, refused = "ENVOYFILTER_WEAKER_GUARDS", "ENVOYFILTER_QUARANTINED"
		early           = `early_header_mutation_extensions: [{name: e, typed_config: {"@type": type.googleapis.com/envoy.extensions.http.early_header_mutation.header_mutation.v3.HeaderMutation, mutations: [%]}}]`
		removeRBAC      = `
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.rbac}}}}}
    patch: {operation: REMOVE}`
	)
	for _, tc := range []struct{ name, patches, code string }{
		{"another stat_prefix, which opens nothing", inManager(`stat_prefix: outbound_x`), ""},
		{"another stat_prefix and no RBAC", inManager(`stat_prefix: outbound_x`) + removeRBAC, refused},
		{"no RBAC and another stat_prefix", removeRBAC + inManager(`stat_prefix: outbound_x`), refused},
		{"an upgrade with filters of its own", inManager(`upgrade_configs: [{upgrade_type: x, filters: [{name: envoy.filters.http.router, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.router.v3.Router}}]}]`), refused},
		{"slashes as they come", inManager(`path_with_escaped_slashes_action: KEEP_UNCHANGED`), weaker},
		{"slashes unescaped", inManager(`path_with_escaped_slashes_action: UNESCAPE_AND_FORWARD`), weaker},
		{"the client's word for its certificate", inManager(`forward_client_cert_details: ALWAYS_FORWARD_ONLY`), weaker},
		{"the client's address", inManager(`use_remote_address: true`), weaker},
		{"trusted hops", inManager(`xff_num_trusted_hops: 3`), weaker},
		{"two lengths", inManager(`http_protocol_options: {allow_chunked_length: true}`), weaker},
		{"an early header that says who asks", inManager(strings.Replace(early, "%", `{append: {header: {key: X-Forwarded-For, value: 10.0.0.1}}}`, 1)), weaker},
		{"an early header of no meaning", inManager(strings.Replace(early, "%", `{append: {header: {key: x-color, value: red}}}`, 1)), ""},
		{"an idle timeout", inManager(`common_http_protocol_options: {idle_timeout: 30s}`), ""},
		{"a guard disabled for a host", inHost("inbound|8080||/rbac-allow", `config.route.v3.FilterConfig, disabled: true`), weaker},
		{"other rules for a host", inHost("inbound|8080||/rbac-allow", `extensions.filters.http.rbac.v3.RBACPerRoute, rbac: {rules: {action: DENY, policies: {none: {permissions: [{header: {name: x, exact_match: y}}], principals: [{any: true}]}}}}`), weaker},
		{"no decision for a host", inHost("inbound|8080||/ext-authz", `extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, disabled: true`), weaker},
		{"no token for a host", inHost("inbound|8080||/jwt-authn", `extensions.filters.http.jwt_authn.v3.PerRouteConfig, disabled: true`), weaker},
		{"more for the authorizer to know", inHost("inbound|8080||/ext-authz", `extensions.filters.http.ext_authz.v3.ExtAuthzPerRoute, check_settings: {context_extensions: {a: b}}`), ""},
		{"everybody into the rules", `
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager, subFilter: {name: envoy.filters.http.rbac}}}}}
    patch: {operation: MERGE, value: {name: x, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC, rules: {policies: {all: {permissions: [{any: true}], principals: [{any: true}]}}}}}}`, weaker},
		{"a chain beside ours", `
  - applyTo: LISTENER
    match: {context: SIDECAR_INBOUND, listener: {portNumber: 8080}}
    patch: {operation: MERGE, value: {default_filter_chain: {name: open, filters: [{name: envoy.filters.network.tcp_proxy, typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: x, cluster: "inbound|8080||"}}]}}}`, refused},
		{"anybody's certificate", `
  - applyTo: FILTER_CHAIN
    match: {context: SIDECAR_INBOUND, listener: {portNumber: 8080}}
    patch: {operation: MERGE, value: {transport_socket: {name: x, typed_config: {"@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.DownstreamTlsContext, common_tls_context: {combined_validation_context: {default_validation_context: {match_typed_subject_alt_names: [{san_type: URI, matcher: {prefix: "spiffe://"}}]}}}}}}}`, weaker},
		{"bytes past the guards of a port", `
  - applyTo: LISTENER
    match: {context: SIDECAR_INBOUND, listener: {portNumber: 8081}}
    patch: {operation: MERGE, value: {traffic_direction: OUTBOUND}}
  - applyTo: NETWORK_FILTER
    match: {context: SIDECAR_INBOUND, listener: {portNumber: 8081, filterChain: {filter: {name: "inbound|8081||/rbac-allow"}}}}
    patch: {operation: REMOVE}`, refused},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			for _, reason := range []string{"", "the old gateway needs it"} {
				set, problems := load(t, []txtar.File{{Name: "in.yaml", Data: []byte(strings.Replace(guarded, "REASON", reason, 1) + strings.TrimPrefix(tc.patches, "\n"))}})
				var told []policy.Problem
				for _, p := range build(t, set, problems).problems {
					if strings.HasPrefix(p.Code, "ENVOYFILTER_") {
						told = append(told, p)
					}
				}
				switch {
				case tc.code == "" && len(told) != 0, tc.code != "" && (len(told) != 1 || told[0].Code != tc.code):
					t.Fatalf("%q: %v", reason, told)
				case tc.code != "" && (told[0].Severity == policy.Warning) != (tc.code == weaker && reason != ""):
					t.Fatalf("%q: %v", reason, told)
				}
			}
		})
	}
}

// TestForeignClaims: an authorizer that is named by a short name is the Service, whatever a stranger claims, and its traffic stays its own.
func TestForeignClaims(t *testing.T) {
	t.Parallel()
	archive, err := txtar.ParseFile("testdata/foreign-claims.txtar")
	if err != nil {
		t.Fatal(err)
	}
	given, _ := split(archive)
	set, problems := load(t, given)
	r := build(t, set, problems)
	codes := map[string]int{}
	for _, p := range r.problems {
		if p.Severity == policy.Error || p.Code == "HOST_CLASH" {
			codes[p.Object+" "+p.Code]++
		}
	}
	for _, want := range []string{"ServiceEntry evil/pay HOST_CLASH", "ServiceEntry evil/vip ADDRESS_CLASH", "ServiceEntry aaa/stripe HOST_CLASH"} {
		if codes[want] == 0 {
			t.Errorf("%s is not told: %v", want, codes)
		}
	}
	asked := false
	for key, list := range r.parts {
		for _, m := range list {
			text := string(asYAML(t, m))
			asked = asked || key.Kind == compile.InboundPart && strings.Contains(text, "cluster_name: outbound|9000||authz.production.svc.cluster.local")
			if strings.Contains(text, "cluster_name: outbound|9000||authz.production\n") && key.Kind == compile.InboundPart {
				t.Errorf("%s %s asks the stranger", key, m.Name)
			}
			if m.Name == "10.90.0.1_80" || m.Name == "0.0.0.0_80" && strings.Contains(text, "aaa.evil.example") {
				t.Errorf("%s: listener %s", key, m.Name)
			}
			if strings.Contains(m.Name, "api.stripe.com") && strings.Contains(text, "127.0.66.1") {
				t.Errorf("%s: %s leads to the stranger", key, m.Name)
			}
		}
	}
	if !asked {
		t.Error("the authorizer is not asked")
	}
}
