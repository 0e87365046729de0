package main

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/source/file"
	"github.com/credence-mesh/credence/snapshot"
	"github.com/credence-mesh/credence/xds/translate"
)

const grantWorkloads = `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: app-1, namespace: shop}
spec: {address: 127.0.1.1, serviceAccount: app, labels: {app: app}, ports: {http: 8080}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: other-1, namespace: shop}
spec: {address: 127.0.1.2, serviceAccount: other, labels: {app: other}, ports: {http: 8080}}
`

const grantAsks = grantWorkloads + `---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: opa, namespace: shop}
spec:
  selector: {matchLabels: {app: app}}
  action: CUSTOM
  provider: {name: opa}
  rules: [{to: [{operation: {paths: ["/tenants/*"]}}]}]
---
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: filters, namespace: shop}
spec:
  workloadSelector: {labels: {app: app}}
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND, listener: {filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.ratelimit
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
          domain: shop
          rate_limit_service: {grpc_service: {envoy_grpc: {cluster_name: rate_limit_cluster}}, transport_api_version: V3}
`

func written(t *testing.T, documents string) *policy.Set {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "in.yaml"), []byte(documents), 0o600); err != nil {
		t.Fatal(err)
	}
	set, _, err := file.Load(policy.DefaultMesh(), dir)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// What users write decides who may ask, also before any proxy has subscribed; what they take away may be asked until the drain ends.
func TestGrants(t *testing.T) {
	t.Parallel()
	p := snapshot.New(translate.NewBuilder())
	p.Put(written(t, grantAsks), nil)
	done := make(chan error, 1)
	go func() { done <- p.Run(t.Context()) }()
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	<-p.Ready()
	g, ctx := newGrants(p), t.Context()
	start := time.Now()
	g.now = func() time.Time { return start }
	app, other, nobody := identity.Workload{Namespace: "shop", Name: "app-1"}, identity.Workload{Namespace: "shop", Name: "other-1"}, identity.Workload{Namespace: "shop", Name: "no"}
	for _, c := range []struct {
		name string
		got  bool
		want bool
	}{
		{"the domain of its filter", g.limits(ctx, app, "shop"), true},
		{"another domain", g.limits(ctx, app, "else"), false},
		{"the decision of its policy", g.decides(ctx, app, ""), true},
		{"another decision", g.decides(ctx, app, "platform/authz/allow"), false},
		{"a workload without the filter", g.limits(ctx, other, "shop"), false},
		{"a workload without the policy", g.decides(ctx, other, ""), false},
		{"no workload, domain", g.limits(ctx, nobody, "shop"), false},
		{"no workload, decision", g.decides(ctx, nobody, ""), false},
	} {
		if c.got != c.want {
			t.Errorf("%s: %v", c.name, c.got)
		}
	}
	changed := make(chan struct{}, 16)
	sub, ok := p.Subscribe(app, func() { changed <- struct{}{} })
	if !ok {
		t.Fatal("no workload")
	}
	defer sub.Close()
	old := sub.State().View
	p.Put(written(t, grantWorkloads), nil)
	for view := sub.State().View; view == nil || view == old; view = sub.State().View {
		<-changed
	}
	if !g.limits(ctx, app, "shop") || !g.decides(ctx, app, "") {
		t.Error("a listener that drains is refused")
	}
	g.now = func() time.Time { return start.Add(drainTime) }
	if g.limits(ctx, app, "shop") || g.decides(ctx, app, "") {
		t.Error("what was taken away may be asked for ever")
	}
}
