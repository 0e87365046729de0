package explain_test

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"net/netip"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// signer signs in the name of an issuer, with any of its keys.
type signer struct {
	name string
	jwks string
	keys []jose.SigningKey
}

var algorithms = []jose.SignatureAlgorithm{jose.ES256, jose.RS256, jose.PS384, jose.EdDSA, jose.ES384, jose.RS512}

// signers are the issuers of all tests; their keys are made once.
var signers = sync.OnceValue(func() map[string]signer {
	out := map[string]signer{}
	shared, err := rsa.GenerateKey(rand.Reader, 2048)
	must(err)
	for _, name := range []string{one, two, "https://stranger.example"} {
		s := signer{name: name}
		var set jose.JSONWebKeySet
		for _, alg := range algorithms {
			var key crypto.Signer = shared // RSA keys are dear, and which one it is does not matter here
			switch alg {
			case jose.ES256:
				key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
			case jose.ES384:
				key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
			case jose.EdDSA:
				_, key, err = ed25519.GenerateKey(rand.Reader)
			default:
			}
			must(err)
			k := jose.JSONWebKey{Key: key, KeyID: string(alg), Algorithm: string(alg), Use: "sig"}
			s.keys = append(s.keys, jose.SigningKey{Algorithm: alg, Key: k})
			set.Keys = append(set.Keys, k.Public())
		}
		b, err := json.Marshal(set)
		must(err)
		s.jwks = string(b)
		out[name] = s
	}
	return out
})

func must(err error) {
	if err != nil {
		panic(err) // only of keys that tests make
	}
}

func (s signer) sign(n int, claims map[string]any) string {
	now := time.Now()
	full := map[string]any{"iss": s.name, "sub": "alice", "iat": now.Unix(), "exp": now.Add(10 * time.Hour).Unix()}
	for k, v := range claims {
		if v == nil {
			delete(full, k)
		} else {
			full[k] = v
		}
	}
	payload, err := json.Marshal(full)
	must(err)
	signer, err := jose.NewSigner(s.keys[n%len(s.keys)], (&jose.SignerOptions{}).WithType("JWT"))
	must(err)
	signed, err := signer.Sign(payload)
	must(err)
	out, err := signed.CompactSerialize()
	must(err)
	return out
}

// pool is the tokens that requests carry: good ones, and every kind of bad one.
var pool = sync.OnceValue(func() []string {
	now := time.Now()
	claims := []map[string]any{
		{}, {"role": "admin", "aud": "aud1"}, {"groups": []string{"a", "admin"}, "aud": []string{"x", "aud2"}}, {"nested": map[string]any{"k": "1"}, "scope": "read write"},
		{"sub": "bob", "azp": "admin", "words": "x  y", "aud": "https://aud2/"}, {"n": 1, "ok": true, "role": []any{"admin", 1}}, {"sub": nil, "role": "vx"}, {"sub": ""},
		{"exp": now.Add(-time.Minute).Unix()}, {"nbf": now.Add(time.Hour).Unix()}, {"exp": nil}, {"exp": 0}, {"exp": "soon"}, {"exp": -5}, {"exp": float64(now.Unix()) + 1e5 + .5},
		{"aud": 5}, {"aud": []any{"aud1", 5}}, {"aud": []any{}}, {"iss": 7}, {"iss": nil}, {"sub": 7}, {"nbf": now.Add(-time.Hour).Unix(), "role": "1", "n": -1.5}, {"iat": "x"},
		{"nested": map[string]any{"k": []any{"1", "x"}}, "scope": []any{"read"}}, {"groups": "admin alice", "scope": ""}, {"jti": 3}, {"role": strings.Repeat("v", 300)},
		{"iss": two, "sub": "bob"}, {"iss": one}, {"n": 12345678901, "ok": false}, {"n": 0.25},
	}
	var out []string
	for i, c := range claims {
		for _, name := range []string{one, two} {
			out = append(out, signers()[name].sign(i, c))
		}
	}
	for i := range algorithms {
		out = append(out, signers()[one].sign(i, map[string]any{"role": "admin"}), signers()[two].sign(i, nil))
	}
	good := signers()[one].sign(0, nil)
	parts := strings.Split(good, ".")
	raw := func(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }
	return append(out,
		signers()["https://stranger.example"].sign(0, nil), good+".", "."+good, good+".x", parts[0]+"."+parts[1]+".", parts[0]+"."+parts[1], "garbage", "a.b.c", "",
		raw(`{"alg":"none"}`)+"."+parts[1]+".", raw(`{"alg":"ES256","kid":"nobody"}`)+"."+parts[1]+"."+parts[2], raw(`{"alg":"RS256"}`)+"."+parts[1]+"."+parts[2],
		raw(`{"kid":"ES256"}`)+"."+parts[1]+"."+parts[2], parts[0]+"."+raw(`{"iss":"https://one.example","exp":99999999999,"role":"admin"}`)+"."+parts[2], good[:len(good)-6]+"AAAAAA",
		raw(`{"alg":"ES256","kid":5}`)+"."+parts[1]+"."+parts[2], parts[0]+"."+raw(`[]`)+"."+parts[2],
	)
})

func sorted(s []string) []string {
	slices.Sort(s)
	return s
}

func (d dice) source4() netip.Addr { return netip.MustParseAddr(d.of("127.0.0.1", "127.0.0.3")) }
