package translate_test

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/source/file"
	"github.com/credence-mesh/credence/xds/resource"
)

// gatewayWorkload is a workload that the seeds' policies select.
const gatewayWorkload = `
apiVersion: v1
kind: Service
metadata: {name: api-gateway, namespace: production}
spec:
  selector: {app: api-gateway}
  ports: [{name: http, port: 8080}, {name: http-admin, port: 9090}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: api-gateway-1, namespace: production}
spec: {address: 127.0.1.1, serviceAccount: api-gateway, labels: {app: api-gateway}}
`

// TestSeeds compiles the seeds' own YAML, unchanged.
func TestSeeds(t *testing.T) {
	t.Parallel()
	seeds := filepath.Join("..", "..", "..", "shared", "seeds")
	if _, err := os.Stat(seeds); err != nil {
		t.Skip("the seeds are not beside this repository")
	}
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "workload.yaml"), []byte(gatewayWorkload), 0o600); err != nil {
		t.Fatal(err)
	}
	set, problems, err := file.Load(policy.DefaultMesh(), dir, filepath.Join(seeds, "istio"), filepath.Join(seeds, "ratelimit", "configmap.yaml"))
	if err != nil {
		t.Fatal(err)
	}
	r := build(t, set, problems)
	w := r.workloads[0]
	var names []string
	for _, m := range r.of(w) {
		if m.Type == resource.ExtensionConfig {
			names = append(names, m.Name)
		}
	}
	for _, want := range []string{"local_ratelimit", "ratelimit", "buffer"} {
		if !strings.Contains(strings.Join(names, "\n")+"\n", "inbound|8080||/envoyfilter/production.") || !strings.Contains(strings.Join(names, "\n")+"\n", "/envoy.filters.http."+want+"\n") {
			t.Errorf("no %s among the extensions:\n%s", want, strings.Join(names, "\n"))
		}
	}
	codes := map[string]bool{}
	for _, p := range r.problems {
		codes[p.Code] = true
		if p.Severity == policy.Error {
			t.Errorf("%s", p)
		}
	}
	for _, want := range []string{"RATELIMIT_ACTIONS_GENERATED", "RATELIMIT_CLUSTER_UNDEFINED"} {
		if !codes[want] {
			t.Errorf("no problem %s", want)
		}
	}
	envoytest.Validate(t, bootstrap(t, r.of(w)))
}
