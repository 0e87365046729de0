package authz

import (
	"testing"

	"github.com/credence-mesh/credence/internal/policytest"
	"github.com/credence-mesh/credence/policy"
)

func serviceEntry(namespace, host, more string) string {
	return "\n---\nkind: ServiceEntry\nmetadata: {name: authz, namespace: " + namespace + "}\nspec: {hosts: [" + host + "], " + more +
		"ports: [{number: 9000, name: grpc, protocol: GRPC}], resolution: DNS}"
}

func k8sService(annotations string) string {
	return "\n---\nkind: Service\nmetadata: {name: authz, namespace: production" + annotations + "}\nspec: {selector: {app: a}, ports: [{name: grpc, port: 9000}]}"
}

// Which service a provider is, whatever others claim. An empty host: nobody is asked, and what the policy covers is denied.
func TestProvider(t *testing.T) {
	t.Parallel()
	const full = "authz.production.svc.cluster.local"
	for _, tc := range []struct {
		name, docs, service, second string
		host, namespace             string
	}{
		{name: "name.namespace", docs: k8sService(""), service: "authz.production", host: full, namespace: "production"},
		{name: "name.namespace.svc", docs: k8sService(""), service: "authz.production.svc", host: full, namespace: "production"},
		{name: "the full name", docs: k8sService(""), service: full, host: full, namespace: "production"},
		{name: "in capitals", docs: k8sService(""), service: "Authz.Production", host: full, namespace: "production"},
		{name: "namespace/name", docs: k8sService(""), service: "production/authz", host: full, namespace: "production"},
		{name: "namespace/full name", docs: k8sService(""), service: "production/" + full, host: full, namespace: "production"},
		{name: "a stranger claims the short name", docs: k8sService("") + serviceEntry("evil", "authz.production", ""), service: "authz.production", host: full, namespace: "production"},
		{name: "a stranger claims the full name", docs: k8sService("") + serviceEntry("evil", full, ""), service: "authz.production", host: full, namespace: "production"},
		{name: "a stranger alone", docs: serviceEntry("evil", "authz.production", ""), service: "authz.production"},
		{name: "a ServiceEntry beside the workload is no authority of the mesh", docs: serviceEntry("production", "authz.example", ""), service: "authz.example"},
		{name: "a ServiceEntry of the root namespace", docs: serviceEntry("istio-system", "authz.example", ""), service: "authz.example", host: "authz.example", namespace: "istio-system"},
		{name: "a ServiceEntry of the namespace that is named", docs: serviceEntry("infra", "authz.example", "") + serviceEntry("evil", "authz.example", ""), service: "infra/authz.example", host: "authz.example", namespace: "infra"},
		{name: "a Service of another namespace than is named", docs: k8sService("") + serviceEntry("evil", full, ""), service: "evil/" + full},
		{name: "nothing", service: "authz.production"},
		{name: "a bare name", docs: k8sService(""), service: "authz"},
		{name: "a wildcard", docs: serviceEntry("istio-system", "'*.example'", ""), service: "*.example"},
		{name: "not exported", docs: serviceEntry("infra", "authz.example", "exportTo: ['.'], "), service: "infra/authz.example"},
		{name: "exported", docs: serviceEntry("infra", "authz.example", "exportTo: [production], "), service: "infra/authz.example", host: "authz.example", namespace: "infra"},
		{name: "a Service that is not exported", docs: k8sService(", annotations: {networking.istio.io/exportTo: other}"), service: "authz.production"},
		{name: "two providers mean one host in two namespaces", docs: serviceEntry("infra", "authz.example", "") + serviceEntry("other", "authz.example", ""), service: "infra/authz.example", second: "other/authz.example"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			mesh := policy.DefaultMesh()
			mesh.ExtensionProviders = []policy.ExtensionProvider{{Name: "ours", EnvoyExtAuthzGRPC: &policy.ExtAuthzGRPC{Service: tc.service, Port: 9000}}}
			if tc.second != "" {
				mesh.ExtensionProviders = append(mesh.ExtensionProviders, policy.ExtensionProvider{Name: "second", EnvoyExtAuthzGRPC: &policy.ExtAuthzGRPC{Service: tc.second, Port: 9000}})
			}
			docs := "kind: WorkloadEntry\nmetadata: {name: gw, namespace: production, labels: {app: api-gateway}}\nspec: {address: 127.0.0.1}"
			set := policytest.In(t, mesh, docs+tc.docs+ap("a", "{action: CUSTOM, provider: {name: ours}, rules: [{}]}"))
			got, problems := For(set, policytest.Workload(t, set, "production", "gw"), 8080, HTTP)
			if tc.host == "" {
				if len(got.Custom) != 0 || len(got.Deny) != 1 || len(problems) != 1 || problems[0].Code != "AUTHZ_PROVIDER_UNRESOLVED" || problems[0].Severity != policy.Error {
					t.Fatalf("%+v %v", got, problems)
				}
				return
			}
			if len(problems) != 0 || len(got.Custom) != 1 || got.Custom[0].Authorizer.Cluster() != "outbound|9000||"+tc.host || got.Custom[0].Authorizer.Namespace != tc.namespace {
				t.Fatalf("%+v %v", got, problems)
			}
			if owner := Owners(set)[tc.host]; owner != tc.namespace {
				t.Errorf("owner %q", owner)
			}
		})
	}
}
