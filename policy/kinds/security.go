package kinds

import (
	"encoding/json"
	"fmt"
	"net/url"

	securityv1beta1 "istio.io/api/security/v1beta1"
	typev1beta1 "istio.io/api/type/v1beta1"

	"github.com/credence-mesh/credence/policy"
)

// The limits of Istio's schema.
const (
	maxTargets = 16 // targetRefs, and service accounts of a source
	maxClaims  = 64
	maxURL     = 2048
	maxLabels  = 4096 // labels of a selector, and jwtRules
)

func peerAuthentication(o *object) policy.Resource {
	spec := specOf[securityv1beta1.PeerAuthentication](o)
	o.selector(spec.GetSelector())
	if len(spec.GetPortLevelMtls()) > 0 && len(spec.GetSelector().GetMatchLabels()) == 0 {
		o.refuse("spec.portLevelMtls", CodeMissingField, "add spec.selector.matchLabels", "portLevelMtls needs a selector: a port belongs to a workload")
	}
	if o.emptyList("spec.portLevelMtls", len(spec.GetPortLevelMtls())) {
		o.refuse("spec.portLevelMtls", CodeMissingField, "remove it, or name a port", "portLevelMtls has no port")
	}
	for p := range spec.GetPortLevelMtls() {
		if !port(p) {
			o.refuse(fmt.Sprintf("spec.portLevelMtls[%d]", p), CodeBadPort, "1 to 65535", "%d is no port", p)
		}
	}
	return &policy.PeerAuthentication{Spec: spec}
}

func (o *object) selector(s *typev1beta1.WorkloadSelector) {
	o.checkLabels("spec.selector.matchLabels", s.GetMatchLabels())
}

// targets checks that a policy says what it is about in one way only.
func (o *object) targets(s *typev1beta1.WorkloadSelector, one *typev1beta1.PolicyTargetReference, many []*typev1beta1.PolicyTargetReference) {
	o.selector(s)
	ways := 0
	for _, set := range []bool{s != nil, one != nil, len(many) > 0} {
		if set {
			ways++
		}
	}
	if ways > 1 {
		o.refuse("spec.selector", CodeConflict, "keep one of them", "selector, targetRef and targetRefs exclude each other")
	}
	o.atMost("spec.targetRefs", len(many), maxTargets)
	if one != nil {
		o.target("spec.targetRef", one)
	}
	for i, t := range many {
		o.target(fmt.Sprintf("spec.targetRefs[%d]", i), t)
	}
}

func (o *object) target(field string, t *typev1beta1.PolicyTargetReference) {
	switch t.GetGroup() + "/" + t.GetKind() {
	case "gateway.networking.k8s.io/Gateway", "gateway.networking.k8s.io/GatewayClass", "/Service", "core/Service", "networking.istio.io/ServiceEntry":
	default:
		o.refuse(field, CodeBadTargetRef, "group gateway.networking.k8s.io, kind Gateway", "kind %q of group %q is no target", t.GetKind(), t.GetGroup())
	}
	if t.GetName() == "" {
		o.refuse(field, CodeMissingField, "name: the Gateway's", "a target has a name")
	}
	if n := t.GetNamespace(); n != "" {
		try := "put the policy into namespace " + n
		if n == o.meta.Key.Namespace {
			try = "remove it"
		}
		o.refuse(field+".namespace", CodeBadTargetRef, try, "a target is in the policy's own namespace, and may not name one")
	}
}

func requestAuthentication(o *object) policy.Resource {
	spec := specOf[securityv1beta1.RequestAuthentication](o)
	o.targets(spec.GetSelector(), spec.GetTargetRef(), spec.GetTargetRefs())
	o.atMost("spec.jwtRules", len(spec.GetJwtRules()), maxLabels)
	for i, rule := range spec.GetJwtRules() {
		o.jwtRule(fmt.Sprintf("spec.jwtRules[%d]", i), rule)
	}
	return &policy.RequestAuthentication{Spec: spec}
}

func (o *object) jwtRule(at string, r *securityv1beta1.JWTRule) {
	if r.GetIssuer() == "" && (r.GetJwksUri() == "" || o.written(at+".issuer")) {
		o.refuse(at+".issuer", CodeMissingField, "the iss claim of the tokens", "issuer is empty: only a rule with jwksUri may leave it out")
	}
	if r.GetJwks() != "" && r.GetJwksUri() != "" {
		o.refuse(at+".jwks", CodeConflict, "keep one of them", "jwks and jwksUri exclude each other")
	}
	if u := r.GetJwksUri(); len(u) > maxURL {
		o.refuse(at+".jwksUri", CodeBadValue, "a shorter address", "has %d characters, more than %d", len(u), maxURL)
	} else if u == "" && o.written(at+".jwksUri") {
		o.refuse(at+".jwksUri", CodeBadValue, "https://issuer/.well-known/jwks.json, or leave it out", "is empty")
	} else if u != "" && !httpURL(u) {
		o.refuse(at+".jwksUri", CodeBadValue, "https://issuer/.well-known/jwks.json", "is no URL of http or https, or holds a password")
	}
	if j := r.GetJwks(); j != "" && !jwks(j) {
		o.refuse(at+".jwks", CodeBadValue, `{"keys": [ … ]}`, "is no JSON Web Key Set with keys, each with its kty")
	}
	o.noneEmpty(at+".audiences", r.GetAudiences())
	o.noneEmpty(at+".fromParams", r.GetFromParams())
	o.noneEmpty(at+".fromCookies", r.GetFromCookies())
	o.noneEmpty(at+".spaceDelimitedClaims", r.GetSpaceDelimitedClaims())
	for i, h := range r.GetFromHeaders() {
		o.headerToken(fmt.Sprintf("%s.fromHeaders[%d].name", at, i), h.GetName())
	}
	if h := r.GetOutputPayloadToHeader(); h != "" {
		o.headerToken(at+".outputPayloadToHeader", h)
	}
	for i, c := range r.GetOutputClaimToHeaders() {
		field := fmt.Sprintf("%s.outputClaimToHeaders[%d]", at, i)
		o.header(field+".header", c.GetHeader())
		if c.GetClaim() == "" {
			o.refuse(field+".claim", CodeMissingField, "claim: tenant_id", "claim is empty")
		}
	}
	o.atMost(at+".spaceDelimitedClaims", len(r.GetSpaceDelimitedClaims()), maxClaims)
	o.positive(at+".timeout", r.GetTimeout())
}

func (o *object) header(field, name string) {
	if !headerName(name) {
		o.refuse(field, CodeBadValue, "letters, digits, - and _", "%q is no header name", name)
	}
}

func (o *object) noneEmpty(field string, values []string) {
	for i, v := range values {
		if v == "" {
			o.refuse(fmt.Sprintf("%s[%d]", field, i), CodeBadValue, "remove it, or write the value", "a value is empty")
		}
	}
}

func httpURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && u.User == nil
}

func jwks(s string) bool {
	var set struct {
		Keys []map[string]any `json:"keys"`
	}
	if json.Unmarshal([]byte(s), &set) != nil || len(set.Keys) == 0 {
		return false
	}
	for _, k := range set.Keys {
		if kty, ok := k["kty"].(string); !ok || kty == "" {
			return false
		}
	}
	return true
}
