package jwt

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"time"

	securityv1beta1 "istio.io/api/security/v1beta1"

	"github.com/credence-mesh/credence/policy"
)

// Authentication is what all RequestAuthentications together say about a workload.
type Authentication struct {
	Issuers []Sourced        // sorted by issuer
	Broken  []*policy.Object // cover the workload, are invalid, and have no earlier good version: every request must be refused
}

// Sourced is an issuer and the object that names it.
type Sourced struct {
	Issuer
	From *policy.Object
}

// defaultTimeout is Istio's for one fetch of keys.
const defaultTimeout = 5 * time.Second

// For is which tokens a workload accepts: the rules of every RequestAuthentication of the root namespace and its own that applies to it,
// concatenated and sorted by issuer, as in Istio. No issuer at all means that tokens are not looked at.
func For(set *policy.Set, w *policy.Workload) (Authentication, []policy.Problem) {
	var a Authentication
	for _, ns := range set.Namespaces(w) {
		for ra := range policy.In[*policy.RequestAuthentication](set, ns) {
			switch {
			case !set.Attached(w, ns, scope(ra)):
			case ra.Void || ra.Spec == nil:
				a.Broken = append(a.Broken, &ra.Object)
			default:
				for _, r := range ra.Spec.GetJwtRules() {
					a.Issuers = append(a.Issuers, Sourced{Issuer: issuer(r), From: &ra.Object})
				}
			}
		}
	}
	slices.SortStableFunc(a.Issuers, func(x, y Sourced) int { return cmp.Compare(x.Issuer.Issuer, y.Issuer.Issuer) })
	for i := range a.Issuers {
		a.Issuers[i].Name = fmt.Sprintf("origins-%d", i)
	}
	return a, append(conflicts(a.Issuers), keyless(a.Issuers)...)
}

// keyless finds key sets that were written into a policy and verify nothing.
func keyless(issuers []Sourced) []policy.Problem {
	var out []policy.Problem
	for _, i := range issuers {
		if i.Keys.Inline == "" {
			continue
		}
		if _, err := PublicKeys([]byte(i.Keys.Inline)); err != nil {
			out = append(out, policy.Problem{
				At: i.From.At, Object: i.From.Key.String(), Field: "spec.jwtRules", Code: "JWKS_UNUSABLE",
				Says: fmt.Sprintf("the jwks of issuer %q: %v; every token of the issuer is refused", i.Issuer.Issuer, err),
				Try:  "write the issuer's public keys (RSA from 2048 bits, EC, Ed25519), or use jwksUri",
			})
		}
	}
	return out
}

func scope(ra *policy.RequestAuthentication) policy.Scope {
	return policy.ScopeOf(ra.Spec.GetSelector(), ra.Spec.GetTargetRef(), ra.Spec.GetTargetRefs())
}

func issuer(r *securityv1beta1.JWTRule) Issuer {
	i := Issuer{
		Issuer: r.GetIssuer(), Audiences: r.GetAudiences(), Keys: KeySource{Inline: r.GetJwks(), URI: r.GetJwksUri()},
		FromParams: r.GetFromParams(), FromCookies: r.GetFromCookies(), Forward: r.GetForwardOriginalToken(),
		PayloadTo: strings.ToLower(r.GetOutputPayloadToHeader()), SplitClaims: r.GetSpaceDelimitedClaims(), Timeout: r.GetTimeout().AsDuration(),
	}
	if i.Timeout <= 0 {
		i.Timeout = defaultTimeout
	}
	for _, h := range r.GetFromHeaders() {
		i.FromHeaders = append(i.FromHeaders, HeaderLocation{Name: strings.ToLower(h.GetName()), Prefix: h.GetPrefix()})
	}
	for _, c := range r.GetOutputClaimToHeaders() {
		i.ClaimsTo = append(i.ClaimsTo, ClaimHeader{Header: strings.ToLower(c.GetHeader()), Claim: c.GetClaim()})
	}
	return i
}

// conflicts finds what will surprise: Envoy takes two providers of one issuer as alternatives, so the laxer of the two decides.
func conflicts(issuers []Sourced) []policy.Problem {
	var out []policy.Problem
	for i := 1; i < len(issuers); i++ {
		a, b := issuers[i-1], issuers[i]
		if a.Issuer.Issuer != b.Issuer.Issuer || a.From == b.From {
			continue
		}
		out = append(out, policy.Problem{
			At: b.From.At, Object: b.From.Key.String(), Field: "spec.jwtRules", Code: "JWT_ISSUER_TWICE", Severity: policy.Warning,
			Says: fmt.Sprintf("issuer %q is also accepted by %s (%s): a token that satisfies either rule passes", b.Issuer.Issuer, a.From.Key, a.From.At),
			Try:  "keep one rule for an issuer on a workload",
		})
	}
	return out
}
