package filter

import (
	"crypto/hmac"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"math/big"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/internal/issuer"
	"github.com/credence-mesh/credence/internal/policytest"
	"github.com/credence-mesh/credence/policy/jwt"
	"github.com/credence-mesh/credence/xds/ir"
)

// header puts another header on a token, and a signature that sign makes.
func forge(t *testing.T, token, header string, sign func(signed string) []byte) string {
	t.Helper()
	parts := strings.Split(token, ".")
	signed := base64.RawURLEncoding.EncodeToString([]byte(header)) + "." + parts[1]
	if sign == nil {
		return signed + "." + parts[2]
	}
	return signed + "." + base64.RawURLEncoding.EncodeToString(sign(signed))
}

// A6, A12, A17: tokens that an attacker would make.
func TestForgedTokens(t *testing.T) {
	t.Parallel()
	ec, other := envoytest.NewIssuer(t, "https://a.example/"), envoytest.NewIssuer(t, "https://b.example/")
	rs, err := issuer.New("https://rsa.example/", jose.RS256)
	if err != nil {
		t.Fatal(err)
	}
	rsaIssuer := envoytest.Issuer{Issuer: rs}
	set := policytest.Set(t, gatewayWorkload+`
kind: RequestAuthentication
metadata: {name: ra, namespace: production}
spec: {jwtRules: [{issuer: "https://a.example/", jwksUri: "https://a"}, {issuer: "https://b.example/", jwksUri: "https://b"}, {issuer: "https://rsa.example/", jwksUri: "https://r"}]}
`)
	keys := map[string]envoytest.Issuer{ec.Name(): ec, other.Name(): other, rs.Name(): rsaIssuer}
	p := start(t, rig{http: &ir.HTTP{Name: "in", Guard: guard(t, set, "production", "gw", keys)}})
	claims := issuer.Claims{"sub": "alice"}
	ecToken, rsToken := ec.Sign(t, claims), rsaIssuer.Sign(t, claims)
	doc, err := rs.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	hs := func(key []byte) func(string) []byte {
		return func(s string) []byte {
			m := hmac.New(sha256.New, key)
			m.Write([]byte(s))
			return m.Sum(nil)
		}
	}
	nested := any("x")
	for range 1000 {
		nested = []any{nested}
	}
	many := issuer.Claims{"sub": "alice"}
	for i := range 10000 {
		many[fmt.Sprintf("c%d", i)] = i
	}
	for _, tc := range []struct {
		name, token string
		want        []int
	}{
		{"a good EC token", ecToken, []int{200}},
		{"a good RSA token", rsToken, []int{200}},
		{"alg none", forge(t, ecToken, `{"alg":"none"}`, func(string) []byte { return nil }), []int{401}},
		{"alg None", forge(t, ecToken, `{"alg":"None"}`, nil), []int{401}},
		{"no signature", strings.Join(strings.Split(ecToken, ".")[:2], ".") + ".", []int{401}},
		{"HS256 signed with the public key in PEM", forge(t, rsToken, `{"alg":"HS256","kid":"RS256-1"}`, hs(publicPEM(t, doc))), []int{401}},
		{"HS256 signed with the JWKS", forge(t, rsToken, `{"alg":"HS256"}`, hs(doc)), []int{401}},
		{"an EC header on an RSA token", forge(t, rsToken, `{"alg":"ES256","kid":"RS256-1"}`, nil), []int{401}},
		{"a token of one issuer in the name of another", ec.Sign(t, issuer.Claims{"sub": "alice", "iss": other.Name()}), []int{401}},
		{"an unknown kid", forge(t, ecToken, `{"alg":"ES256","kid":"nobody"}`, nil), []int{401}},
		{"no issuer", ec.Sign(t, issuer.Claims{"sub": "alice", "iss": nil}), []int{401}},
		{"20 KB of claims (A17)", ec.Sign(t, issuer.Claims{"sub": "alice", "x": strings.Repeat("x", 20<<10)}), []int{200}},
		{"10,000 claims (A17)", ec.Sign(t, many), []int{401, 431}},
		{"1,000 lists in each other (A17)", ec.Sign(t, issuer.Claims{"sub": "alice", "x": nested}), []int{401}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			got, _ := p.send(t, request{path: "/", token: tc.token})
			for _, want := range tc.want {
				if got == want {
					return
				}
			}
			t.Errorf("got %d, want %v", got, tc.want)
		})
	}
}

func publicPEM(t *testing.T, jwks []byte) []byte {
	t.Helper()
	var s jose.JSONWebKeySet
	if err := json.Unmarshal(jwks, &s); err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKIXPublicKey(s.Keys[0].Key)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
}

// The key that stands in where none is known has no private part that anybody could have kept: x is a hash.
func TestNoKey(t *testing.T) {
	t.Parallel()
	if _, err := jwt.PublicKeys([]byte(noKey)); err != nil {
		t.Fatal(err)
	}
	var s jose.JSONWebKeySet
	if err := json.Unmarshal([]byte(noKey), &s); err != nil {
		t.Fatal(err)
	}
	var set struct{ Keys []struct{ X string } }
	if err := json.Unmarshal([]byte(noKey), &set); err != nil {
		t.Fatal(err)
	}
	// The first counter from 0 whose hash is an x coordinate of the curve is 4.
	want := sha256.Sum256([]byte("credence: nobody holds the private key of this point 4"))
	got, err := base64.RawURLEncoding.DecodeString(set.Keys[0].X)
	if err != nil || new(big.Int).SetBytes(got).Cmp(new(big.Int).SetBytes(want[:])) != 0 {
		t.Errorf("x = %x, %v", got, err)
	}
}
