package translate_test

import (
	"bufio"
	"fmt"
	"io"
	"net"
	"net/http"
	"slices"
	"testing"
	"time"

	"golang.org/x/tools/txtar"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/internal/issuer"
	"github.com/credence-mesh/credence/policy"
)

const profiled = `
apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  gatewayClassName: credence
  addresses: [{type: IPAddress, value: 127.0.0.1}]
  listeners: [{name: web, port: %d, protocol: HTTP}]
---
apiVersion: gateway.networking.k8s.io/v1
kind: HTTPRoute
metadata: {name: r, namespace: shop}
spec: {parentRefs: [{name: edge}], rules: [{backendRefs: [{name: a, port: 80}]}]}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: tokens, namespace: shop}
spec: {jwtRules: [{issuer: https://a.test, jwks: '%s'}]}
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: deny, namespace: shop}
spec:
  action: DENY
  rules:
  - to: [{operation: {paths: [/closed]}}]
  - to: [{operation: {hosts: [closed.test]}}]
  - to: [{operation: {paths: ["/token/*"]}}]
    from: [{source: {notRequestPrincipals: ["*"]}}]
`

// TestProfiles tries each row of docs/profiles.md both ways.
func TestProfiles(t *testing.T) {
	t.Parallel()
	who := envoytest.NewIssuer(t, "https://a.test")
	keys, err := who.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	sign := func(c issuer.Claims) string { c["sub"] = "u"; return who.Sign(t, c) }
	good, late := sign(issuer.Claims{}), sign(issuer.Claims{"exp": time.Now().Add(-30 * time.Second).Unix()})
	zero, endless := sign(issuer.Claims{"exp": 0}), sign(issuer.Claims{"exp": nil})
	at := map[policy.Profile]string{}
	for _, p := range []policy.Profile{policy.ProfileStrict, policy.ProfileIstio} {
		port := envoytest.FreePort(t)
		at[p] = fmt.Sprintf("127.0.0.1:%d", port)
		set, problems := load(t, []txtar.File{
			{Name: "profile", Data: []byte(p)},
			{Name: "in.yaml", Data: []byte(backendDocs(t, "a") + fmt.Sprintf(profiled, port, keys))},
		})
		r := build(t, set, problems)
		i := slices.IndexFunc(r.workloads, func(w *policy.Workload) bool { return w.Name == "edge" })
		envoytest.Start(t, bootstrapAs(t, r.of(r.workloads[i]), envoytest.NewCA(t, "mesh"), "spiffe://cluster.local/ns/shop/sa/edge"), envoytest.Options{})
	}
	for _, tt := range []struct {
		name, target, host, header string
		strict, istio              int
	}{
		{"nothing special", "/x", "a.test", "X-A: b", 200, 200},
		{"dot segments", "/x/../closed", "a.test", "X-A: b", 403, 403},
		{"double slash", "//closed", "a.test", "X-A: b", 403, 200},
		{"escaped slash", "/x%2fclosed", "a.test", "X-A: b", 400, 200},
		{"double escape", "/%2563losed", "a.test", "X-A: b", 400, 200},
		{"parameter", "/x;y/closed", "a.test", "X-A: b", 400, 200},
		{"hidden dots", "/x/%2e%2e;/closed", "a.test", "X-A: b", 400, 200},
		{"control byte", "/x%0a", "a.test", "X-A: b", 400, 200},
		{"fragment", "/x#y", "a.test", "X-A: b", 400, 400},
		{"underscore", "/x", "a.test", "X_A: b", 400, 200},
		{"method override", "/x", "a.test", "X-HTTP-Method-Override: PUT", 400, 200},
		{"a closed host", "/x", "closed.test", "X-A: b", 403, 403},
		{"a closed host with a port", "/x", "closed.test:1", "X-A: b", 403, 200},
		{"a closed host with a dot", "/x", "closed.test.", "X-A: b", 403, 200},
		{"no host", "/x", "a,b", "X-A: b", 400, 400},
		{"a token", "/token/x", "a.test", "Authorization: Bearer " + good, 200, 200},
		{"a token in the query", "/token/x?access_token=" + good, "a.test", "X-A: b", 403, 200},
		{"a token that has just expired", "/token/x", "a.test", "Authorization: Bearer " + late, 401, 200},
		{"exp 0", "/token/x", "a.test", "Authorization: Bearer " + zero, 401, 200},
		{"no exp", "/token/x", "a.test", "Authorization: Bearer " + endless, 401, 200},
		{"a dot behind", "/token/x", "a.test", "Authorization: Bearer " + good + ".", 401, 200},
		{"another prefix", "/token/x", "a.test", "Authorization: xxBearer " + good, 401, 200},
	} {
		for p, want := range map[policy.Profile]int{policy.ProfileStrict: tt.strict, policy.ProfileIstio: tt.istio} {
			t.Run(tt.name+"/"+string(p), func(t *testing.T) {
				if got := raw(t, at[p], "GET "+tt.target+" HTTP/1.1\r\nHost: "+tt.host+"\r\n"+tt.header+"\r\nConnection: close\r\n\r\n"); got != want {
					t.Errorf("got %d, want %d", got, want)
				}
			})
		}
	}
}

func raw(t *testing.T, addr, bytes string) int {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, bytes); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReader(conn), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	return answer.StatusCode
}
