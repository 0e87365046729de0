package jwt

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/json"
	"strings"
	"testing"

	"github.com/go-jose/go-jose/v4"
)

// set marshals keys, private parts and all.
func set(t *testing.T, keys ...any) string {
	t.Helper()
	var s jose.JSONWebKeySet
	for _, k := range keys {
		s.Keys = append(s.Keys, jose.JSONWebKey{Key: k, KeyID: "k", Use: "sig"})
	}
	b, err := json.Marshal(s)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestPublicKeys(t *testing.T) {
	t.Parallel()
	ec, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	big, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	_, ed, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	const small = `{"kty":"RSA","n":"sXchDaQebHnPiGvyDOAT4saGEUetSyo9MKLOoWFsueri23bOdgWp4Dy1WlUzewbgBHod5pcM9H95GQRV3JDXboIRROSBigeC5yjU1hGzHHyXss8UDprecbAYxknTcQkhslANGRUZmdTOQ5qTRsLAt6BTYuyvVRdhS8exSZEy_c4","e":"AQAB"}`
	for _, tc := range []struct {
		name, document string
		keys           int // 0: refused
	}{
		{"public and private", set(t, ec, big, ed), 3},
		{"symmetric is left out", set(t, []byte("0123456789abcdef0123456789abcdef"), ec), 1},
		{"symmetric alone", set(t, []byte("0123456789abcdef0123456789abcdef")), 0},
		{"for encryption alone", strings.ReplaceAll(set(t, ec), `"use":"sig"`, `"use":"enc"`), 0},
		{"no keys", `{"keys":[]}`, 0},
		{"no list", `{"keys":{}}`, 0},
		{"no JSON", `<html>`, 0},
		{"RSA of 1024 bits", `{"keys":[` + small + `]}`, 0},
		{"exponent 1", strings.ReplaceAll(set(t, big), `"AQAB"`, `"AQ"`), 0},
		{"point off the curve", `{"keys":[{"kty":"EC","crv":"P-256","x":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE","y":"AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAE"}]}`, 0},
		{"unknown type beside a good one", strings.Replace(set(t, ec), `{"keys":[`, `{"keys":[{"kty":"PQC"},7,`, 1), 1},
		{"too many", `{"keys":[` + strings.Repeat(`{},`, MaxKeys) + `{}]}`, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			got, err := PublicKeys([]byte(tc.document))
			if (err == nil) != (tc.keys > 0) {
				t.Fatalf("err = %v", err)
			}
			if tc.keys == 0 {
				return
			}
			var back jose.JSONWebKeySet
			if err := json.Unmarshal([]byte(got), &back); err != nil || len(back.Keys) != tc.keys {
				t.Fatalf("%d keys, %v", len(back.Keys), err)
			}
			for _, k := range back.Keys {
				if !k.IsPublic() {
					t.Errorf("a private key passed: %s", got)
				}
			}
			if again, err := PublicKeys([]byte(got)); err != nil || again != got {
				t.Errorf("not stable: %v", err)
			}
		})
	}
}

func FuzzPublicKeys(f *testing.F) {
	f.Add([]byte(`{"keys":[{"kty":"EC","crv":"P-256","x":"","y":"","d":"AQ"}]}`))
	f.Add([]byte(`{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB","p":"AQ"}]}`))
	f.Fuzz(func(t *testing.T, b []byte) {
		got, err := PublicKeys(b)
		if err != nil {
			return
		}
		for _, private := range []string{`"d":`, `"p":`, `"q":`, `"dp":`, `"dq":`, `"qi":`, `"k":`} {
			var s struct{ Keys []map[string]any }
			if err := json.Unmarshal([]byte(got), &s); err != nil {
				t.Fatal(err)
			}
			for _, k := range s.Keys {
				if _, ok := k[strings.Trim(private, `":`)]; ok {
					t.Fatalf("%s passed", private)
				}
			}
		}
	})
}
