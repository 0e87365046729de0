package translate_test

import (
	"fmt"
	"slices"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/policy"
)

const fronted = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: known, namespace: shop}
spec: {rules: [{from: [{source: {remoteIpBlocks: [198.51.100.7]}}]}]}
---
`

// TestProxyProtocol: the client's address comes from the PROXY protocol where the mesh says so, and never from X-Forwarded-For.
func TestProxyProtocol(t *testing.T) {
	t.Parallel()
	port := envoytest.FreePort(t)
	addr := fmt.Sprintf("127.0.0.1:%d", port)
	set, problems := load(t, []txtar.File{
		{Name: "mesh.yaml", Data: []byte("defaultConfig: {gatewayTopology: {proxyProtocol: {}}}")},
		{Name: "in.yaml", Data: []byte(backendDocs(t, "a") + fronted + fmt.Sprintf(traffic, port))},
	})
	r := build(t, set, problems)
	i := slices.IndexFunc(r.workloads, func(w *policy.Workload) bool { return w.Name == "edge" })
	envoytest.Start(t, bootstrapAs(t, r.of(r.workloads[i]), envoytest.NewCA(t, "mesh"), "spiffe://cluster.local/ns/shop/sa/edge"), envoytest.Options{})
	request := "GET /c HTTP/1.1\r\nHost: shop.example.com\r\nX-Forwarded-For: 198.51.100.7\r\nConnection: close\r\n\r\n"
	if got := raw(t, addr, "PROXY TCP4 198.51.100.7 127.0.0.1 5 80\r\n"+request); got != 200 {
		t.Errorf("the known client: %d", got)
	}
	if got := raw(t, addr, "PROXY TCP4 198.51.100.8 127.0.0.1 5 80\r\n"+request); got != 403 {
		t.Errorf("another client, which claims to be it: %d", got)
	}
}
