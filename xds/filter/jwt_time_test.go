package filter

import (
	"fmt"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"

	jwtauthnv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/internal/issuer"
	"github.com/credence-mesh/credence/internal/policytest"
	"github.com/credence-mesh/credence/policy/jwt"
	"github.com/credence-mesh/credence/xds/ir"
)

const oneIssuer = gatewayWorkload + `
kind: RequestAuthentication
metadata: {name: ra, namespace: production}
spec: {jwtRules: [{issuer: "https://a.example/", jwksUri: "https://a"}]}
`

func eventually(t *testing.T, p *proxy, what string, r request, want int) {
	t.Helper()
	envoytest.Eventually(t, what, func() error {
		if got, _ := p.send(t, r); got != want {
			return fmt.Errorf("got %d, want %d", got, want)
		}
		return nil
	})
}

// A10: Envoy remembers verified tokens; one that was remembered ends with its exp all the same.
func TestRememberedTokensEnd(t *testing.T) {
	t.Parallel()
	a := envoytest.NewIssuer(t, "https://a.example/")
	p := start(t, rig{http: &ir.HTTP{Name: "in", Guard: guard(t, policytest.Set(t, oneIssuer), "production", "gw", map[string]envoytest.Issuer{a.Name(): a})}})
	r := request{path: "/", token: a.Sign(t, issuer.Claims{"sub": "x", "exp": time.Now().Add(-(clockSkew - 3) * time.Second).Unix()})}
	if got, _ := p.send(t, r); got != 200 {
		t.Fatalf("within the clock skew: %d", got)
	}
	eventually(t, p, "the token ends", r, 401)
}

// A15: both keys count while both are published; the old one ends when it is withdrawn, for remembered tokens too.
func TestRotatedKeys(t *testing.T) {
	t.Parallel()
	old := envoytest.NewIssuer(t, "https://a.example/")
	rotated, err := old.Rotated()
	if err != nil {
		t.Fatal(err)
	}
	both := envoytest.Issuer{Issuer: rotated}
	next := envoytest.NewIssuer(t, "https://a.example/")
	set, dir := policytest.Set(t, oneIssuer), t.TempDir()
	with := func(i envoytest.Issuer) *ir.HTTP {
		return &ir.HTTP{Name: "in", Guard: guard(t, set, "production", "gw", map[string]envoytest.Issuer{i.Name(): i})}
	}
	p := start(t, rig{http: with(old), watched: dir})
	put := func(i envoytest.Issuer) {
		_, extensions, err := Chain(with(i))
		if err != nil {
			t.Fatal(err)
		}
		publish(t, dir, extensions)
	}
	before := request{path: "/", token: old.Sign(t, issuer.Claims{"sub": "x"})}
	after := request{path: "/", token: both.Sign(t, issuer.Claims{"sub": "x"})}
	verdicts(t, p, []try{{"old key", before, 200}, {"a key that is not yet known", after, 401}})
	put(both)
	eventually(t, p, "the new key counts", after, 200)
	verdicts(t, p, []try{{"old key beside the new one", before, 200}})
	put(next)
	eventually(t, p, "the old keys end", before, 401)
	verdicts(t, p, []try{{"a remembered token of a withdrawn key", after, 401}})
}

// The requirement is Istio's to the letter.
func TestRequirement(t *testing.T) {
	t.Parallel()
	two := []ir.Issuer{{Issuer: jwt.Issuer{Name: "origins-0"}}, {Issuer: jwt.Issuer{Name: "origins-1"}}}
	for _, tc := range []struct {
		name    string
		issuers []ir.Issuer
		want    string
	}{
		{"one", two[:1], `requires_any { requirements { provider_name: "origins-0" } requirements { allow_missing {} } }`},
		{"two", two, `requires_any {
			requirements { provider_name: "origins-0" } requirements { provider_name: "origins-1" }
			requirements { requires_all {
				requirements { requires_any { requirements { provider_name: "origins-0" } requirements { allow_missing {} } } }
				requirements { requires_any { requirements { provider_name: "origins-1" } requirements { allow_missing {} } } }
			} }
		}`},
	} {
		want := &jwtauthnv3.JwtRequirement{}
		if err := prototext.Unmarshal([]byte(tc.want), want); err != nil {
			t.Fatal(err)
		}
		if got := requirement(tc.issuers); !proto.Equal(got, want) {
			t.Errorf("%s: %v", tc.name, got)
		}
	}
}
