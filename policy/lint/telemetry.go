package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/credence-mesh/credence/policy"
)

func (l *linter) telemetry() {
	for t := range policy.All[*policy.Telemetry](l.set) {
		if !t.Void {
			l.info(&t.Object, "", CodeTelemetryNotInForce, "mesh.accessLogFile for access logs", "Telemetry is read and checked, but proxies do not trace yet")
		}
		for i, tracing := range t.Spec.GetTracing() {
			at := fmt.Sprintf("spec.tracing[%d]", i)
			for j, p := range tracing.GetProviders() {
				l.provider(&t.Object, fmt.Sprintf("%s.providers[%d].name", at, j), p.GetName())
			}
			for name, tag := range tracing.GetCustomTags() {
				if h := tag.GetHeader().GetName(); h != "" {
					l.tag(t, at+".customTags["+name+"].header.name", h)
				}
			}
		}
	}
}

func (l *linter) tag(t *policy.Telemetry, field, header string) {
	lower := strings.ToLower(header)
	switch {
	case responseHeader(lower):
		l.warn(&t.Object, field, CodeResponseHeaderTag, fmt.Sprintf("formatter: {value: \"%%RESP(%s)%%\"}", header),
			"%s is a header of responses, and a tag reads those of requests: in Istio it is always empty", header)
	case lower == "authorization" || lower == "cookie" || slices.Contains(l.payloadHeaders(t.Key.Namespace), lower):
		l.warn(&t.Object, field, CodePayloadInSpans, "name one claim: outputClaimToHeaders, and a tag of that header",
			"%s carries a token or all of its claims, and in Istio every span holds them, personal data included", header)
	}
}

func responseHeader(name string) bool {
	for _, prefix := range []string{"x-ratelimit-", "ratelimit", "access-control-allow-"} {
		if strings.HasPrefix(name, prefix) {
			return true
		}
	}
	switch name {
	case "retry-after", "set-cookie", "server", "location", "etag", "www-authenticate", "x-envoy-upstream-service-time", "x-envoy-ratelimited":
		return true
	}
	return false
}

func (l *linter) payloadHeaders(namespace string) []string {
	out := []string{"x-jwt-payload"}
	for _, r := range inScope[*policy.RequestAuthentication](l, namespace) {
		for _, rule := range r.Spec.GetJwtRules() {
			if h := rule.GetOutputPayloadToHeader(); h != "" {
				out = append(out, strings.ToLower(h))
			}
		}
	}
	return out
}

// claims finds claims that are lists, which Envoy writes into a header as base64 of JSON.
func (l *linter) claims() {
	for r := range policy.All[*policy.RequestAuthentication](l.set) {
		for i, rule := range r.Spec.GetJwtRules() {
			for j, c := range rule.GetOutputClaimToHeaders() {
				switch c.GetClaim() {
				case "roles", "groups", "permissions", "scopes", "scp", "amr", "aud", "entitlements", "authorities":
					l.warn(&r.Object, fmt.Sprintf("spec.jwtRules[%d].outputClaimToHeaders[%d].claim", i, j), CodeArrayClaim,
						"map a claim that is a string, or decode the header as base64 JSON in the service",
						"%s is a list in most tokens, and a list arrives in %s as base64 of JSON", c.GetClaim(), c.GetHeader())
				}
			}
		}
	}
}
