// Package issuer is a token issuer for tests and the demo: it signs whatever claims it is given, and serves its public keys as a JWKS. It
// also makes the tokens that an attacker would.
package issuer

import (
	"crypto"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"time"

	"github.com/go-jose/go-jose/v4"
)

// Claims is what a token says.
type Claims = map[string]any

// Issuer signs tokens in one name. It is immutable.
type Issuer struct {
	name string
	keys []jose.JSONWebKey // private; the first signs
}

// New makes an issuer with one key. The algorithm is ES256 or RS256.
func New(name string, alg jose.SignatureAlgorithm) (*Issuer, error) {
	key, err := newKey(name, alg, 1)
	if err != nil {
		return nil, err
	}
	return &Issuer{name: name, keys: []jose.JSONWebKey{key}}, nil
}

func newKey(name string, alg jose.SignatureAlgorithm, n int) (jose.JSONWebKey, error) {
	var key crypto.Signer
	var err error
	switch alg {
	case jose.ES256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case jose.RS256:
		key, err = rsa.GenerateKey(rand.Reader, 2048)
	default:
		return jose.JSONWebKey{}, fmt.Errorf("issuer %s: algorithm %s is neither ES256 nor RS256", name, alg)
	}
	if err != nil {
		return jose.JSONWebKey{}, fmt.Errorf("issuer %s: %w", name, err)
	}
	return jose.JSONWebKey{Key: key, KeyID: fmt.Sprintf("%s-%d", alg, n), Algorithm: string(alg), Use: "sig"}, nil
}

// Rotated is the issuer after a key rotation: it signs with a new key and still publishes the old ones.
func (i *Issuer) Rotated() (*Issuer, error) {
	key, err := newKey(i.name, jose.SignatureAlgorithm(i.keys[0].Algorithm), len(i.keys)+1)
	if err != nil {
		return nil, err
	}
	return &Issuer{name: i.name, keys: append([]jose.JSONWebKey{key}, i.keys...)}, nil
}

// Name is the iss claim.
func (i *Issuer) Name() string { return i.name }

// Token signs claims. iss, iat and an exp one hour ahead are filled in where claims do not say otherwise; a nil value removes a claim.
func (i *Issuer) Token(claims Claims) (string, error) {
	payload, err := i.payload(claims)
	if err != nil {
		return "", err
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.SignatureAlgorithm(i.keys[0].Algorithm), Key: i.keys[0]},
		(&jose.SignerOptions{}).WithType("JWT"))
	if err != nil {
		return "", fmt.Errorf("issuer %s: %w", i.name, err)
	}
	signed, err := signer.Sign(payload)
	if err != nil {
		return "", fmt.Errorf("issuer %s: %w", i.name, err)
	}
	return signed.CompactSerialize()
}

// Unsigned is the attack "alg": "none": the claims, and no signature.
func (i *Issuer) Unsigned(claims Claims) (string, error) {
	payload, err := i.payload(claims)
	if err != nil {
		return "", err
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"none","typ":"JWT"}`)) + "." + encode(payload) + ".", nil
}

func (i *Issuer) payload(claims Claims) ([]byte, error) {
	now := time.Now()
	full := Claims{"iss": i.name, "iat": now.Unix(), "exp": now.Add(time.Hour).Unix()}
	for k, v := range claims {
		if v == nil {
			delete(full, k)
			continue
		}
		full[k] = v
	}
	b, err := json.Marshal(full)
	if err != nil {
		return nil, fmt.Errorf("claims: %w", err)
	}
	return b, nil
}

// JWKS is the document with the public keys.
func (i *Issuer) JWKS() ([]byte, error) {
	var set jose.JSONWebKeySet
	for _, k := range i.keys {
		set.Keys = append(set.Keys, k.Public())
	}
	return json.Marshal(set)
}

// ServeHTTP serves the JWKS at every path.
func (i *Issuer) ServeHTTP(w http.ResponseWriter, _ *http.Request) {
	doc, err := i.JWKS()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(doc) // the client has gone: nobody to tell
}
