package filter

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/http/httptrace"
	"slices"
	"testing"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/proto"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/internal/policytest"
	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/policy/jwt"
	"github.com/credence-mesh/credence/xds/ir"
)

// An edit of a policy, also the first and the last, holds on a connection that is already open, and closes none.
func TestEditsHoldOnOpenConnections(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	with := func(policies string) *ir.HTTP {
		set := policytest.Set(t, gatewayWorkload+policies)
		return &ir.HTTP{Name: "inbound|8080||", Guard: guard(t, set, "production", "gw", nil)}
	}
	p := start(t, rig{http: with(""), watched: dir})
	transport := &http.Transport{MaxConnsPerHost: 1}
	t.Cleanup(transport.CloseIdleConnections)
	connections := 0
	ask := func() (int, error) {
		trace := &httptrace.ClientTrace{GotConn: func(i httptrace.GotConnInfo) {
			if !i.Reused {
				connections++
			}
		}}
		req, err := http.NewRequestWithContext(httptrace.WithClientTrace(t.Context(), trace), http.MethodGet, "http://"+p.addr+"/x", nil)
		if err != nil {
			return 0, err
		}
		res, err := transport.RoundTrip(req)
		if err != nil {
			return 0, err
		}
		_, err = io.Copy(io.Discard, res.Body)
		return res.StatusCode, errors.Join(err, res.Body.Close())
	}
	for _, edit := range []struct {
		name, policies string
		want           int
	}{
		{"no policy", "", 200},
		{"the first policy", ap("a", `{action: DENY, rules: [{to: [{operation: {paths: ["/x"]}}]}]}`), 403},
		{"the last one goes", "", 200},
		{"allow nothing", ap("a", "{}"), 403},
		{"a token is needed", ap("a", `{rules: [{}]}`) + "\n---\nkind: RequestAuthentication\nmetadata: {name: ra, namespace: production}\nspec: {jwtRules: [{issuer: a, jwksUri: 'https://a'}]}", 200},
		{"asked of a provider that is down", ap("a", `{action: CUSTOM, provider: {name: opa}, rules: [{}]}`), 403},
		{"void: another type of filter in the first slot", "\n---\nkind: AuthorizationPolicy\nmetadata: {name: a, namespace: production, annotations: {test/void: 'yes'}}", 503},
		{"and back", "", 200},
	} {
		_, extensions, err := Chain(with(edit.policies))
		if err != nil {
			t.Fatal(err)
		}
		publish(t, dir, extensions)
		envoytest.Eventually(t, edit.name, func() error {
			got, err := ask()
			if err == nil && got != edit.want {
				err = fmt.Errorf("got %d, want %d", got, edit.want)
			}
			return err
		})
	}
	if connections != 1 {
		t.Errorf("%d connections; want the one that was open all the time", connections)
	}
}

// The filters of a listener do not depend on any policy.
func TestChainDependsOnTheNameAlone(t *testing.T) {
	t.Parallel()
	set := policytest.Set(t, gatewayWorkload+ap("a", "{}")+ap("b", `{action: CUSTOM, provider: {name: opa}, rules: [{}]}`)+
		"\n---\nkind: RequestAuthentication\nmetadata: {name: ra, namespace: production}\nspec: {jwtRules: [{issuer: a, jwksUri: 'https://a'}]}")
	a, extA, err := Chain(&ir.HTTP{Name: "x"})
	if err != nil {
		t.Fatal(err)
	}
	b, extB, err := Chain(&ir.HTTP{Name: "x", Edge: true, Guard: guard(t, set, "production", "gw", nil)})
	if err != nil {
		t.Fatal(err)
	}
	if !slices.EqualFunc(a, b, func(x, y *hcmv3.HttpFilter) bool { return proto.Equal(x, y) }) || len(extA) != len(extB) || len(extA) != len(a)-1 {
		t.Errorf("%v\n%v", a, b)
	}
	for i, e := range extA {
		if e.Name != a[i].GetName() || e.Name != "x/"+slots()[i].name {
			t.Errorf("slot %d: %s, %s", i, e.Name, a[i].GetName())
		}
	}
	egress, ext, err := Chain(&ir.HTTP{Name: "out", Egress: true})
	if err != nil || len(egress) != 1 || egress[0].GetName() != RouterName || len(ext) != 0 {
		t.Errorf("egress: %v, %v, %v", egress, ext, err)
	}
}

// What Envoy would refuse is an error here, and never a configuration with something left out.
func TestChainRefuses(t *testing.T) {
	t.Parallel()
	open := authz.Rules{Open: true}
	one := func(e authz.Expr) authz.Rules {
		return authz.Rules{Allow: []authz.Rule{{ID: "x", Principal: authz.All{}, Permission: e}}}
	}
	for _, tc := range []struct {
		name  string
		guard ir.Guard
	}{
		{"a header name that is none", ir.Guard{Enforce: true, Rules: open, Strip: []string{"x\r\ny"}}},
		{"a claim header that is none", ir.Guard{Enforce: true, Rules: open, Issuers: []ir.Issuer{{Issuer: jwt.Issuer{Name: "origins-0", ClaimsTo: []jwt.ClaimHeader{{Header: "a b\n", Claim: "c"}}}}}}},
		{"a template that crashes Envoy", ir.Guard{Enforce: true, Rules: one(authz.Path{Match: authz.Match{Kind: authz.Template, Value: "/a//*"}})}},
		{"a condition about the caller where one about the request belongs", ir.Guard{Enforce: true, Rules: one(authz.Peer{})}},
		{"two rules of one name", ir.Guard{Enforce: true, Rules: authz.Rules{Deny: []authz.Rule{{ID: "x"}, {ID: "x"}}}}},
		{"two providers", ir.Guard{Enforce: true, Rules: authz.Rules{Open: true, Custom: []authz.Custom{{Provider: "a"}, {Provider: "b"}}}}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			if filters, _, err := Chain(&ir.HTTP{Name: "x", Guard: tc.guard}); err == nil || filters != nil {
				t.Errorf("%v, %v", filters, err)
			}
		})
	}
}
