package e2e

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// steps are attacks that take more than one request. They change the policies of the gateway, so they come last.
func (x *arena) steps(t *testing.T) {
	w, d := x.in(t), x.doors[0]
	status := func(raw string) int {
		got := x.send(t, d, raw, attackPatience)
		for _, q := range d.victim.take() {
			if strings.Contains(strings.ToLower(q.head), evil) {
				t.Errorf("something made up arrived: %q", q.head)
			}
		}
		if len(got) == 0 {
			return 0
		}
		return got[0]
	}
	becomes := func(what, raw string, want int) {
		w.until(what, func() (bool, error) {
			got := status(raw)
			return got == want, fmt.Errorf("%d, want %d", got, want)
		})
	}
	with := func(s smith, token string) string { return get("/tenants/t1/x", "Authorization: Bearer "+token) }
	t.Run("A14 keys at a cloud's metadata service are not fetched", func(*testing.T) { w.complains("JWKS_ADDRESS_REFUSED") })
	t.Run("B32 another ALLOW rule widens nothing", func(t *testing.T) {
		w.write("more.yaml", authorization("more", "edge", "ALLOW", `[{to: [{operation: {paths: ["/more"]}}]}]`))
		becomes("the rule", get("/more"), 200)
		for _, p := range []string{"/admin", "/tenants/t1", "/public/private", "/more/x"} {
			if got := status(get(p)); got != 403 {
				t.Errorf("%s: %d", p, got)
			}
		}
		w.write("more.yaml", authorization("more", "edge", "ALLOW", `[{to: [{operation: {paths: ["/public/private", "/more"]}}]}]`))
		w.write("mark.yaml", authorization("mark", "edge", "ALLOW", `[{to: [{operation: {paths: ["/mark"]}}]}]`))
		becomes("the second rule", get("/mark"), 200)
		if got := status(get("/public/private")); got != 403 {
			t.Errorf("an ALLOW rule beats a DENY rule: %d", got)
		}
	})
	t.Run("A15 keys that were taken away open nothing", func(t *testing.T) {
		fresh := newSmith(t)
		old, err := x.b.JWKS()
		if err != nil {
			t.Fatal(err)
		}
		token := fresh.sign(t, usualHeader, claims(exp(time.Hour)))
		if got := status(with(fresh, token)); got != 401 {
			t.Errorf("before its key is known: %d", got)
		}
		w.write("policy-edge.yaml", fmt.Sprintf(attackPolicies, "edge", fresh.jwks(t), old))
		becomes("the new key", with(fresh, token), 200)
		if got := status(with(x.a, x.good)); got != 401 {
			t.Errorf("a token of the old key: %d", got)
		}
	})
	t.Run("B31 a policy without rules closes, and a broken one opens nothing", func(t *testing.T) {
		w.write("closed.yaml", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nothing, namespace: shop}\nspec: {selector: {matchLabels: {app: edge}}, action: DENY, rules: [{}]}\n")
		becomes("DENY of everything", get("/public/x"), 403)
		w.write("closed.yaml", "apiVersion: security.istio.io/v1\nkind: AuthorizationPolicy\nmetadata: {name: nothing, namespace: shop}\nspec: {selector: {matchLabels: {app: edge}}, action: DENY, rules: 7}\n")
		w.write("mark.yaml", authorization("mark", "called", "ALLOW", `[{to: [{operation: {paths: ["/mark"]}}]}]`))
		w.until("what comes after the broken one", func() (bool, error) {
			got := x.send(t, x.doors[1], get("/mark"), attackPatience)
			return slices.Equal(got, []int{200}), nil
		})
		if got := status(get("/public/x")); got != 403 {
			t.Errorf("a policy that broke opened what its last good version closed: %d", got)
		}
	})
	t.Run("B34 a route is not served before its guard", func(t *testing.T) {
		if got := status(get("/admin")); got != 403 {
			t.Errorf("got %d", got)
		}
	})
}
