// Package lint finds what is valid and in force, but does not do what its author most likely meant: a principal that can never match, a
// selector that selects nothing, rego that nobody asks. Every finding names the line, and what to write instead.
package lint

import (
	"fmt"
	"slices"

	securityv1beta1 "istio.io/api/security/v1beta1"

	"github.com/credence-mesh/credence/policy"
)

// The stable codes of this package; docs/problems.md explains each. Two more of the traps are told where the text is read:
// FIELD_ALIAS and PROMETHEUS_UNKNOWN_METRIC. One cause has one code: where building a proxy's configuration finds the same, and says it more
// exactly, the code is that of the room that builds it, and internal/validate tells it once.
const (
	CodePrincipalNeverMatches = "PRINCIPAL_NEVER_MATCHES"
	CodeAllowClosesRest       = "ALLOW_CLOSES_REST"
	CodeSelectsNothing        = "SELECTOR_MATCHES_NOTHING"
	CodeHTTPOnlyOnTCP         = "AUTHZ_HTTP_ONLY_ON_TCP" // as policy/authz
	CodeDenyAnswers403        = "DENY_ANSWERS_403"
	CodeLimitWithoutActions   = "RATELIMIT_ACTIONS_GENERATED" // as xds/patch
	CodeLimitWithoutCluster   = "RATELIMIT_CLUSTER_UNDEFINED" // as xds/patch
	CodeLimitUnknownDomain    = "RATELIMIT_DOMAIN_UNKNOWN"    // as xds/patch
	CodeLimitUnusedDomain     = "RATE_LIMIT_UNUSED_DOMAIN"
	CodeLimitSharedBucket     = "RATE_LIMIT_SHARED_BUCKET"
	CodeRegoNotWired          = "REGO_NOT_WIRED"
	CodeRegoUnverified        = "REGO_UNVERIFIED_TOKEN"
	CodeResponseHeaderTag     = "TELEMETRY_RESPONSE_HEADER"
	CodePayloadInSpans        = "TELEMETRY_TOKEN_IN_SPANS"
	CodeBufferStreaming       = "BUFFER_BREAKS_STREAMING"
	CodeClaimNotBound         = "CLAIM_NOT_BOUND_TO_ISSUER"
	CodeArrayClaim            = "ARRAY_CLAIM_IN_HEADER"
	CodePortWithoutProtocol   = "PORT_WITHOUT_PROTOCOL"
	CodeGatewayWithoutRoutes  = "GATEWAY_WITHOUT_ROUTES"
	CodeUnknownService        = "BACKEND_NOT_FOUND" // as xds/compile
	CodeUnknownGateway        = "UNKNOWN_GATEWAY"
	CodeUnknownSecret         = "SECRET_NOT_FOUND" // as xds/compile
	CodeUnknownProvider       = "UNKNOWN_PROVIDER"
	CodeUnknownAuthorizer     = "AUTHZ_UNKNOWN_PROVIDER" // as policy/authz
	CodeRuleShadowed          = "RULE_SHADOWED"
	CodeRuleUnreachable       = "RULE_UNREACHABLE"
	CodePathSpelling          = "PATH_RULE_EVADED_BY_SPELLING"
	CodePathPrefix            = "PATH_PREFIX_EVADED"
	CodeHeaderFromClient      = "HEADER_FROM_CLIENT"
	CodeNoPort                = "WORKLOAD_WITHOUT_PORTS"
	CodeIgnoreUnknown         = "IGNORE_UNKNOWN_CODE"
	CodeIgnoreNoReason        = "IGNORE_WITHOUT_REASON"
	CodeIgnoreError           = "IGNORE_ERROR"
	CodeTelemetryNotInForce   = "TELEMETRY_NOT_IN_FORCE" // as xds/compile
)

// Set lints everything that is in force, and returns what it found in order.
func Set(set *policy.Set) []policy.Problem {
	l := &linter{set: set, mesh: set.Mesh(), byLabel: map[string]map[string][]*policy.AuthorizationPolicy{}, bySpace: map[string][]*policy.AuthorizationPolicy{}}
	for p := range policy.All[*policy.AuthorizationPolicy](set) {
		if p.Spec != nil && !p.Void {
			l.authorization(p)
		}
	}
	l.selectors()
	l.portless()
	l.limits()
	l.rego()
	l.telemetry()
	l.claims()
	l.services()
	l.routes()
	return Ignored(set, l.found)
}

type linter struct {
	set   *policy.Set
	mesh  policy.Mesh
	found []policy.Problem

	byLabel map[string]map[string][]*policy.AuthorizationPolicy // see active
	bySpace map[string][]*policy.AuthorizationPolicy            // see policies
}

// finding is what is told about a field.
type finding struct {
	code     string
	severity policy.Severity
	says     string
	try      string
}

func (l *linter) tell(o *policy.Object, field string, f finding) {
	l.found = append(l.found, policy.Problem{
		At: o.Where(field), Object: o.Key.String(), Field: field, Code: f.code, Severity: f.severity, Says: f.says, Try: f.try,
	})
}

func (l *linter) warn(o *policy.Object, field, code, try, format string, args ...any) {
	l.tell(o, field, finding{code, policy.Warning, fmt.Sprintf(format, args...), try})
}

func (l *linter) info(o *policy.Object, field, code, try, format string, args ...any) {
	l.tell(o, field, finding{code, policy.Info, fmt.Sprintf(format, args...), try})
}

// inScope yields the policies of a kind that can cover a workload of a namespace: those of the namespace and those of the root namespace.
func inScope[T policy.Resource](l *linter, namespace string) []T {
	list := slices.Collect(policy.In[T](l.set, namespace))
	if namespace == l.mesh.RootNamespace {
		return slices.Collect(policy.All[T](l.set)) // a policy of the root namespace meets the policies of every other
	}
	return slices.AppendSeq(list, policy.In[T](l.set, l.mesh.RootNamespace))
}

// policies is inScope of AuthorizationPolicies, which is asked for each of them.
func (l *linter) policies(namespace string) []*policy.AuthorizationPolicy {
	list, ok := l.bySpace[namespace]
	if !ok {
		list = inScope[*policy.AuthorizationPolicy](l, namespace)
		l.bySpace[namespace] = list
	}
	return list
}

// meets tells whether two selectors can select the same workload: neither wants a value of a label that the other excludes.
func meets(a, b map[string]string) bool {
	for k, v := range a {
		if w, ok := b[k]; ok && v != w {
			return false
		}
	}
	return len(a) == 0 || len(b) == 0 || shares(a, b)
}

// shares tells whether two selectors have a label in common. Two that have none select different workloads, as a rule.
func shares(a, b map[string]string) bool {
	for k := range a {
		if _, ok := b[k]; ok {
			return true
		}
	}
	return false
}

// issuers are the issuers that RequestAuthentications accept where a policy with these labels holds.
func (l *linter) issuers(namespace string, labels map[string]string) []string {
	var out []string
	for _, r := range inScope[*policy.RequestAuthentication](l, namespace) {
		if r.Spec == nil || !meets(labels, r.Spec.GetSelector().GetMatchLabels()) {
			continue
		}
		for _, rule := range r.Spec.GetJwtRules() {
			if i := rule.GetIssuer(); i != "" && !slices.Contains(out, i) {
				out = append(out, i)
			}
		}
	}
	return out
}

func deny(p *policy.AuthorizationPolicy) bool {
	return p.Spec.GetAction() == securityv1beta1.AuthorizationPolicy_DENY
}

func allow(p *policy.AuthorizationPolicy) bool {
	return p.Spec.GetAction() == securityv1beta1.AuthorizationPolicy_ALLOW
}
