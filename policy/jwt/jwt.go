// Package jwt is the meaning of RequestAuthentication: which issuers' tokens a workload accepts, and what becomes of their claims.
package jwt

import "time"

// Issuer is one accepted issuer of tokens at a workload.
type Issuer struct {
	Name      string // "origins-0", "origins-1": Istio's names of the providers, in the order of issuers
	Issuer    string // the `iss` claim; empty: not checked
	Audiences []string
	Keys      KeySource
	// FromHeaders, FromParams and FromCookies are where the token is looked for; all empty means the default (Authorization: Bearer).
	FromHeaders []HeaderLocation
	FromParams  []string
	FromCookies []string
	Forward     bool   // forwardOriginalToken
	PayloadTo   string // outputPayloadToHeader: base64url(payload), unpadded; empty: none
	ClaimsTo    []ClaimHeader
	SplitClaims []string      // spaceDelimitedClaims, beside scope and permission
	Timeout     time.Duration // of one fetch of the keys
}

// KeySource is where the keys come from: a JWKS given inline, or the URI from which the control plane fetches it. The proxies never fetch.
type KeySource struct {
	Inline string // a JWKS document
	URI    string // jwksUri; where both are empty: OpenID discovery at the issuer
}

// HeaderLocation is a header that carries a token, after a prefix.
type HeaderLocation struct{ Name, Prefix string }

// ClaimHeader is a claim that is copied into a request header once the token is verified.
type ClaimHeader struct {
	Header string
	Claim  string // dots descend into nested claims
}
