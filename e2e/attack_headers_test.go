package e2e

import (
	"fmt"
	"strings"
	"testing"
)

// verified is the headers that only we may fill.
func verified() []string {
	return []string{"x-tenant-id", "x-user-roles", "x-jwt-payload", "x-b-tenant"}
}

// told is the headers by which others tell who a client is, or where it wants to go.
func told() []string {
	return []string{
		"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-server", "x-real-ip", "true-client-ip", "x-client-ip",
		"x-forwarded-user", "x-forwarded-email", "x-forwarded-groups", "x-forwarded-preferred-username", "x-forwarded-access-token", "x-auth-request-user", "x-auth-request-email",
		"remote-user", "x-remote-user", "x-remote-group", "x-webauth-user", "x-ssl-client-cert", "x-ssl-client-dn", "x-client-cert", "x-client-dn", "x-forwarded-tls-client-cert",
		"x-original-url", "x-rewrite-url", "x-original-uri", "x-original-host",
	}
}

func ordersToEnvoy() []string {
	return []string{
		"x-envoy-original-path", "x-envoy-original-host", "x-envoy-internal", "x-envoy-external-address", "x-envoy-decorator-operation", "x-envoy-peer-metadata", "x-envoy-peer-metadata-id",
		"x-envoy-upstream-rq-timeout-ms", "x-envoy-retry-on", "x-envoy-max-retries", "x-envoy-force-trace", "x-envoy-ip-tags", "x-envoy-attempt-count",
	}
}

// headerAttacks are headers that say what is not so.
func headerAttacks(x *arena) []vector {
	var out []vector
	add := func(v vector) { out = append(out, v) }
	auth := "Authorization: Bearer " + x.good
	for _, h := range verified() {
		add(vector{name: h + " without a token", threat: "A2", raw: get("/public/h", h+": evil-1"), status: []int{200}, arrives: "/public/h"})
		add(vector{name: h + " on a path of its own", threat: "A4", raw: get("/tenants/t1/x", h+": evil-t1"), status: []int{403}})
		add(vector{name: h + " beside a token", threat: "A1", raw: get("/tenants/t1/x", auth, h+": evil-1"), status: []int{200}, arrives: "/tenants/t1/x", check: tenantIs("t1")})
		add(vector{name: h + " twice beside a token", threat: "A18", raw: get("/tenants/t1/x", h+": evil-1", auth, strings.ToUpper(h)+": evil-2"), status: []int{200}, arrives: "/tenants/t1/x", check: tenantIs("t1")})
		add(vector{name: strings.ReplaceAll(h, "-", "_"), threat: "A18", raw: get("/public/h", strings.ReplaceAll(h, "-", "_")+": evil-1"), status: []int{400}})
		add(vector{name: strings.Replace(h, "-", "_", 1) + " beside a token", threat: "A18", raw: get("/tenants/t1/x", auth, strings.Replace(h, "-", "_", 1)+": evil-1"), status: []int{400}})
	}
	add(vector{name: "of provider B with a token of A", threat: "A3", raw: get("/tenants/t1/x", auth, "x-b-tenant: evil-b"), status: []int{200}, arrives: "/tenants/t1/x"})
	add(vector{name: "a list among claims is base64, and the client's is gone", threat: "A5", raw: get("/tenants/t1/x", auth, "x-user-roles: evil-admin"), status: []int{200}, arrives: "/tenants/t1/x",
		check: func(t *testing.T, got []reached) {
			if len(got) == 1 && strings.Contains(got[0].header.Get("X-User-Roles"), "admin") {
				t.Errorf("the backend saw %q", got[0].header.Get("X-User-Roles"))
			}
		}})
	for _, h := range ordersToEnvoy() {
		add(vector{name: h, threat: "A16", raw: get("/public/h", h+": evil-1"), status: []int{200}, arrives: "/public/h"})
	}
	add(vector{name: "the path in x-envoy-original-path", threat: "A16", raw: get("/admin", "x-envoy-original-path: /public/x"), status: []int{403}})
	add(vector{name: "x-forwarded-client-cert", threat: "A16", raw: get("/public/h", "X-Forwarded-Client-Cert: URI=spiffe://cluster.local/ns/shop/sa/evil-admin"), status: []int{200}, arrives: "/public/h"})
	add(vector{name: "x-forwarded-client-cert for a principal", threat: "A16", raw: get("/admin/x", "x-forwarded-client-cert: By=x;URI=spiffe://cluster.local/ns/shop/sa/admin"), status: []int{403}})
	add(vector{name: "x-forwarded-client-cert twice", threat: "A16", raw: get("/public/h", "x-forwarded-client-cert: URI=evil-1", "X-FORWARDED-CLIENT-CERT: URI=evil-2"), status: []int{200}, arrives: "/public/h"})
	for _, h := range told() {
		add(vector{name: h, threat: "A16", raw: get("/public/h", h+": evil-1"), status: []int{200}, arrives: "/public/h", outside: true})
	}
	for i, h := range []string{"X-Forwarded-For: 198.51.100.7", "x-forwarded-for: 198.51.100.7, 10.0.0.1", "Forwarded: for=198.51.100.7", "X-Real-IP: 198.51.100.7", "X-Envoy-External-Address: 198.51.100.7", "True-Client-IP: 198.51.100.7"} {
		add(vector{name: fmt.Sprintf("an address in %s (%d)", h, i), threat: "A16", raw: get("/internal/x", h), status: []int{403}, outside: true})
	}
	for _, h := range [][]string{{"x-tier: gold, evil-free"}, {"x-tier: evil-free,gold"}, {"x-tier: evil-free", "x-tier: evil-gold"}, {"x-tier: gold,"}, {"x-tier: GOLD"}, {"x-tier: "}, {}} {
		add(vector{name: fmt.Sprint(h), threat: "B28", raw: get("/gold/x", h...), status: []int{403, 400}})
	}
	// Envoy 1.40 compares one value after the other: an ALLOW rule about a header holds where one of them does. docs/security.md says so.
	add(vector{name: "the right value, and another", threat: "B28", raw: get("/gold/x", "x-tier: free", "x-tier: gold"), status: []int{200, 403}, arrives: "*"})
	add(vector{name: "the right value, once", threat: "B28", raw: get("/gold/x", "x-tier: gold"), status: []int{200}, arrives: "/gold/x"})
	for _, value := range []string{"gold\xff", "\xffgold", "gol\x80d", "gold\x00", "gold\x01", "gold\x7f", "\tgold\x0b"} {
		add(vector{name: fmt.Sprintf("x-tier %q", value), threat: "B29", raw: get("/gold/x", "x-tier: "+value), status: []int{403, 400}})
	}
	return out
}

func tenantIs(want string) func(*testing.T, []reached) {
	return func(t *testing.T, got []reached) {
		if len(got) != 1 || strings.Join(got[0].header.Values("X-Tenant-Id"), "|") != want {
			t.Errorf("the backend saw %v", got)
		}
	}
}
