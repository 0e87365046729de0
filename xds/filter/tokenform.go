package filter

import (
	"regexp"
	"slices"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	jwtauthnv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/credence-mesh/credence/policy/jwt"
	"github.com/credence-mesh/credence/xds/ir"
)

// maxPlace is the longest prefix of a token, or name of a parameter or cookie, that a regular expression of Envoy's size can look for twice;
// where one is longer, all is refused.
const maxPlace = 40

const (
	// threeParts is a token as RFC 7515 has it. Envoy reads as far as it understands: it takes "a.b.c." for "a.b.c", a backend need not.
	threeParts = `[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+\.[A-Za-z0-9_-]+`
	// critical is "crit" in quotes, in base64, as it comes out at each of the three offsets. The header of a token lists there what whoever
	// verifies it must understand; Envoy understands nothing and ignores it.
	critical = `(ImNyaXQi|[CSiy]Jjcml0I[g-v]|[AEIMQUYcgkosw048]iY3JpdC[I-L])`
)

// malformed refuses, with 401, what Envoy would accept for a token although another server may read another one, or none.
func malformed(issuers []ir.Issuer) []*jwtauthnv3.RequirementRule {
	var out []*jwtauthnv3.RequirementRule
	var headers []jwt.HeaderLocation
	var params, cookies []string
	for _, i := range issuers {
		headers = append(headers, headerLocations(i.Issuer)...)
		params, cookies = append(params, i.FromParams...), append(cookies, i.FromCookies...)
	}
	for n, l := range headers {
		if !slices.Contains(headers[:n], l) {
			out = append(out, malformedHeader(l, headers)...)
		}
	}
	for _, p := range distinct(params) {
		out = append(out, malformedParam(p)...)
	}
	if len(params) > 0 {
		// Envoy finds a token also where the name of its parameter is escaped, and the conditions above do not.
		out = append(out, refuseToken(onHeaderValue(":path", regex(`\C*[?&][^=&]*%[^=&]*=\C*`, false))))
	}
	for _, c := range distinct(cookies) {
		out = append(out, malformedCookie(c)...)
	}
	return out
}

func distinct(names []string) []string {
	slices.Sort(names)
	return slices.Compact(names)
}

// malformedHeader: a prefix counts only at the start of the header (Envoy looks for it in the whole value, so that "xxBearer <token>" is
// accepted; and of two tokens it verifies the first, while a backend may read the second), and nothing but a token follows it.
func malformedHeader(l jwt.HeaderLocation, all []jwt.HeaderLocation) []*jwtauthnv3.RequirementRule {
	if len(l.Prefix) > maxPlace {
		return []*jwtauthnv3.RequirementRule{refuseToken()}
	}
	prefix := regexp.QuoteMeta(l.Prefix)
	begins := onHeaderValue(l.Name, &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: l.Prefix}})
	if l.Prefix == "" {
		begins = onHeaderValue(l.Name, regex(`\C+`, false))
		if slices.ContainsFunc(all, func(o jwt.HeaderLocation) bool { return o.Name == l.Name && o.Prefix != "" }) {
			return nil // the header may also hold what stands behind the other prefix
		}
	}
	bad := onHeaderValue(l.Name, regex(prefix+threeParts, false))
	bad.InvertMatch = true
	out := []*jwtauthnv3.RequirementRule{
		refuseToken(begins, bad),
		refuseToken(begins, onHeaderValue(l.Name, regex(prefix+`[^.]*`+critical+`[^.]*\.\C*`, false))),
	}
	if l.Prefix != "" {
		out = append(out, refuseToken(onHeaderValue(l.Name, regex(`\C+`+prefix+`\C*`, false))))
	}
	return out
}

func malformedParam(name string) []*jwtauthnv3.RequirementRule {
	if len(name) > maxPlace {
		return []*jwtauthnv3.RequirementRule{refuseToken()}
	}
	quoted := regexp.QuoteMeta(name)
	twice := refuseToken(onHeaderValue(":path", regex(`\C*[?&]`+quoted+`=\C*&`+quoted+`=\C*`, false)))
	out := []*jwtauthnv3.RequirementRule{twice}
	for _, bad := range []string{`\C*[^A-Za-z0-9_.-]\C*`, `([^.]*\.){3}\C*`, `[^.]*` + critical + `[^.]*\.\C*`} {
		r := refuseToken()
		r.Match.QueryParameters = []*routev3.QueryParameterMatcher{{
			Name: name, QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{StringMatch: regex(bad, false)},
		}}
		out = append(out, r)
	}
	return out
}

func malformedCookie(name string) []*jwtauthnv3.RequirementRule {
	if len(name) > maxPlace {
		return []*jwtauthnv3.RequirementRule{refuseToken()}
	}
	at := `(\C*[; ])?` + regexp.QuoteMeta(name) + `=`
	var out []*jwtauthnv3.RequirementRule
	for _, bad := range []string{`[^;]*[^A-Za-z0-9_.;-]\C*`, `([^.;]*\.){3}\C*`, `[^.;]*` + critical + `\C*`, `\C*[; ]` + regexp.QuoteMeta(name) + `=\C*`} {
		out = append(out, refuseToken(onHeaderValue("cookie", regex(at+bad, false))))
	}
	return out
}

// refuseToken answers 401 where all conditions hold.
func refuseToken(headers ...*routev3.HeaderMatcher) *jwtauthnv3.RequirementRule {
	return rule(&jwtauthnv3.JwtRequirement{RequiresType: &jwtauthnv3.JwtRequirement_ProviderName{ProviderName: neverProvider}}, headers...)
}

func onHeaderValue(name string, m *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: m}}
}
