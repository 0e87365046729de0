package jwt

import (
	"slices"
	"strings"

	"github.com/credence-mesh/credence/policy"
)

// discoveryPath is OpenID Connect Discovery 1.0, section 4: appended to the issuer without its trailing slash.
const discoveryPath = "/.well-known/openid-configuration"

// At is the URI from which the keys of the issuer come, and the name of their policy.JWKS in the Set; empty where they are given inline.
// Where no jwksUri is given it is the issuer's OpenID discovery document.
func (i Issuer) At() string {
	switch {
	case i.Keys.Inline != "":
		return ""
	case i.Keys.URI != "":
		return i.Keys.URI
	case i.Issuer == "":
		return ""
	default:
		return strings.TrimSuffix(i.Issuer, "/") + discoveryPath
	}
}

// Discovered tells whether At is a discovery document rather than a key set.
func (i Issuer) Discovered() bool { return i.Keys.Inline == "" && i.Keys.URI == "" && i.Issuer != "" }

// Document is the key set of an issuer; empty while none is known: its tokens then fail.
func Document(set *policy.Set, i Issuer) string {
	if i.Keys.Inline != "" {
		keys, err := PublicKeys([]byte(i.Keys.Inline))
		if err != nil {
			return ""
		}
		return keys
	}
	if keys, ok := policy.Get[*policy.JWKS](set, "", i.At()); ok && !keys.Void {
		return keys.Document
	}
	return ""
}

// Wanted is every issuer of the mesh whose keys must be fetched, each place once, by place.
func Wanted(set *policy.Set) []Sourced {
	var out []Sourced
	for ra := range policy.All[*policy.RequestAuthentication](set) {
		if ra.Void {
			continue
		}
		for _, r := range ra.Spec.GetJwtRules() {
			if i := issuer(r); i.At() != "" {
				out = append(out, Sourced{Issuer: i, From: &ra.Object})
			}
		}
	}
	slices.SortStableFunc(out, func(a, b Sourced) int { return strings.Compare(a.At(), b.At()) })
	return slices.CompactFunc(out, func(a, b Sourced) bool { return a.At() == b.At() })
}

// HeadersOut is every request header that some RequestAuthentication of the mesh fills from a verified token, in lower case and sorted.
// Nobody outside may set them, so an edge removes them before anything else.
func HeadersOut(set *policy.Set) []string {
	var out []string
	for ra := range policy.All[*policy.RequestAuthentication](set) {
		for _, r := range ra.Spec.GetJwtRules() {
			out = append(out, issuer(r).Headers()...)
		}
	}
	slices.Sort(out)
	return slices.Compact(out)
}

// Headers is the request headers that this issuer's tokens fill, in lower case.
func (i Issuer) Headers() []string {
	var out []string
	if i.PayloadTo != "" {
		out = append(out, i.PayloadTo)
	}
	for _, c := range i.ClaimsTo {
		out = append(out, c.Header)
	}
	return out
}

// Headers is the request headers that tokens fill at one workload, sorted.
func (a Authentication) Headers() []string {
	var out []string
	for _, i := range a.Issuers {
		out = append(out, i.Issuer.Headers()...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}
