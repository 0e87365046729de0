package issuer_test

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
	"github.com/go-jose/go-jose/v4/jwt"

	"github.com/credence-mesh/credence/internal/issuer"
)

func newIssuer(t *testing.T, alg jose.SignatureAlgorithm) *issuer.Issuer {
	t.Helper()
	i, err := issuer.New("https://issuer.test/", alg)
	if err != nil {
		t.Fatal(err)
	}
	return i
}

func keys(t *testing.T, i *issuer.Issuer) jose.JSONWebKeySet {
	t.Helper()
	doc, err := i.JWKS()
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(doc), `"d"`) {
		t.Fatal("the JWKS holds a private key")
	}
	var set jose.JSONWebKeySet
	if err := json.Unmarshal(doc, &set); err != nil {
		t.Fatal(err)
	}
	return set
}

func TestTokens(t *testing.T) {
	t.Parallel()
	for _, alg := range []jose.SignatureAlgorithm{jose.ES256, jose.RS256} {
		t.Run(string(alg), func(t *testing.T) {
			t.Parallel()
			i := newIssuer(t, alg)
			text, err := i.Token(issuer.Claims{"sub": "alice", "iat": nil, "aud": []string{"shop"}})
			if err != nil {
				t.Fatal(err)
			}
			token, err := jwt.ParseSigned(text, []jose.SignatureAlgorithm{alg})
			if err != nil {
				t.Fatal(err)
			}
			var claims jwt.Claims
			if err := token.Claims(keys(t, i), &claims); err != nil {
				t.Fatal(err)
			}
			if err := claims.Validate(jwt.Expected{Issuer: i.Name(), Subject: "alice", AnyAudience: jwt.Audience{"shop"}, Time: time.Now()}); err != nil {
				t.Error(err)
			}
			if claims.IssuedAt != nil {
				t.Error("a removed claim is there")
			}
		})
	}
}

func TestRotation(t *testing.T) {
	t.Parallel()
	before := newIssuer(t, jose.ES256)
	after, err := before.Rotated()
	if err != nil {
		t.Fatal(err)
	}
	old, err := before.Token(nil)
	if err != nil {
		t.Fatal(err)
	}
	fresh, err := after.Token(nil)
	if err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		text string
		keys jose.JSONWebKeySet
		good bool
	}{
		"an old token by the new keys": {old, keys(t, after), true},
		"a new token by the new keys":  {fresh, keys(t, after), true},
		"a new token by the old keys":  {fresh, keys(t, before), false},
	} {
		token, err := jwt.ParseSigned(c.text, []jose.SignatureAlgorithm{jose.ES256})
		if err != nil {
			t.Fatal(err)
		}
		if err := token.Claims(c.keys, &jwt.Claims{}); (err == nil) != c.good {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestUnsignedHasNoSignature(t *testing.T) {
	t.Parallel()
	text, err := newIssuer(t, jose.ES256).Unsigned(issuer.Claims{"role": "admin"})
	if err != nil {
		t.Fatal(err)
	}
	if parts := strings.Split(text, "."); len(parts) != 3 || parts[2] != "" {
		t.Errorf("%q is not an unsigned token", text)
	}
}

func TestNewRefusesWhatItCannotSign(t *testing.T) {
	t.Parallel()
	if _, err := issuer.New("x", jose.HS256); err == nil {
		t.Error("HS256 was accepted: its public key would be its secret")
	}
}
