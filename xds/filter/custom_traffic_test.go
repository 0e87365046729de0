package filter

import (
	"bytes"
	"context"
	"io"
	"net"
	"sync"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	netrbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/rbac/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	statusv3 "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/internal/issuer"
	"github.com/credence-mesh/credence/internal/policytest"
	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/xds/ir"
)

// decider allows whoever's verified claim sub is in its list, and remembers what it was asked.
type decider struct {
	mu    sync.Mutex
	asked []string // paths
	hang  bool
}

func (d *decider) Check(ctx context.Context, q *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	d.mu.Lock()
	hang := d.hang
	d.asked = append(d.asked, q.GetAttributes().GetRequest().GetHttp().GetPath())
	d.mu.Unlock()
	if hang {
		<-ctx.Done()
		return nil, ctx.Err()
	}
	claims := q.GetAttributes().GetMetadataContext().GetFilterMetadata()[ClaimsNamespace].GetFields()[ClaimsKey].GetStructValue().GetFields()
	if claims["sub"].GetStringValue() == "alice" {
		return &authv3.CheckResponse{Status: &statusv3.Status{Code: int32(codes.OK)}, HttpResponse: &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers: []*corev3.HeaderValueOption{{Header: &corev3.HeaderValue{Key: "x-decided", Value: "yes"}}},
		}}}, nil
	}
	return &authv3.CheckResponse{Status: &statusv3.Status{Code: int32(codes.PermissionDenied)}, HttpResponse: &authv3.CheckResponse_DeniedResponse{
		DeniedResponse: &authv3.DeniedHttpResponse{Status: &typev3.HttpStatus{Code: typev3.StatusCode_Forbidden}},
	}}, nil
}

func (d *decider) take() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := len(d.asked)
	d.asked = nil
	return n
}

// CUSTOM: asked where a rule matches and only there; on verified claims; a refusal where nobody answers in time.
func TestCustom(t *testing.T) {
	t.Parallel()
	d := &decider{}
	services := serveGRPC(t, func(s grpc.ServiceRegistrar) { authv3.RegisterAuthorizationServer(s, d) })
	a := envoytest.NewIssuer(t, "https://a.example/")
	set := policytest.Set(t, gatewayWorkload+`
kind: RequestAuthentication
metadata: {name: ra, namespace: production}
spec: {jwtRules: [{issuer: "https://a.example/", jwksUri: "https://a"}]}
`+ap("opa", `{action: CUSTOM, provider: {name: opa}, rules: [{to: [{operation: {paths: ["/asked", "/denied"]}}]}]}`)+
		ap("no", `{action: DENY, rules: [{to: [{operation: {paths: ["/denied"]}}]}]}`))
	p := start(t, rig{services: services, http: &ir.HTTP{Name: "in", Guard: guard(t, set, "production", "gw", map[string]envoytest.Issuer{a.Name(): a})}})
	alice, bob := a.Sign(t, issuer.Claims{"sub": "alice"}), a.Sign(t, issuer.Claims{"sub": "bob"})
	for _, tc := range []struct {
		name  string
		req   request
		want  int
		asked int
	}{
		{"not covered", request{path: "/free"}, 200, 0},
		{"allowed", request{path: "/asked", token: alice}, 200, 1},
		{"refused", request{path: "/asked", token: bob}, 403, 1},
		{"no claims", request{path: "/asked"}, 403, 1},
		{"a bad token is not even asked about", request{path: "/asked", token: tamper(t, alice)[:len(alice)-10] + "AAAAAAAAAA"}, 401, 0},
		{"DENY comes after and wins", request{path: "/denied", token: alice}, 403, 1},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, seen := p.send(t, tc.req)
			if got != tc.want {
				t.Errorf("got %d, want %d", got, tc.want)
			}
			if n := d.take(); n != tc.asked {
				t.Errorf("asked %d times", n)
			}
			if got == 200 && tc.asked > 0 && seen.Headers.Get("X-Decided") != "yes" {
				t.Error("what the provider added did not arrive")
			}
		})
	}
	t.Run("no answer in time (C36)", func(t *testing.T) {
		d.mu.Lock()
		d.hang = true
		d.mu.Unlock()
		begin := time.Now()
		if got, _ := p.send(t, request{path: "/asked", token: alice}); got != 403 {
			t.Errorf("got %d", got)
		}
		if waited := time.Since(begin); waited > 5*time.Second {
			t.Errorf("after %s", waited)
		}
	})
}

// TCP chains: a refused connection is closed before a byte comes back.
func TestTCP(t *testing.T) {
	t.Parallel()
	tcpRules := func(policies string) authz.Rules {
		set := policytest.Set(t, gatewayWorkload+policies)
		r, _ := authz.For(set, policytest.Workload(t, set, "production", "gw"), 8080, authz.TCP)
		return r
	}
	for _, tc := range []struct {
		name     string
		policies string
		rules    authz.Rules
		want     bool
	}{
		{name: "no policy", policies: "", want: true},
		{name: "by address", policies: ap("a", `{rules: [{from: [{source: {ipBlocks: ["127.0.0.0/8"]}}]}]}`), want: true},
		{name: "by another address", policies: ap("a", `{rules: [{from: [{source: {ipBlocks: ["10.0.0.0/8"]}}]}]}`), want: false},
		{name: "an ALLOW rule that asks about HTTP allows nothing", policies: ap("a", `{rules: [{to: [{operation: {methods: [GET]}}]}]}`), want: false},
		{name: "beside one that does not", policies: ap("a", `{rules: [{to: [{operation: {methods: [GET]}}]}, {to: [{operation: {ports: ["8080"]}}]}]}`), want: true},
		{name: "a DENY rule loses the question and covers all", policies: ap("a", `{action: DENY, rules: [{from: [{source: {notRequestPrincipals: ["*"]}}], to: [{operation: {notPaths: ["/health"]}}]}]}`), want: false},
		{name: "a DENY rule with another port", policies: ap("a", `{action: DENY, rules: [{to: [{operation: {ports: ["9090"], methods: [GET]}}]}]}`), want: true},
		{name: "CUSTOM without an answer", policies: ap("a", `{action: CUSTOM, provider: {name: opa}, rules: [{}]}`), want: false},
		{name: "CUSTOM elsewhere", policies: ap("a", `{action: CUSTOM, provider: {name: opa}, rules: [{to: [{operation: {ports: ["9090"]}}]}]}`), want: true},
		{name: "void", policies: "\n---\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: production, annotations: {test/void: 'yes'}}", want: false},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			p := start(t, rig{tcp: &ir.TCP{Name: "in", Rules: tcpRules(tc.policies)}})
			conn, err := new(net.Dialer).DialContext(t.Context(), "tcp", p.addr)
			if err != nil {
				t.Fatal(err)
			}
			defer func() { _ = conn.Close() }()
			if err := conn.SetDeadline(time.Now().Add(10 * time.Second)); err != nil {
				t.Fatal(err)
			}
			if _, err := conn.Write([]byte("ping")); err != nil && tc.want {
				t.Fatal(err)
			}
			got := make([]byte, 4)
			_, err = io.ReadFull(conn, got)
			if echoed := err == nil && bytes.Equal(got, []byte("ping")); echoed != tc.want {
				t.Errorf("echoed %v (%v), want %v", echoed, err, tc.want)
			}
		})
	}
	t.Run("zero rules", func(t *testing.T) {
		t.Parallel()
		filters, extensions, err := TCPChain(&ir.TCP{Name: "in"})
		if err != nil || len(filters) != len(TCPSlots()) {
			t.Fatalf("%v, %v", filters, err)
		}
		allow, ok := extensions[len(extensions)-1].Config.(*netrbacv3.RBAC)
		if !ok || allow.GetRules().GetAction() != rbacconfigv3.RBAC_ALLOW || allow.GetRules().GetPolicies()["credence-none"] == nil {
			t.Errorf("what no rule allows is not refused: %v", extensions)
		}
	})
}
