package explain

import (
	"fmt"
	"slices"
	"strings"

	jwtauthnv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// status is how a token fared. The zero value is no verdict.
type status struct {
	kind statusKind
	says string
}

type statusKind uint8

const (
	undecided  statusKind = iota
	good                  // verified, or nothing was asked
	missed                // there is no token
	stranger              // of an issuer that the provider does not know
	unaudience            // for somebody else: 403
	bad                   // anything else
)

// jwt verifies tokens as the rules of the filter ask.
func (r *run) jwt(name string, m *jwtauthnv3.JwtAuthentication) {
	if m.GetBypassCorsPreflight() && r.preflight() {
		r.skip(name, "a CORS preflight carries no token")
		return
	}
	for _, x := range m.GetRules() {
		switch r.config.remembered.route(x.GetMatch(), r.headers) {
		case maybe:
			r.unsure(name, "a rule is matched in a way that cannot be evaluated here")
			return
		case yes:
			r.require(name, m, x.GetRequires())
			return
		case no:
		}
	}
	r.skip(name, "no RequestAuthentication covers the request")
}

func (r *run) preflight() bool {
	return r.headers.value(":method") == "OPTIONS" && r.headers.value("origin") != "" && r.headers.value("access-control-request-method") != ""
}

func (r *run) require(name string, m *jwtauthnv3.JwtAuthentication, want *jwtauthnv3.JwtRequirement) {
	v := verification{run: r, config: m, payloads: map[string]*structpb.Value{}}
	s := v.requirement(want)
	switch s.kind {
	case good:
		for key, p := range v.payloads {
			r.metadata.set(claimsNamespace, key, p)
		}
		if len(v.verified) == 0 {
			r.pass(name, "no token, and none is required here")
		} else {
			r.pass(name, strings.Join(v.verified, "; "))
		}
	case unaudience:
		r.deny(name, 403, s.says)
	case undecided:
		r.unsure(name, s.says)
	default:
		r.deny(name, 401, s.says)
	}
	if r.done {
		r.blame(name)
	}
}

// blame names the RequestAuthentication that refused, where it can be only one.
func (r *run) blame(name string) {
	for full, e := range r.config.extensions {
		if _, ok := e.config.(*jwtauthnv3.JwtAuthentication); ok && slot(full) == name && strings.HasPrefix(full, r.conn.name+"/") && len(e.sources) > 0 {
			r.out.Policy, r.out.At = objectName(e.sources[0].Object), e.sources[0].At
		}
	}
}

// verification is one evaluation of the requirements.
type verification struct {
	*run
	config   *jwtauthnv3.JwtAuthentication
	payloads map[string]*structpb.Value
	verified []string
}

func (v *verification) requirement(x *jwtauthnv3.JwtRequirement) status {
	switch k := x.GetRequiresType().(type) {
	case nil:
		return status{kind: good}
	case *jwtauthnv3.JwtRequirement_ProviderName:
		return v.provider(k.ProviderName, nil)
	case *jwtauthnv3.JwtRequirement_ProviderAndAudiences:
		return v.provider(k.ProviderAndAudiences.GetProviderName(), k.ProviderAndAudiences.GetAudiences())
	case *jwtauthnv3.JwtRequirement_RequiresAny:
		return v.any(k.RequiresAny.GetRequirements())
	case *jwtauthnv3.JwtRequirement_RequiresAll:
		last := status{kind: good}
		for _, one := range k.RequiresAll.GetRequirements() {
			if last = v.requirement(one); last.kind != good {
				return last
			}
		}
		return last
	default:
		return status{says: fmt.Sprintf("requirement %T is not evaluated here", k)}
	}
}

// any follows Envoy: one that is satisfied is enough. Of the failures, one that says something about a token wins over a foreign issuer, and
// that over no token; the last of equals counts. Where missing tokens are allowed, only their absence everywhere is one.
func (v *verification) any(of []*jwtauthnv3.JwtRequirement) status {
	final, lenient := status{kind: missed, says: "no token"}, false
	for _, x := range of {
		if x.GetAllowMissing() != nil {
			lenient = true
			continue
		}
		s := v.requirement(x)
		switch {
		case s.kind == good || s.kind == undecided:
			return s
		case s.kind != missed && s.kind != stranger || final.kind == missed:
			final = s
		}
	}
	if lenient && final.kind == missed {
		return status{kind: good}
	}
	return final
}

// provider verifies every token that stands where the provider looks. One that is not good spoils all.
func (v *verification) provider(name string, audiences []string) status {
	p, ok := v.config.GetProviders()[name]
	if !ok {
		return status{says: "provider " + name + " is not there"}
	}
	if len(audiences) == 0 {
		audiences = p.GetAudiences()
	}
	if h := p.GetForwardPayloadHeader(); h != "" {
		v.headers.remove(h)
	}
	for _, c := range p.GetClaimToHeaders() {
		v.headers.remove(c.GetHeaderName())
	}
	tokens := v.extract(p)
	if len(tokens) == 0 {
		return status{kind: missed, says: "no token"}
	}
	slices.Reverse(tokens) // Envoy takes the last place first
	for _, t := range tokens {
		if s := v.verify(p, audiences, t); s.kind != good {
			return s
		}
	}
	return status{kind: good}
}

// placed is a token and the place where it was found.
type placed struct {
	token         string
	header, param string
}

// tokenCharacters are those of a token; what stands before the first of them is no part of it.
const tokenCharacters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789-_."

func (v *verification) extract(p *jwtauthnv3.JwtProvider) []placed {
	var out []placed
	at := slices.Clone(p.GetFromHeaders())
	params := slices.Sorted(slices.Values(p.GetFromParams()))
	if len(at) == 0 && len(params) == 0 && len(p.GetFromCookies()) == 0 {
		at = []*jwtauthnv3.JwtHeader{{Name: "authorization", ValuePrefix: "Bearer "}}
		params = []string{"access_token"}
	}
	slices.SortFunc(at, func(a, b *jwtauthnv3.JwtHeader) int {
		return strings.Compare(strings.ToLower(a.GetName())+a.GetValuePrefix(), strings.ToLower(b.GetName())+b.GetValuePrefix())
	})
	at = slices.CompactFunc(at, func(a, b *jwtauthnv3.JwtHeader) bool {
		return strings.EqualFold(a.GetName(), b.GetName()) && a.GetValuePrefix() == b.GetValuePrefix()
	})
	for _, l := range at {
		for _, value := range v.headers.all(l.GetName()) {
			if t, ok := after(value, l.GetValuePrefix()); ok {
				out = append(out, placed{token: t, header: l.GetName()})
			}
		}
	}
	query := paramsOf(v.headers.path())
	for _, name := range slices.Compact(params) {
		if t, ok := query.first(name); ok {
			out = append(out, placed{token: t, param: name})
		}
	}
	for _, name := range slices.Compact(slices.Sorted(slices.Values(p.GetFromCookies()))) {
		if t, ok := cookie(v.headers, name); ok {
			out = append(out, placed{token: t})
		}
	}
	return out
}

// after is what follows a prefix, wherever that stands in a value.
func after(value, prefix string) (string, bool) {
	if prefix == "" {
		return value, true
	}
	i := strings.Index(value, prefix)
	if i < 0 {
		return "", false
	}
	rest := value[i+len(prefix):]
	if n := strings.IndexAny(rest, tokenCharacters); n >= 0 {
		return rest[n:], true
	}
	return value, true
}

func (v *verification) verify(p *jwtauthnv3.JwtProvider, audiences []string, at placed) status {
	t, says := parse(at.token)
	switch {
	case says != "":
		return status{kind: bad, says: "the token is no JSON Web Token: " + says}
	case p.GetIssuer() != "" && t.issuer != p.GetIssuer():
		return status{kind: stranger, says: fmt.Sprintf("the token's issuer %q is not %q", t.issuer, p.GetIssuer())}
	}
	if s := v.inTime(p, t); s.kind != good {
		return s
	}
	if len(audiences) > 0 && !t.isFor(audiences) {
		return status{kind: unaudience, says: fmt.Sprintf("the token is for audience %q, and this workload is %q", t.audiences, audiences)}
	}
	if p.GetRequireExpiration() && t.expires == 0 {
		return status{kind: bad, says: "the token never expires, and that is not accepted (exp)"}
	}
	if at.token != v.assumed {
		if says := v.signed(p, t); says != "" {
			return status{kind: bad, says: says}
		}
	}
	v.accept(p, t, at)
	return status{kind: good}
}

// skewed is the clock skew of a provider, in seconds; Envoy's default is 60.
func skewed(p *jwtauthnv3.JwtProvider) float64 {
	if n := p.GetClockSkewSeconds(); n > 0 {
		return float64(n)
	}
	return 60
}

func (v *verification) inTime(p *jwtauthnv3.JwtProvider, t token) status {
	now, skew := float64(v.req.Now.Unix()), skewed(p)
	switch {
	case t.notBefore > 0 && now+skew < t.notBefore:
		return status{kind: bad, says: "the token is not valid yet (nbf)"}
	case t.expires > 0 && now > t.expires+skew:
		return status{kind: bad, says: "the token has expired (exp)"}
	case p.GetMaxLifetime() != nil:
		return status{says: "a greatest lifetime of tokens is not evaluated here"}
	}
	return status{kind: good}
}

// accept does what a verified token is good for: its claims go where the provider says, and it is taken away unless it is forwarded.
func (v *verification) accept(p *jwtauthnv3.JwtProvider, t token, at placed) {
	if h := p.GetForwardPayloadHeader(); h != "" {
		v.headers.add(h, t.rawPayload)
	}
	for _, c := range p.GetClaimToHeaders() {
		if s, ok := claimText(t.claims, c.GetClaimName()); ok {
			v.headers.add(c.GetHeaderName(), s)
		}
	}
	if !p.GetForward() {
		switch {
		case at.header != "":
			v.headers.remove(at.header)
		case at.param != "":
			v.headers.set(":path", withoutParam(v.headers.path(), at.param))
		}
	}
	if key := p.GetPayloadInMetadata(); key != "" {
		v.payloads[key] = structpb.NewStructValue(split(t.claims, p.GetNormalizePayloadInMetadata().GetSpaceDelimitedClaims()))
	}
	says := "the token of " + t.issuer + " is verified"
	if at.token == v.assumed {
		says = "the claims are taken as those of a verified token of " + t.issuer
	}
	v.verified = append(v.verified, says)
}

// split makes lists of claims that hold words between spaces.
func split(claims *structpb.Struct, names []string) *structpb.Struct {
	out := &structpb.Struct{Fields: map[string]*structpb.Value{}}
	for k, v := range claims.GetFields() {
		out.Fields[k] = v
	}
	for _, n := range names {
		s, ok := claims.GetFields()[n].GetKind().(*structpb.Value_StringValue)
		if !ok {
			continue
		}
		list := &structpb.ListValue{}
		for _, word := range strings.FieldsFunc(s.StringValue, func(c rune) bool { return c == ' ' }) {
			list.Values = append(list.Values, text(word))
		}
		out.Fields[n] = structpb.NewListValue(list)
	}
	return out
}

func text(s string) *structpb.Value { return structpb.NewStringValue(s) }

// withoutParam takes a query parameter away. Envoy then writes the others anew: decoded, ordered by name, each with an equals sign.
func withoutParam(path, name string) string {
	base, _, _ := strings.Cut(path, "?")
	kept := slices.DeleteFunc(paramsOf(path), func(p Header) bool { return p.Name == name })
	slices.SortStableFunc(kept, func(a, b Header) int { return strings.Compare(a.Name, b.Name) })
	for i, p := range kept {
		base += string("?&"[min(i, 1)]) + p.Name + "=" + p.Value
	}
	return base
}
