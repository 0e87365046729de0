package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/credence-mesh/credence/internal/envoytest"
)

// TestChanges edits a running mesh in every way that its users do, always under load on connections that are kept alive.
func TestChanges(t *testing.T) {
	t.Parallel()
	app := envoytest.Backend(t, "called")
	egress := envoytest.FreePort(t)
	w := start(t, "", map[string]string{
		"strict.yaml":   strict,
		"called.yaml":   docs(workload("called", "127.0.75.2", envoytest.FreePort(t), httpPort(8080, app)), service("called", httpPort(8080, ""))),
		"caller.yaml":   workload("caller", "127.0.75.1", egress, httpPort(8080, app)),
		"gateway.yaml":  gateway("127.0.75.5", "{name: http, port: 8080, protocol: HTTP}"),
		"route.yaml":    route("steady", "", "  hostnames: [steady.test]\n  rules: [{backendRefs: [{name: called, port: 8080}]}]\n"),
		"backends.yaml": backends(t, "one", "two"),
		"accounts.yaml": accounts(200),
	})
	for _, name := range []string{"called", "caller", "edge"} {
		w.proxy("shop/" + name)
	}
	c := changing{
		w: w, direct: dialCounted("https://127.0.75.2:8080", w.svid(callerID), 4),
		sidecar: dialCounted(fmt.Sprintf("http://127.0.0.1:%d", egress), nil, 4), gateway: dialCounted("http://127.0.75.5:8080", nil, 4),
	}
	w.answers(c.sidecar.client, ask{host: "called.shop:8080", path: "/steady"}, 200)
	w.answers(c.gateway.client, ask{host: "steady.test", path: "/steady"}, 200)
	t.Run("the directory goes away and comes back", func(t *testing.T) { c.in(t).vanishes() })
	t.Run("the first policy, an edit, the last policy", func(t *testing.T) { c.in(t).policies() })
	t.Run("the first token rule and the last", func(t *testing.T) { c.in(t).tokens() })
	t.Run("fifty edits in a row", func(t *testing.T) { c.in(t).edits(50) })
	t.Run("a route comes and goes together with its guard", func(t *testing.T) { c.in(t).guarded(25) })
	t.Run("services come and go", func(t *testing.T) { c.in(t).services(8) })
	t.Run("a route moves to a new service as the old one goes", func(t *testing.T) { c.in(t).moves(10) })
	t.Run("half-written and bad files", func(t *testing.T) { c.in(t).badFiles() })
}

// accounts are objects that change nothing: beside them what a test deletes is not most of the mesh, which would have to be confirmed.
func accounts(n int) string {
	var all []string
	for i := range n {
		all = append(all, fmt.Sprintf("apiVersion: v1\nkind: ServiceAccount\nmetadata: {name: account-%d, namespace: shop}\n", i))
	}
	return docs(all...)
}

// changing is a mesh under load by three ways: straight to the sidecar, through two sidecars, and through the gateway and a sidecar.
type changing struct {
	w                        *world
	direct, sidecar, gateway counted
}

func (c changing) in(t *testing.T) changing {
	c.w = c.w.in(t)
	return c
}

const ratePerWay = 60

// underLoad runs change while all three ways carry load, and wants no request failed and no connection closed.
func (c changing) underLoad(change func()) {
	c.w.t.Helper()
	ways := []struct {
		name string
		c    counted
		ask  ask
	}{
		{"straight to the sidecar", c.direct, ask{path: "/steady"}},
		{"through two sidecars", c.sidecar, ask{host: "called.shop:8080", path: "/steady"}},
		{"through the gateway", c.gateway, ask{host: "steady.test", path: "/steady"}},
	}
	var loads []steady
	for _, way := range ways {
		way.c.afresh()
		loads = append(loads, c.w.steady(way.name, ratePerWay, wants(way.c.client, way.ask, 200)))
	}
	for _, l := range loads {
		l.flows(1)
	}
	const closed = `^listener\.127\.0\.75\..*\.downstream_cx_destroy$`
	const drained = `^listener_manager\.(listener_modified|listener_removed|total_listeners_draining)$`
	before := map[string][2]int{}
	for _, p := range []string{"called", "edge"} {
		before[p] = [2]int{c.w.stats("shop/"+p, closed), c.w.stats("shop/"+p, drained)}
	}
	change()
	for _, l := range loads {
		l.flows(ratePerWay / 2)
		l.clean()
	}
	for i, way := range ways {
		if n := way.c.opened.Load(); n > 4 {
			c.w.t.Errorf("%s: connections were closed: %d opened for 4 places", ways[i].name, n)
		}
	}
	for p, n := range before {
		if now := c.w.stats("shop/"+p, closed); now != n[0] {
			c.w.t.Errorf("%s closed %d connections", p, now-n[0])
		}
		if now := c.w.stats("shop/"+p, drained); now != n[1] {
			c.w.t.Errorf("%s changed or drained %d listeners", p, now-n[1])
		}
	}
}

// verdict waits until a path has an answer on the connections that the load uses, by both ways.
func (c changing) verdict(path string, status int) {
	c.w.t.Helper()
	c.w.answers(c.direct.client, ask{path: path}, status)
	c.w.answers(c.sidecar.client, ask{host: "called.shop:8080", path: path}, status)
}

func (c changing) policies() {
	c.underLoad(func() {
		c.verdict("/guarded", 200)
		c.w.write("policy.yaml", denyPaths("guard", "called", "/guarded"))
		c.verdict("/guarded", 403)
		c.w.write("policy.yaml", denyPaths("guard", "called", "/other"))
		c.verdict("/guarded", 200)
		c.verdict("/other", 403)
		c.w.write("policy.yaml", docs(denyPaths("guard", "called", "/other"), authorization("open", "called", "ALLOW", `[{to: [{operation: {paths: ["/steady", "/other"]}}]}]`)))
		c.verdict("/guarded", 403) // no ALLOW names it
		c.verdict("/other", 403)   // DENY wins
		c.w.remove("policy.yaml")
		c.verdict("/guarded", 200)
		c.verdict("/other", 200)
	})
}

func (c changing) tokens() {
	i := envoytest.NewIssuer(c.w.t, "https://issuer.test")
	keys, err := i.JWKS()
	if err != nil {
		c.w.t.Fatal(err)
	}
	bad := ask{path: "/x", token: i.Sign(c.w.t, map[string]any{"sub": "u", "exp": time.Now().Add(-time.Hour).Unix()})}
	good := ask{path: "/x", token: i.Sign(c.w.t, map[string]any{"sub": "u"})}
	c.underLoad(func() {
		c.w.answers(c.direct.client, bad, 200)
		c.w.write("jwt.yaml", fmt.Sprintf(`apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec:
  selector: {matchLabels: {app: called}}
  jwtRules: [{issuer: "https://issuer.test", jwks: '%s'}]
`, keys))
		c.w.answers(c.direct.client, bad, 401)
		c.w.expect(c.direct.client, good, 200)
		c.w.remove("jwt.yaml")
		c.w.answers(c.direct.client, bad, 200)
	})
}

func (c changing) edits(n int) {
	c.underLoad(func() {
		for i := range n {
			c.w.write("policy.yaml", denyPaths("guard", "called", fmt.Sprintf("/edit-%d", i)))
			c.verdict(fmt.Sprintf("/edit-%d", i), 403)
			if i > 0 {
				c.w.expect(c.direct.client, ask{path: fmt.Sprintf("/edit-%d", i-1)}, 200)
			}
		}
		c.w.remove("policy.yaml")
		c.verdict(fmt.Sprintf("/edit-%d", n-1), 200)
	})
}

// guarded adds a route and its DENY in one edit, again and again, and asks for it every millisecond: it is absent or refused, never open.
func (c changing) guarded(rounds int) {
	probe := dialCounted("http://127.0.75.5:8080", nil, 16)
	for i := range rounds {
		host := fmt.Sprintf("guarded-%d.test", i)
		var absent, refused atomic.Int64
		s := c.w.steady("probe "+host, 1000, func(ctx context.Context) error {
			switch a := probe.do(ctx, ask{host: host, path: fmt.Sprintf("/guarded-%d", i)}); {
			case a.err != nil && errors.Is(ctx.Err(), context.Canceled):
			case a.err != nil:
				return a.err
			case a.status == 403:
				refused.Add(1)
			case a.status == 404:
				absent.Add(1)
			default:
				return fmt.Errorf("%s answered %d %s: it was reachable without its guard", host, a.status, a.body)
			}
			return nil
		})
		c.w.write("guarded.yaml", docs(
			route("guarded", "", "  hostnames: ["+host+"]\n  rules: [{backendRefs: [{name: one, port: 80}]}]\n"),
			denyPaths("guarded", "edge", fmt.Sprintf("/guarded-%d", i))))
		c.w.answers(c.gateway.client, ask{host: host, path: "/elsewhere"}, 200)
		c.w.until("the probe to be refused", func() (bool, error) { return refused.Load() > 3, nil })
		absent.Store(0)
		// The route goes first, then its guard.
		c.w.write("guarded.yaml", denyPaths("guarded", "edge", fmt.Sprintf("/guarded-%d", i)))
		c.w.answers(c.gateway.client, ask{host: host, path: "/elsewhere"}, 404)
		c.w.remove("guarded.yaml")
		c.w.until("the guard to be gone too", func() (bool, error) { return absent.Load() > 3, nil })
		s.clean()
	}
}

// services adds and removes twenty services and their routes while others carry load.
func (c changing) services(rounds int) {
	c.underLoad(func() {
		for range rounds {
			var all []string
			for i := range 20 {
				name := fmt.Sprintf("extra-%d", i)
				all = append(all, outside("shop", name, "127.0.0.1:9"), route(name, "", fmt.Sprintf("  hostnames: [%[1]s.test]\n  rules: [{backendRefs: [{name: %[1]s, port: 80}]}]\n", name)))
			}
			c.w.write("extra.yaml", docs(all...))
			c.w.answers(c.gateway.client, ask{host: "extra-19.test", path: "/"}, 503) // nobody listens there, but it is known
			c.w.answers(c.sidecar.client, ask{host: "extra-19.shop", path: "/"}, 503)
			c.w.write("extra.yaml", "# none\n")
			c.w.answers(c.gateway.client, ask{host: "extra-19.test", path: "/"}, 404)
			c.w.answers(c.sidecar.client, ask{host: "extra-19.shop", path: "/"}, 502)
		}
	})
}

// moves makes a service, moves a route under load to it, and removes the one that it used before, in one edit: no request is lost.
func (c changing) moves(rounds int) {
	endpoint := envoytest.Backend(c.w.t, "moving")
	at := func(i int) string {
		name := fmt.Sprintf("moving-%d", i)
		return docs(outside("shop", name, endpoint), route("moving", "", "  hostnames: [moving.test]\n  rules:\n  - filters: [{type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-at, value: "+name+"}]}}]\n    backendRefs: [{name: "+name+", port: 80}]\n"))
	}
	c.w.write("moving.yaml", at(0))
	where := ask{host: "moving.test", path: "/"}
	c.w.answers(c.gateway.client, where, 200)
	s := c.w.steady("the moving route", 200, wants(c.gateway.client, where, 200))
	c.underLoad(func() {
		for i := 1; i <= rounds; i++ {
			c.w.write("moving.yaml", at(i))
			c.w.until(fmt.Sprintf("move %d", i), func() (bool, error) {
				a := c.gateway.do(c.w.ctx, where)
				return a.header.Get("X-At") == fmt.Sprintf("moving-%d", i), a.err
			})
			s.flows(20)
		}
	})
	s.clean()
	c.w.remove("moving.yaml")
	c.w.answers(c.gateway.client, where, 404)
}

// badFiles: what was good stays in force, and what is good beside it comes into force.
func (c changing) badFiles() {
	good := denyPaths("guard", "called", "/guarded")
	c.underLoad(func() {
		c.w.write("policy.yaml", good)
		c.verdict("/guarded", 403)
		// An editor that does not write by rename leaves, for a while, the first half of a file.
		if err := os.WriteFile(filepath.Join(c.w.Config, "policy.yaml"), []byte(good[:len(good)-20]), 0o600); err != nil {
			c.w.t.Fatal(err)
		}
		p := c.w.complains("LAST_GOOD_IN_FORCE")
		if !strings.HasSuffix(p.File, "policy.yaml") {
			c.w.t.Errorf("the problem is of %s", p.File)
		}
		c.verdict("/guarded", 403)
		c.w.write("policy.yaml", docs(
			denyPaths("first", "called", "/first"),
			strings.Replace(denyPaths("guard", "called", "/guarded-2"), "action:", "acton:", 1),
			denyPaths("third", "called", "/third")))
		c.verdict("/first", 403)
		c.verdict("/third", 403)
		c.verdict("/guarded", 403) // of the refused object the last good version is in force
		c.w.expect(c.direct.client, ask{path: "/guarded-2"}, 200)
		p = c.w.complains("UNKNOWN_FIELD")
		if p.Line == 0 || p.Object != "AuthorizationPolicy shop/guard" || !strings.Contains(p.Says, "acton") {
			c.w.t.Errorf("the problem says %+v", p)
		}
		c.w.write("policy.yaml", denyPaths("guard", "called", "/guarded-2"))
		c.verdict("/guarded-2", 403)
		c.verdict("/guarded", 200)
		c.w.remove("policy.yaml")
		c.verdict("/guarded-2", 200)
	})
	c.w.quiet()
}

// vanishes takes the whole directory away, as an unmounted volume would, and brings it back.
func (c changing) vanishes() {
	c.w.write("policy.yaml", denyPaths("guard", "called", "/guarded"))
	c.verdict("/guarded", 403)
	away := c.w.Config + ".away"
	c.underLoad(func() {
		if err := os.Rename(c.w.Config, away); err != nil {
			c.w.t.Fatal(err)
		}
		c.w.complains("DIRECTORY_MISSING")
		c.verdict("/guarded", 403)
		if err := os.Rename(away, c.w.Config); err != nil {
			c.w.t.Fatal(err)
		}
		c.w.write("policy.yaml", denyPaths("guard", "called", "/guarded-again"))
		c.verdict("/guarded-again", 403)
		c.verdict("/guarded", 200)
		// The same by an empty directory in its place: nothing is deleted for want of files.
		if err := os.Rename(c.w.Config, away); err != nil {
			c.w.t.Fatal(err)
		}
		if err := os.Mkdir(c.w.Config, 0o700); err != nil {
			c.w.t.Fatal(err)
		}
		c.w.complains("MASS_DELETE_HELD")
		c.verdict("/guarded-again", 403)
		if err := os.Remove(c.w.Config); err != nil {
			c.w.t.Fatal(err)
		}
		if err := os.Rename(away, c.w.Config); err != nil {
			c.w.t.Fatal(err)
		}
		c.w.calm()
		c.w.remove("policy.yaml")
		c.verdict("/guarded-again", 200)
	})
	c.w.calm()
}
