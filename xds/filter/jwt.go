package filter

import (
	"cmp"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtauthnv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/emptypb"

	"github.com/credence-mesh/credence/policy/jwt"
	"github.com/credence-mesh/credence/xds/ir"
)

const (
	// ClaimsNamespace is the dynamic metadata in which Envoy's jwt_authn leaves verified claims, under ClaimsKey: as in Istio.
	ClaimsNamespace = "envoy.filters.http.jwt_authn"
	// ClaimsKey is the key of the verified claims.
	ClaimsKey = "payload"

	// clockSkew in seconds is how long a token outlives its `exp` for clocks that differ. Envoy's own default is that of Istio.
	clockSkew      = 5
	istioClockSkew = 60
	// istioParam is the query parameter in which Istio looks for a token where a policy names no place.
	istioParam = "access_token"
	// tokenCache is how many verified tokens a worker remembers for an issuer: verifying costs more than all other filters together.
	tokenCache = 1000
	// neverProvider is a provider whose token nobody can sign: to require it is to refuse with 401.
	neverProvider = "credence-refuse"
)

// noKey is a key that verifies nothing: a point of P-256 whose x coordinate is a hash of a sentence, so nobody knows its private key.
// Envoy refuses an empty key set; with this one, tokens fail with 401 until the issuer's keys are known.
const noKey = `{"keys":[{"kty":"EC","crv":"P-256","alg":"ES256","use":"sig","kid":"credence-no-key","x":"IrjyPiDARKCXinMUkb-46terE3MOHUhSRek7yqqdtlk","y":"QNH_SlDjNxhAkmd-GjwKYXuUFshnQ1Trj0PeveO-Xfo"}]}`

func jwtTypes() []proto.Message { return []proto.Message{&jwtauthnv3.JwtAuthentication{}} }

// jwtAuthn verifies tokens. As in Istio a request without any token passes, and one with a token that no issuer vouches for is refused.
func jwtAuthn(h *ir.HTTP) (made, error) {
	config := &jwtauthnv3.JwtAuthentication{BypassCorsPreflight: true}
	m := made{config: config}
	issuers := h.Guard.Issuers
	if len(issuers) == 0 {
		return m, nil // no rules: tokens are not looked at
	}
	config.Providers = map[string]*jwtauthnv3.JwtProvider{neverProvider: neverSatisfied()}
	for _, i := range issuers {
		config.Providers[i.Name] = provider(i, h.Lenient)
		m.sources = append(m.sources, i.Source)
	}
	if !h.Lenient {
		config.Rules = malformed(issuers)
	}
	config.Rules = append(config.Rules, rule(requirement(issuers)))
	return m, nil
}

func provider(i ir.Issuer, lenient bool) *jwtauthnv3.JwtProvider {
	p := &jwtauthnv3.JwtProvider{
		Issuer: i.Issuer.Issuer, Audiences: i.Audiences,
		JwksSourceSpecifier: keys(cmp.Or(i.JWKS, noKey)),
		Forward:             i.Forward, ForwardPayloadHeader: i.PayloadTo,
		PayloadInMetadata:          ClaimsKey,
		NormalizePayloadInMetadata: &jwtauthnv3.JwtProvider_NormalizePayload{SpaceDelimitedClaims: append([]string{"scope", "permission"}, i.SplitClaims...)},
		ClockSkewSeconds:           clockSkew, RequireExpiration: true,
		JwtCacheConfig: &jwtauthnv3.JwtCacheConfig{JwtCacheSize: tokenCache},
		FromParams:     i.FromParams, FromCookies: i.FromCookies,
	}
	if lenient {
		p.ClockSkewSeconds, p.RequireExpiration = istioClockSkew, false
		if nowhere(i.Issuer) {
			p.FromParams = []string{istioParam}
		}
	}
	for _, l := range headerLocations(i.Issuer) {
		p.FromHeaders = append(p.FromHeaders, &jwtauthnv3.JwtHeader{Name: l.Name, ValuePrefix: l.Prefix})
	}
	for _, c := range i.ClaimsTo {
		p.ClaimToHeaders = append(p.ClaimToHeaders, &jwtauthnv3.JwtClaimToHeader{HeaderName: c.Header, ClaimName: c.Claim})
	}
	return p
}

func keys(document string) *jwtauthnv3.JwtProvider_LocalJwks {
	return &jwtauthnv3.JwtProvider_LocalJwks{LocalJwks: &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: document}}}
}

// headerLocations spells out the default. Envoy's own would also take a token from ?access_token=, which ends up in logs and referrers.
func headerLocations(i jwt.Issuer) []jwt.HeaderLocation {
	if nowhere(i) {
		return []jwt.HeaderLocation{{Name: "authorization", Prefix: "Bearer "}}
	}
	return i.FromHeaders
}

// nowhere tells whether a policy names no place where tokens stand.
func nowhere(i jwt.Issuer) bool {
	return len(i.FromHeaders) == 0 && len(i.FromParams) == 0 && len(i.FromCookies) == 0
}

// requirement is Istio's: some provider accepts the token; or there is none that is not accepted.
func requirement(issuers []ir.Issuer) *jwtauthnv3.JwtRequirement {
	var each []*jwtauthnv3.JwtRequirement
	all := &jwtauthnv3.JwtRequirementAndList{}
	for _, i := range issuers {
		p := &jwtauthnv3.JwtRequirement{RequiresType: &jwtauthnv3.JwtRequirement_ProviderName{ProviderName: i.Name}}
		each = append(each, p)
		all.Requirements = append(all.Requirements, anyOf(p, allowMissing()))
	}
	if len(each) == 1 {
		return anyOf(each[0], allowMissing())
	}
	return anyOf(append(each, &jwtauthnv3.JwtRequirement{RequiresType: &jwtauthnv3.JwtRequirement_RequiresAll{RequiresAll: all}})...)
}

func anyOf(of ...*jwtauthnv3.JwtRequirement) *jwtauthnv3.JwtRequirement {
	return &jwtauthnv3.JwtRequirement{RequiresType: &jwtauthnv3.JwtRequirement_RequiresAny{RequiresAny: &jwtauthnv3.JwtRequirementOrList{Requirements: of}}}
}

func allowMissing() *jwtauthnv3.JwtRequirement {
	return &jwtauthnv3.JwtRequirement{RequiresType: &jwtauthnv3.JwtRequirement_AllowMissing{AllowMissing: &emptypb.Empty{}}}
}

func rule(r *jwtauthnv3.JwtRequirement, headers ...*routev3.HeaderMatcher) *jwtauthnv3.RequirementRule {
	return &jwtauthnv3.RequirementRule{
		Match:           &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}, Headers: headers},
		RequirementType: &jwtauthnv3.RequirementRule_Requires{Requires: r},
	}
}

// neverSatisfied answers 401: the private key of noKey does not exist.
func neverSatisfied() *jwtauthnv3.JwtProvider {
	return &jwtauthnv3.JwtProvider{
		Issuer: "https://credence.invalid/", JwksSourceSpecifier: keys(noKey), RequireExpiration: true,
		FromHeaders: []*jwtauthnv3.JwtHeader{{Name: "x-credence-never"}},
	}
}
