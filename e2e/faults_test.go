package e2e

import (
	"context"
	"fmt"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/credence-mesh/credence/internal/envoytest"
)

// startFaults runs a caller and a called whose policies ask the control plane's own decision services.
func startFaults(t *testing.T, settings, subnet string, more map[string]string) (*world, changing) {
	t.Helper()
	app, egress := envoytest.Backend(t, "called"), envoytest.FreePort(t)
	files := map[string]string{
		"strict.yaml": strict,
		"called.yaml": docs(workload("called", subnet+".2", envoytest.FreePort(t), httpPort(8080, app)), service("called", httpPort(8080, ""))),
		"caller.yaml": workload("caller", subnet+".1", egress, httpPort(8080, app)),
	}
	for name, text := range more {
		files[name] = text
	}
	w := start(t, settings, files)
	w.proxy("shop/called")
	w.proxy("shop/caller")
	c := changing{
		w: w, direct: dialCounted("https://"+subnet+".2:8080", w.svid(callerID), 4),
		sidecar: dialCounted(fmt.Sprintf("http://127.0.0.1:%d", egress), nil, 4),
	}
	c.verdict("/steady", 200)
	return w, c
}

// carry starts load by both ways.
func (c changing) carry() func() {
	c.direct.afresh()
	c.sidecar.afresh()
	a := c.w.steady("straight to the sidecar", ratePerWay, wants(c.direct.client, ask{path: "/steady"}, 200))
	b := c.w.steady("through two sidecars", ratePerWay, wants(c.sidecar.client, ask{host: "called.shop:8080", path: "/steady"}, 200))
	// A listener that came up again without its certificate would refuse these, and none of those that are open.
	fresh := dial(c.direct.base, c.direct.http.Transport.(*http.Transport).TLSClientConfig)
	fresh.http.Transport.(*http.Transport).DisableKeepAlives = true
	d := c.w.steady("by a new connection each", 20, wants(fresh, ask{path: "/steady"}, 200))
	return func() {
		c.w.t.Helper()
		d.flows(20)
		d.clean()
		for _, s := range []steady{a, b} {
			s.flows(ratePerWay)
			s.clean()
		}
		if n, m := c.direct.opened.Load(), c.sidecar.opened.Load(); n > 4 || m > 4 {
			c.w.t.Errorf("connections were closed: %d and %d opened for 4 places each", n, m)
		}
	}
}

// restart starts the control plane again on the same addresses and state.
func (w *world) restart() {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 30*time.Second)
	defer cancel()
	if err := w.StartServer(ctx); err != nil {
		w.t.Fatal(err)
	}
}

// TestControlPlaneFaults takes the control plane away in several ways: what was in force stays in force, nothing is lost, nothing opens.
func TestControlPlaneFaults(t *testing.T) {
	t.Parallel()
	w, c := startFaults(t, "", "127.0.76", nil)
	t.Run("a filter comes and goes", func(t *testing.T) { c.in(t).filters(5) })
	t.Run("Envoy refuses something", func(t *testing.T) { c.in(t).refuses() })
	t.Run("it stops and comes back", func(t *testing.T) { c.in(t).stops() })
	t.Run("it is killed again and again under churn", func(t *testing.T) { c.in(t).killed(5) })
	t.Run("an Envoy starts while it is away", func(t *testing.T) { c.in(t).startsWithout() })
	t.Run("a proxy is asked to stop", func(t *testing.T) { c.in(t).drains() })
	w.quiet()
}

// filters adds and removes an HTTP filter, which changes the listener: connections are asked to move to the new one, and no request is lost on
// the way, also not on those that have not moved yet.
func (c changing) filters(rounds int) {
	limited := func(want bool) {
		c.w.t.Helper()
		c.w.until(fmt.Sprintf("the limit to be in force: %t", want), func() (bool, error) {
			a := c.direct.do(c.w.ctx, ask{path: "/steady"})
			return (a.header.Get("X-Ratelimit-Limit") != "") == want, a.err
		})
	}
	a := c.w.steady("straight to the sidecar", 3*ratePerWay, wants(c.direct.client, ask{path: "/steady"}, 200))
	b := c.w.steady("through two sidecars", 3*ratePerWay, wants(c.sidecar.client, ask{host: "called.shop:8080", path: "/steady"}, 200))
	for range rounds {
		c.w.write("filter.yaml", fmt.Sprintf(localLimit, "60s"))
		limited(true)
		c.w.remove("filter.yaml")
		limited(false)
	}
	for _, s := range []steady{a, b} {
		s.flows(ratePerWay)
		s.clean()
	}
}

// refuses: what only Envoy can find wrong is told of with the object that it came from, and withheld alone; other edits go on.
func (c changing) refuses() {
	c.w.write("filter.yaml", fmt.Sprintf(localLimit, "60s"))
	c.w.until("the limit to be in force", func() (bool, error) {
		a := c.direct.do(c.w.ctx, ask{path: "/steady"})
		return a.header.Get("X-Ratelimit-Limit") != "", a.err
	})
	c.w.write("filter.yaml", fmt.Sprintf(localLimit, "0.001s"))
	done := c.carry()
	c.w.until("the refusal to be told", func() (bool, error) {
		out, err := c.w.Run(c.w.ctx, "status", "--admin-addr", c.w.Admin)
		return strings.Contains(out, "EnvoyFilter shop/too-fast") && strings.Contains(out, "filter.yaml:"), fmt.Errorf("%s (%w)", out, err)
	})
	c.w.write("policy.yaml", denyPaths("guard", "called", "/guarded"))
	c.verdict("/guarded", 403)
	c.w.remove("policy.yaml")
	c.verdict("/guarded", 200)
	done()
	c.w.remove("filter.yaml")
	c.w.calm()
	c.w.until("the proxy to be in step", c.w.inStep("shop/called"))
}

// localLimit is a limit that nobody meets. Envoy refuses a fill interval under 50 ms.
const localLimit = `apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: too-fast, namespace: shop}
spec:
  workloadSelector: {labels: {app: called}}
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND, listener: {portNumber: 8080, filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.local_ratelimit
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.local_ratelimit.v3.LocalRateLimit
          stat_prefix: limit
          token_bucket: {max_tokens: 1000000, tokens_per_fill: 1000000, fill_interval: %s}
          filter_enabled: {default_value: {numerator: 100, denominator: HUNDRED}}
          filter_enforced: {default_value: {numerator: 100, denominator: HUNDRED}}
          enable_x_ratelimit_headers: DRAFT_VERSION_03
`

func (c changing) stops() {
	c.w.write("policy.yaml", denyPaths("guard", "called", "/guarded"))
	c.verdict("/guarded", 403)
	done := c.carry()
	c.w.Server().Stop(10 * time.Second)
	c.w.write("policy.yaml", denyPaths("guard", "called", "/while-away"))
	for range 50 { // both verdicts stand for as long as nobody says otherwise
		c.w.expect(c.direct.client, ask{path: "/guarded"}, 403)
		c.w.expect(c.sidecar.client, ask{host: "called.shop:8080", path: "/while-away"}, 200)
	}
	c.w.restart()
	c.verdict("/while-away", 403)
	c.verdict("/guarded", 200)
	done()
}

// killed ends the control plane as a crash would, in the middle of edits.
func (c changing) killed(rounds int) {
	done := c.carry()
	stop := make(chan struct{})
	var churn sync.WaitGroup
	churn.Go(func() {
		tick := time.NewTicker(30 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ; i++ {
			select {
			case <-stop:
				return
			case <-tick.C:
				c.w.write("churn.yaml", denyPaths("churn", "called", fmt.Sprintf("/churn-%d", i)))
			}
		}
	})
	for i := range rounds {
		kept := fmt.Sprintf("/kept-%d", i)
		c.w.write(fmt.Sprintf("kept-%d.yaml", i), denyPaths(fmt.Sprintf("kept-%d", i), "called", kept))
		c.verdict(kept, 403)
		c.w.Server().Kill()
		c.w.restart()
	}
	close(stop)
	churn.Wait()
	c.w.write("churn.yaml", denyPaths("churn", "called", "/churn-last"))
	c.verdict("/churn-last", 403)
	for i := range rounds {
		c.w.expect(c.direct.client, ask{path: fmt.Sprintf("/kept-%d", i)}, 403)
	}
	c.w.until("both proxies to be in step", c.w.inStep("shop/called", "shop/caller"))
	done()
}

// inStep tells whether proxies are connected and have acknowledged all that they should have.
func (w *world) inStep(workloads ...string) func() (bool, error) {
	return func() (bool, error) {
		s, err := w.status()
		in := map[string]bool{}
		for _, p := range s.Proxies {
			in[p.Workload] = p.InStep
		}
		for _, name := range workloads {
			if !in[name] {
				return false, fmt.Errorf("%s is not in step: %+v (%v)", name, s.Proxies, err)
			}
		}
		return true, nil
	}
}

// startsWithout: an Envoy that starts without a control plane is not ready and takes nobody in; with the control plane back, it is guarded from
// its first answer.
func (c changing) startsWithout() {
	c.w.write("policy.yaml", denyPaths("guard", "called", "/guarded"))
	c.verdict("/guarded", 403)
	c.w.Server().Kill()
	old := c.w.procs["shop/called"]
	old.Kill()
	ctx, cancel := context.WithTimeout(c.w.ctx, 3*time.Second)
	defer cancel()
	p, err := c.w.StartProxy(ctx, "shop/called")
	c.w.procs["shop/called"] = p
	if err == nil {
		c.w.t.Error("the proxy says that it is ready")
	}
	c.w.until("Envoy to be up", func() (bool, error) {
		_, err := c.w.admin("shop/called", "/server_info")
		return err == nil, err
	})
	if _, err := c.w.admin("shop/called", "/ready"); err == nil {
		c.w.t.Error("Envoy says that it is ready")
	}
	for _, path := range []string{"/steady", "/guarded"} {
		if a := c.direct.do(c.w.ctx, ask{path: path}); a.err == nil {
			c.w.t.Errorf("%s was answered %d without a configuration", path, a.status)
		}
	}
	var mu sync.Mutex
	seen := map[int]int{}
	probe := c.w.steady("probe", 500, func(ctx context.Context) error {
		if a := c.direct.do(ctx, ask{path: "/guarded"}); a.err == nil {
			mu.Lock()
			seen[a.status]++
			mu.Unlock()
		}
		return nil
	})
	c.w.restart()
	ready, cancel := context.WithTimeout(c.w.ctx, 30*time.Second)
	defer cancel()
	if _, err := p.Line(ready, "envoy is ready"); err != nil {
		c.w.t.Fatal(err)
	}
	c.verdict("/guarded", 403)
	probe.Stop()
	mu.Lock()
	defer mu.Unlock()
	if seen[200] > 0 || seen[403] == 0 {
		c.w.t.Errorf("the guarded path answered %v", seen)
	}
}

// drains: what is under way completes, then the proxy ends; the rest of the mesh is told nothing wrong.
func (c changing) drains() {
	slow := make(chan answer, 1)
	go func() { slow <- c.direct.do(c.w.ctx, ask{path: "/steady?delay=1500ms"}) }()
	c.w.until("the request to be under way", func() (bool, error) {
		return c.w.stats("shop/called", `^http\.[^a].*\.downstream_rq_active$`) == 1, nil // all but the admin interface
	})
	p := c.w.procs["shop/called"]
	ended := make(chan struct{})
	go func() { p.Stop(20 * time.Second); close(ended) }()
	if a := <-slow; a.err != nil || a.status != 200 {
		c.w.t.Errorf("the request that was under way: %d %s (%v)", a.status, a.body, a.err)
	}
	select {
	case <-ended:
	case <-time.After(20 * time.Second):
		c.w.t.Error("the proxy does not end")
	}
	c.w.until("nobody to listen", func() (bool, error) { return c.direct.do(c.w.ctx, ask{path: "/steady"}).err != nil, nil })
	c.w.proxy("shop/called")
	c.w.answers(c.direct.client, ask{path: "/steady"}, 200)
}

// TestRotation: SVIDs and channel credentials that live for seconds are replaced under load, again and again, and nobody notices.
func TestRotation(t *testing.T) {
	t.Parallel()
	w, c := startFaults(t, "identity: {svidTTL: 10s, credentialTTL: 1m}\n", "127.0.77", nil)
	t.Run("SVIDs", func(t *testing.T) { c.in(t).rotates(3) })
	t.Run("channel credentials", func(t *testing.T) { c.in(t).renews() })
	w.quiet()
}

func (c changing) rotates(times int) {
	done := c.carry()
	leaf := c.w.leaf("127.0.77.2:8080", "")
	for range times {
		last := leaf
		c.w.until("a new SVID", func() (bool, error) {
			leaf = c.w.leaf("127.0.77.2:8080", "")
			return leaf.SerialNumber.Cmp(last.SerialNumber) != 0, nil
		})
		if left := time.Until(last.NotAfter); left <= 0 {
			c.w.t.Errorf("the SVID was replaced %s after its end", -left)
		}
		if len(leaf.URIs) != 1 || leaf.URIs[0].String() != "spiffe://cluster.local/ns/shop/sa/called" {
			c.w.t.Errorf("the new SVID is of %v", leaf.URIs)
		}
		fresh := dial("https://127.0.77.2:8080", c.w.svid(callerID))
		c.w.expect(fresh, ask{path: "/steady"}, 200)
		fresh.http.CloseIdleConnections()
	}
	done()
}

// renews waits for a second channel credential, and has the proxy use it.
func (c changing) renews() {
	first := c.w.channelCredential("shop/called").Certificate[0]
	c.w.within(time.Minute, "a new channel credential", func() (bool, error) {
		return string(c.w.channelCredential("shop/called").Certificate[0]) != string(first), nil
	})
	c.w.Server().Stop(10 * time.Second)
	c.w.restart()
	c.w.until("both proxies to be in step", c.w.inStep("shop/called", "shop/caller"))
	c.w.write("policy.yaml", denyPaths("guard", "called", "/guarded"))
	c.verdict("/guarded", 403)
}

// TestDecisionFaults: the embedded OPA and limiter live in the control plane; without it what OPA guards is refused, and limits do as their
// failure_mode_deny says.
func TestDecisionFaults(t *testing.T) {
	t.Parallel()
	limit := func(name string, port int, deny bool) string {
		return fmt.Sprintf(`apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: %[1]s, namespace: shop}
spec:
  workloadSelector: {labels: {app: called}}
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND, listener: {portNumber: %[2]d, filterChain: {filter: {name: envoy.filters.network.http_connection_manager}}}}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.ratelimit
        typed_config:
          "@type": type.googleapis.com/envoy.extensions.filters.http.ratelimit.v3.RateLimit
          domain: shop
          failure_mode_deny: %[3]t
          rate_limit_service: {grpc_service: {envoy_grpc: {cluster_name: rate_limit_cluster}}, transport_api_version: V3}
`, name, port, deny)
	}
	app := envoytest.Backend(t, "called")
	ports := []port{httpPort(8080, app), httpPort(8081, app), httpPort(8082, app)}
	w := start(t, "", map[string]string{
		"strict.yaml": strict,
		"called.yaml": docs(workload("called", "127.0.78.2", envoytest.FreePort(t), ports...), service("called", ports...)),
		"opa.yaml":    customOPA,
		"policy.rego": "package envoy.authz\n\nimport rego.v1\n\ndefault allow := false\n\nallow if startswith(input.path, \"/opa/yes\")\n",
		"limits.yaml": docs("apiVersion: v1\nkind: ConfigMap\nmetadata: {name: limits, namespace: shop}\ndata:\n  config.yaml: |\n    domain: shop\n    descriptors:\n    - {key: generic_key, value: default, rate_limit: {unit: hour, requests_per_unit: 100000}}\n",
			limit("closed", 8081, true), limit("open", 8082, false)),
	})
	w.proxy("shop/called")
	me := w.svid(callerID)
	at := func(port int) *client { return dial(fmt.Sprintf("https://127.0.78.2:%d", port), me) }
	opa, closed, open := at(8080), at(8081), at(8082)
	check := func(yes, limitClosed int) {
		t.Helper()
		w.answers(opa, ask{path: "/opa/yes"}, yes)
		w.expect(opa, ask{path: "/opa/no"}, 403)
		w.expect(opa, ask{path: "/free"}, 200)
		w.answers(closed, ask{path: "/x"}, limitClosed)
		w.answers(open, ask{path: "/x"}, 200)
	}
	check(200, 200)
	w.Server().Kill()
	check(403, 500)
	w.restart()
	check(200, 200)
	w.quiet()
}

const customOPA = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: opa, namespace: shop}
spec:
  selector: {matchLabels: {app: called}}
  action: CUSTOM
  provider: {name: opa}
  rules: [{to: [{operation: {ports: ["8080"], paths: ["/opa/*"]}}]}]
`
