package explain

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rsa"
	_ "crypto/sha256" // the hashes of the algorithms
	_ "crypto/sha512"
	"encoding/json"
	"math/big"
	"strings"

	jwtauthnv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
)

// key is a public key of a key set.
type key struct {
	kid, alg, crv string
	public        crypto.PublicKey
}

// keysIn reads a JWKS. What is no usable key is left out: it verifies nothing.
func (m *memory) keysIn(document string) []key {
	if known, ok := m.keys.Load(document); ok {
		return known.([]key)
	}
	var set struct {
		Keys []struct {
			Kty, Kid, Alg, Crv, N, E, X, Y string
		}
	}
	var out []key
	if json.Unmarshal([]byte(document), &set) == nil {
		for _, k := range set.Keys {
			number := func(s string) *big.Int {
				b, _ := decode(s) // what is no number is zero, and verifies nothing
				return new(big.Int).SetBytes(b)
			}
			one := key{kid: k.Kid, alg: k.Alg, crv: k.Crv}
			switch point, ok := pointOn(k.Crv, k.X, k.Y); {
			case k.Kty == "RSA":
				one.public = &rsa.PublicKey{N: number(k.N), E: int(number(k.E).Int64())}
			case k.Kty == "EC" && ok:
				one.public = point
			case k.Kty == "OKP" && k.Crv == "Ed25519":
				b, _ := decode(k.X)
				if len(b) != ed25519.PublicKeySize {
					continue
				}
				one.public = ed25519.PublicKey(b)
			default:
				continue
			}
			out = append(out, one)
		}
	}
	m.keys.Store(document, out)
	return out
}

// pointOn is a public key on a curve.
func pointOn(curve, x, y string) (*ecdsa.PublicKey, bool) {
	on, ok := map[string]elliptic.Curve{"P-256": elliptic.P256(), "P-384": elliptic.P384(), "P-521": elliptic.P521()}[curve]
	if !ok {
		return nil, false
	}
	a, err := decode(x)
	if err != nil {
		return nil, false
	}
	b, err := decode(y)
	if err != nil {
		return nil, false
	}
	public, err := ecdsa.ParseUncompressedPublicKey(on, append(append([]byte{4}, a...), b...))
	return public, err == nil
}

// noKeyID is the key that the control plane puts in place of keys which it does not know.
const noKeyID = "credence-no-key"

// signed verifies the signature; it says what is wrong.
func (v *verification) signed(p *jwtauthnv3.JwtProvider, t token) string {
	document := p.GetLocalJwks().GetInlineString()
	if document == "" {
		return "the keys of issuer " + t.issuer + " are not in the configuration"
	}
	keys := v.run.config.remembered.keysIn(document)
	if len(keys) == 1 && keys[0].kid == noKeyID {
		return "the keys of issuer " + t.issuer + " are not known here; give them in credence.yaml under jwks, or give --claims"
	}
	tried := false
	for _, k := range keys {
		if t.kid != "" && k.kid != "" && t.kid != k.kid || k.alg != "" && k.alg != t.alg {
			continue
		}
		tried = true
		if k.verifies(t) {
			return ""
		}
	}
	if !tried {
		return "no key of issuer " + t.issuer + " has the token's kid and alg"
	}
	return "the token's signature is wrong"
}

func (k key) verifies(t token) bool {
	if len(t.alg) < 5 {
		return false
	}
	hash := map[string]crypto.Hash{"256": crypto.SHA256, "384": crypto.SHA384, "512": crypto.SHA512}[t.alg[2:]]
	digest := func() []byte {
		h := hash.New()
		h.Write([]byte(t.signed))
		return h.Sum(nil)
	}
	switch public := k.public.(type) {
	case ed25519.PublicKey:
		return t.alg == "EdDSA" && ed25519.Verify(public, []byte(t.signed), t.signature)
	case *rsa.PublicKey:
		switch {
		case hash == 0:
			return false
		case strings.HasPrefix(t.alg, "RS"):
			return rsa.VerifyPKCS1v15(public, hash, digest(), t.signature) == nil
		case strings.HasPrefix(t.alg, "PS"):
			return rsa.VerifyPSS(public, hash, digest(), t.signature, nil) == nil
		}
	case *ecdsa.PublicKey:
		size := (public.Params().BitSize + 7) / 8
		if t.alg != map[string]string{"P-256": "ES256", "P-384": "ES384", "P-521": "ES512"}[k.crv] || len(t.signature) != 2*size {
			return false
		}
		r, s := new(big.Int).SetBytes(t.signature[:size]), new(big.Int).SetBytes(t.signature[size:])
		return ecdsa.Verify(public, digest(), r, s)
	}
	return false
}
