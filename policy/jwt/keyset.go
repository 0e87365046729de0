package jwt

import (
	"bytes"
	"crypto/ecdh"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"math/big"
)

// MaxKeys bounds the keys that are taken from one set.
const MaxKeys = 100

// minRSABits is below what no token is worth verifying: RFC 7518, section 3.3, demands 2048.
const minRSABits = 2048

// jwk has the public members of a JSON Web Key (RFC 7517, RFC 7518, RFC 8037) and nothing else: what is not listed does not pass.
type jwk struct {
	Kty string `json:"kty"`
	Kid string `json:"kid,omitempty"`
	Alg string `json:"alg,omitempty"`
	Use string `json:"use,omitempty"`
	N   string `json:"n,omitempty"`
	E   string `json:"e,omitempty"`
	Crv string `json:"crv,omitempty"`
	X   string `json:"x,omitempty"`
	Y   string `json:"y,omitempty"`
}

// PublicKeys reads a JWKS and writes it again with its usable public keys alone: private parts, symmetric keys and keys for encryption are
// left out, so that no secret ever reaches a proxy. A document without a usable key is an error.
func PublicKeys(document []byte) (string, error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	if err := json.Unmarshal(document, &set); err != nil {
		return "", errors.New("not a JSON Web Key Set: it is no JSON object with a list `keys`") // err may quote the document
	}
	if len(set.Keys) > MaxKeys {
		return "", fmt.Errorf("a key set of %d keys; at most %d are accepted", len(set.Keys), MaxKeys)
	}
	out := struct {
		Keys []jwk `json:"keys"`
	}{}
	var why error
	for i, raw := range set.Keys {
		k, err := publicKey(raw)
		if err != nil {
			why = errors.Join(why, fmt.Errorf("keys[%d]: %w", i, err))
			continue
		}
		out.Keys = append(out.Keys, k)
	}
	if len(out.Keys) == 0 {
		return "", errors.Join(errors.New("a key set without a usable public key"), why)
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if err := enc.Encode(out); err != nil {
		return "", err
	}
	return string(bytes.TrimSpace(b.Bytes())), nil
}

func publicKey(raw json.RawMessage) (jwk, error) {
	var k jwk
	if err := json.Unmarshal(raw, &k); err != nil {
		return jwk{}, errors.New("not a JSON Web Key")
	}
	if k.Use != "" && k.Use != "sig" {
		return jwk{}, errors.New("is not for signatures")
	}
	switch k.Kty {
	case "RSA":
		return jwk{Kty: k.Kty, Kid: k.Kid, Alg: k.Alg, Use: k.Use, N: k.N, E: k.E}, checkRSA(k)
	case "EC":
		return jwk{Kty: k.Kty, Kid: k.Kid, Alg: k.Alg, Use: k.Use, Crv: k.Crv, X: k.X, Y: k.Y}, checkEC(k)
	case "OKP":
		return jwk{Kty: k.Kty, Kid: k.Kid, Alg: k.Alg, Use: k.Use, Crv: k.Crv, X: k.X}, checkOKP(k)
	case "oct":
		return jwk{}, errors.New("is a symmetric key: whoever verifies with it could sign too")
	default:
		return jwk{}, errors.New("is of no known type (RSA, EC, OKP)")
	}
}

func checkRSA(k jwk) error {
	n, err := decode(k.N)
	if err != nil {
		return err
	}
	e, err := decode(k.E)
	if err != nil {
		return err
	}
	if bits := new(big.Int).SetBytes(n).BitLen(); bits < minRSABits || bits > 16384 {
		return fmt.Errorf("is an RSA key of %d bits; %d to 16384 are accepted", bits, minRSABits)
	}
	if exp := new(big.Int).SetBytes(e); exp.Bit(0) == 0 || exp.BitLen() < 2 || exp.BitLen() > 32 {
		return errors.New("is an RSA key with an unsafe exponent")
	}
	return nil
}

func checkEC(k jwk) error {
	curve, size := ecdh.Curve(nil), 0
	switch k.Crv {
	case "P-256":
		curve, size = ecdh.P256(), 32
	case "P-384":
		curve, size = ecdh.P384(), 48
	case "P-521":
		curve, size = ecdh.P521(), 66
	default:
		return errors.New("is on no known curve (P-256, P-384, P-521)")
	}
	x, err := decode(k.X)
	if err != nil {
		return err
	}
	y, err := decode(k.Y)
	if err != nil {
		return err
	}
	if len(x) != size || len(y) != size {
		return errors.New("has coordinates of the wrong length")
	}
	if _, err := curve.NewPublicKey(append(append([]byte{4}, x...), y...)); err != nil {
		return errors.New("is not a point of its curve")
	}
	return nil
}

func checkOKP(k jwk) error {
	x, err := decode(k.X)
	if err != nil {
		return err
	}
	if k.Crv != "Ed25519" || len(x) != 32 {
		return errors.New("is no Ed25519 key")
	}
	return nil
}

func decode(s string) ([]byte, error) {
	b, err := base64.RawURLEncoding.DecodeString(s)
	if err != nil || len(b) == 0 {
		return nil, errors.New("has a number that is not base64url")
	}
	return b, nil
}
