package e2e

import (
	"fmt"
	"testing"
	"time"

	"github.com/credence-mesh/credence/internal/envoytest"
)

// TestLargeMesh starts with ten thousand services and a thousand policies: it becomes ready, and a proxy gets what concerns it, in good time
// even on a slow machine. What it costs to the millisecond is measured in bench/.
func TestLargeMesh(t *testing.T) {
	t.Parallel()
	const services, policies, perFile = 10_000, 1_000, 500
	app, egress := envoytest.Backend(t, "called"), envoytest.FreePort(t)
	files := map[string]string{
		"strict.yaml": strict,
		"called.yaml": docs(workload("called", "127.0.80.2", envoytest.FreePort(t), httpPort(8080, app)), service("called", httpPort(8080, ""))),
		"caller.yaml": workload("caller", "127.0.80.1", egress, httpPort(8080, app)),
	}
	var all []string
	for i := range services {
		all = append(all, fmt.Sprintf("apiVersion: v1\nkind: Service\nmetadata: {name: service-%d, namespace: team-%d}\nspec:\n  clusterIP: 10.%d.%d.%d\n  selector: {app: service-%[1]d}\n  ports: [{name: http, port: 80, targetPort: 8080}]\n",
			i, i%100, i/65536, i/256%256, i%256))
		if len(all) == perFile {
			files[fmt.Sprintf("services/%d.yaml", i)] = docs(all...)
			all = nil
		}
	}
	for i := range policies {
		ns := "shop"
		if i%2 == 0 {
			ns = fmt.Sprintf("team-%d", i%100)
		}
		all = append(all, fmt.Sprintf("apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: policy-%d, namespace: %s}\nspec:\n  selector: {matchLabels: {app: called}}\n  action: DENY\n  rules: [{to: [{operation: {paths: [\"/closed-%[1]d\"]}}]}]\n", i, ns))
	}
	files["policies.yaml"] = docs(all...)
	begin := time.Now()
	w := start(t, "", files)
	t.Logf("ready after %s", time.Since(begin))
	begin = time.Now()
	w.proxy("shop/called")
	t.Logf("the first proxy is ready after %s", time.Since(begin))
	w.proxy("shop/caller")
	c := dial(fmt.Sprintf("http://127.0.0.1:%d", egress), nil)
	w.answers(c, ask{host: "called.shop:8080", path: "/x"}, 200)
	w.expect(c, ask{host: "called.shop:8080", path: "/closed-999"}, 403)
	w.expect(c, ask{host: "called.shop:8080", path: "/closed-998"}, 200) // another namespace's
	w.expect(c, ask{host: "service-9999.team-99", path: "/"}, 503)       // known, and nobody is behind it
	w.expect(c, ask{host: "service-10000.team-0", path: "/"}, 502)
	w.write("broken.yaml", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: broken, namespace: team-0}\nspec: {acton: DENY}\n")
	w.complains("UNKNOWN_FIELD") // one bad object among all: it alone is refused, and holds up nothing
	begin = time.Now()
	w.write("edit.yaml", denyPaths("edit", "called", "/edited"))
	w.answers(c, ask{host: "called.shop:8080", path: "/edited"}, 403)
	t.Logf("an edit holds after %s", time.Since(begin))
	w.remove("broken.yaml")
	w.calm()
}
