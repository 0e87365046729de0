package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"strings"
	"testing"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// smith signs tokens that no library would.
type smith struct {
	key *ecdsa.PrivateKey
}

func newSmith(t *testing.T) smith {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	return smith{key}
}

func (s smith) jwks(t *testing.T) string {
	t.Helper()
	b, err := json.Marshal(jose.JSONWebKeySet{Keys: []jose.JSONWebKey{{Key: s.key.Public(), KeyID: "k", Algorithm: "ES256", Use: "sig"}}})
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func b64(s string) string { return base64.RawURLEncoding.EncodeToString([]byte(s)) }

// sign makes a token of exactly these two JSON texts.
func (s smith) sign(t *testing.T, header, payload string) string {
	t.Helper()
	input := b64(header) + "." + b64(payload)
	sum := sha256.Sum256([]byte(input))
	r, v, err := ecdsa.Sign(rand.Reader, s.key, sum[:])
	if err != nil {
		t.Fatal(err)
	}
	sig := make([]byte, 64)
	r.FillBytes(sig[:32])
	v.FillBytes(sig[32:])
	return input + "." + base64.RawURLEncoding.EncodeToString(sig)
}

const usualHeader = `{"alg":"ES256","typ":"JWT","kid":"k"}`

// claims is a payload of the smith's issuer that opens /tenants/t1, with more members.
func claims(more string) string {
	return `{"iss":"https://a.test","aud":"api","sub":"u","tenant":"t1"` + more + `}`
}

func exp(in time.Duration) string {
	return fmt.Sprintf(`,"exp":%d`, time.Now().Add(in).Unix())
}

// tokenAttacks are tokens that are not good, or not where they belong, asking for what a good one opens.
func tokenAttacks(t *testing.T, x *arena) []vector {
	var out []vector
	ask := func(threat, name string, status int, headers ...string) {
		v := vector{name: name, threat: threat, raw: get("/tenants/t1/x", headers...), status: []int{status}}
		if status == 200 {
			v.arrives, v.check = "/tenants/t1/x", tenantIs("t1")
		}
		out = append(out, v)
	}
	bearer := func(token string) string { return "Authorization: Bearer " + token }
	sign := func(header, payload string) string { return bearer(x.a.sign(t, header, payload)) }
	good := x.good
	parts := strings.Split(good, ".")
	ask("A12", "the good one", 200, bearer(good))
	none := b64(`{"alg":"none","typ":"JWT"}`) + "." + b64(claims(exp(time.Hour))) + "."
	for _, alg := range []string{"none", "None", "NONE", "nOnE", ""} {
		ask("A6", "alg "+alg, 401, bearer(b64(`{"alg":"`+alg+`"}`)+"."+parts[1]+"."))
	}
	ask("A6", "alg none with a signature", 401, bearer(none+parts[2]))
	for _, param := range []string{"access_token", "token", "jwt", "bearer_token"} {
		out = append(out, vector{name: "in ?" + param, threat: "A7", raw: get("/tenants/t1/x?" + param + "=" + good), status: []int{403}})
	}
	for _, value := range []string{"xxBearer " + good, "x Bearer " + good, "Basic Bearer " + good, "Bearer Bearer " + good, "Bearer  " + good, "Bearer " + good + " x", "Bearer " + good + "," + none, "Bearer " + none + ", Bearer " + good, `Bearer "` + good + `"`} {
		ask("A8", strings.NewReplacer(good, "T", none, "N").Replace(value), 401, "Authorization: "+value)
	}
	for _, value := range []string{"bearer " + good, "BEARER " + good, "Bearer\t" + good, good, "Token " + good} {
		ask("A8", "none at all: "+strings.ReplaceAll(value, good, "T"), 403, "Authorization: "+value)
	}
	ask("A9", "two headers, the good one first", 401, bearer(good), bearer(none))
	ask("A9", "two headers, the good one last", 401, bearer(none), bearer(good))
	out = append(out, vector{name: "a good one in the query and a forged one", threat: "A9", raw: get("/tenants/t1/x?access_token="+good, bearer(none)), status: []int{401}})
	ask("A10", "expired 30 s ago", 401, sign(usualHeader, claims(exp(-30*time.Second))))
	ask("A10", "expired an hour ago", 401, sign(usualHeader, claims(exp(-time.Hour))))
	for name, more := range map[string]string{
		"no exp": "", "exp 0": `,"exp":0`, "exp as a string": `,"exp":"9999999999"`, "a negative exp": `,"exp":-1`, "an endless exp": `,"exp":1e309`, "exp null": `,"exp":null`, "exp true": `,"exp":true`,
		"exp as a list": `,"exp":[9999999999]`, "nbf in an hour": exp(time.Hour) + fmt.Sprintf(`,"nbf":%d`, time.Now().Add(time.Hour).Unix()), "exp twice": exp(-time.Hour) + `,"Exp":9999999999`,
	} {
		ask("A11", name, 401, sign(usualHeader, claims(more)))
	}
	ask("A12", "another audience", 403, sign(usualHeader, `{"iss":"https://a.test","aud":"other","tenant":"t1"`+exp(time.Hour)+`}`))
	ask("A12", "no audience", 403, sign(usualHeader, `{"iss":"https://a.test","tenant":"t1"`+exp(time.Hour)+`}`))
	ask("A12", "another issuer", 401, sign(usualHeader, `{"iss":"https://other.test","aud":"api","tenant":"t1"`+exp(time.Hour)+`}`))
	ask("A12", "issuer B's name, A's key", 401, sign(usualHeader, `{"iss":"https://b.test","aud":"api","tenant":"t1"`+exp(time.Hour)+`}`))
	ask("A12", "issuer B", 403, bearer(x.b.Sign(t, map[string]any{"sub": "u", "aud": "api", "tenant": "t1"})))
	ask("A12", "no issuer", 401, sign(usualHeader, `{"aud":"api","tenant":"t1"`+exp(time.Hour)+`}`))
	ask("A12", "a slash behind the issuer", 401, sign(usualHeader, `{"iss":"https://a.test/","aud":"api","tenant":"t1"`+exp(time.Hour)+`}`))
	ask("A12", "another key", 401, bearer(newSmith(t).sign(t, usualHeader, claims(exp(time.Hour)))))
	ask("A12", "a kid that is not there", 401, sign(`{"alg":"ES256","kid":"other"}`, claims(exp(time.Hour))))
	ask("A12", "RS256 named, signed by ES256", 401, sign(`{"alg":"RS256","kid":"k"}`, claims(exp(time.Hour))))
	ask("A12", "HS256 with the public key", 401, bearer(x.hs256(t)))
	ask("A12", "a key that it brings along", 401, sign(`{"alg":"ES256","kid":"mine","jwk":`+strings.TrimSuffix(strings.TrimPrefix(newSmith(t).jwks(t), `{"keys":[`), "]}")+`}`, claims(exp(time.Hour))))
	ask("A12", "another payload", 401, bearer(parts[0]+"."+b64(claims(`,"x":1`+exp(time.Hour)))+"."+parts[2]))
	ask("A12", "another tenant", 403, sign(usualHeader, strings.Replace(claims(exp(time.Hour)), `"t1"`, `"t2"`, 1)))
	ask("A12", "no subject", 403, sign(usualHeader, strings.Replace(claims(exp(time.Hour)), `"sub":"u",`, "", 1)))
	ask("A12", "a tenant that is a number", 403, sign(usualHeader, strings.Replace(claims(exp(time.Hour)), `"t1"`, `1`, 1)))
	for name, token := range map[string]string{"a dot behind": good + ".", "two dots behind": good + "..", "a fourth part": good + ".x", "padding": good + "=", "a byte behind": good + "!", "no signature": parts[0] + "." + parts[1] + ".", "two parts": parts[0] + "." + parts[1], "one part": parts[0], "an empty header": "." + parts[1] + "." + parts[2], "dots": ".."} {
		ask("A12", name, 401, bearer(token))
	}
	for _, header := range []string{`{"alg":"ES256","kid":"k","crit":["x"],"x":1}`, `{"crit":["exp"],"alg":"ES256","kid":"k"}`, `{ "crit":["b64"],"b64":false,"alg":"ES256","kid":"k"}`, `{"alg":"ES256", "crit":[],"kid":"k"}`} {
		ask("A12", "crit in "+header, 401, sign(header, claims(exp(time.Hour))))
	}
	ask("A13", "an issuer whose keys cannot be fetched", 401, sign(usualHeader, `{"iss":"https://down.test","aud":"api","tenant":"t1"`+exp(time.Hour)+`}`))
	ask("A14", "an issuer whose keys are at a cloud's metadata service", 401, sign(usualHeader, `{"iss":"https://metadata.test","aud":"api","tenant":"t1"`+exp(time.Hour)+`}`))
	for name, more := range map[string]string{
		"20 KB": `,"x":"` + strings.Repeat("x", 20<<10) + `"`, "10,000 claims": manyClaims(10000), "nesting of 1,000": `,"x":` + strings.Repeat("[", 1000) + strings.Repeat("]", 1000),
		"nesting of 10,000": `,"x":` + strings.Repeat(`{"x":`, 7000) + "1" + strings.Repeat("}", 7000),
	} {
		out = append(out, vector{name: name, threat: "A17", raw: get("/tenants/t1/x", sign(usualHeader, claims(exp(time.Hour)+more))), status: []int{200, 401, 431, 0}, arrives: "*"})
	}
	return out
}

func manyClaims(n int) string {
	var b strings.Builder
	for i := range n {
		fmt.Fprintf(&b, `,"c%d":%d`, i, i)
	}
	return b.String()
}

// hs256 is signed with the public key as if it were a secret.
func (x *arena) hs256(t *testing.T) string {
	t.Helper()
	input := b64(`{"alg":"HS256","kid":"k"}`) + "." + b64(claims(exp(time.Hour)))
	public, err := x.a.key.PublicKey.Bytes()
	if err != nil {
		t.Fatal(err)
	}
	mac := hmac.New(sha256.New, public)
	mac.Write([]byte(input))
	return input + "." + base64.RawURLEncoding.EncodeToString(mac.Sum(nil))
}
