package compile

import (
	"fmt"
	"strings"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/xds/ir"
)

// filter takes one filter of a rule. One that cannot be obeyed makes the rule answer 500: skipping it could leave out a guard.
func (b *ruleBuilder) filter(field string, f *gatewayv1.HTTPRouteFilter) {
	switch {
	case f.RequestHeaderModifier != nil:
		merge(&b.out.Headers, f.RequestHeaderModifier)
	case f.ResponseHeaderModifier != nil:
		merge(&b.out.ResponseHeaders, f.ResponseHeaderModifier)
	case f.RequestMirror != nil:
		b.mirror(field, f.RequestMirror)
	case f.RequestRedirect != nil:
		b.redirect = b.redirection(field, f.RequestRedirect)
	case f.URLRewrite != nil:
		b.rewrite(field, f.URLRewrite)
	default:
		b.unsupported(field, f.Type)
	}
}

func (b *ruleBuilder) unsupported(field string, kind gatewayv1.HTTPRouteFilterType) {
	b.refused = true
	b.problem(field, "HTTPROUTE_FILTER", fmt.Sprintf("filter %s is not supported; the rule answers 500", kind),
		"RequestHeaderModifier, ResponseHeaderModifier, RequestMirror, RequestRedirect or URLRewrite", policy.Error)
}

func merge(into *ir.HeaderEdits, f *gatewayv1.HTTPHeaderFilter) {
	for _, h := range f.Set {
		into.Set = append(into.Set, ir.HeaderValue{Name: strings.ToLower(string(h.Name)), Value: h.Value})
	}
	for _, h := range f.Add {
		into.Add = append(into.Add, ir.HeaderValue{Name: strings.ToLower(string(h.Name)), Value: h.Value})
	}
	for _, h := range f.Remove {
		into.Remove = append(into.Remove, strings.ToLower(h))
	}
}

func (b *ruleBuilder) mirror(field string, f *gatewayv1.HTTPRequestMirrorFilter) {
	cluster, ok := b.backend(field+".requestMirror.backendRef", &f.BackendRef)
	if !ok {
		return // told; the request itself goes on, only its copy does not
	}
	m := ir.Mirror{Cluster: cluster}
	switch {
	case f.Fraction != nil:
		m.Numerator, m.Denominator = uint32(f.Fraction.Numerator), 100
		if f.Fraction.Denominator != nil {
			m.Denominator = uint32(*f.Fraction.Denominator)
		}
	case f.Percent != nil:
		m.Numerator, m.Denominator = uint32(*f.Percent), 100
	}
	b.out.Mirrors = append(b.out.Mirrors, m)
}

func (b *ruleBuilder) redirection(field string, f *gatewayv1.HTTPRequestRedirectFilter) *ir.RedirectTo {
	r := &ir.RedirectTo{Status: 302}
	scheme := "http"
	if b.listener.spec.Protocol == gatewayv1.HTTPSProtocolType {
		scheme = "https"
	}
	if f.Scheme != nil {
		r.Scheme, scheme = *f.Scheme, *f.Scheme
	}
	if f.Hostname != nil {
		r.Host = string(*f.Hostname)
	}
	if f.StatusCode != nil {
		r.Status = uint32(*f.StatusCode)
	}
	if f.Path != nil {
		r.Prefix, r.Path = b.replaced(field, f.Path)
	}
	switch {
	case f.Port != nil:
		r.Port = uint32(*f.Port)
	case f.Scheme == nil && f.Hostname != nil:
		r.Port = uint32(b.listener.spec.Port)
	}
	if scheme == "http" && r.Port == 80 || scheme == "https" && r.Port == 443 {
		r.Port = 0 // the well-known port is left out of the Location
	}
	return r
}

func (b *ruleBuilder) rewrite(field string, f *gatewayv1.HTTPURLRewriteFilter) {
	if f.Hostname != nil {
		b.forward.RewriteHost = string(*f.Hostname)
	}
	if f.Path == nil {
		return
	}
	b.forward.RewritePrefix, b.forward.RewritePath = b.replaced(field, f.Path)
}

// replaced is what stands in for the prefix or the path. A prefix can be replaced only where one was matched.
func (b *ruleBuilder) replaced(field string, m *gatewayv1.HTTPPathModifier) (prefix, path *string) {
	if m.ReplacePrefixMatch != nil && b.out.Match.Path.Kind != authz.Prefix {
		b.refused = true
		b.problem(field, "REPLACE_WITHOUT_PREFIX", "ReplacePrefixMatch needs a match of type PathPrefix; the rule answers 500", "type ReplaceFullPath", policy.Error)
		return nil, nil
	}
	return m.ReplacePrefixMatch, m.ReplaceFullPath
}

// selects is Kubernetes' label selector; one with an operator that is not known selects nothing.
func selects(s *metav1.LabelSelector, labels map[string]string) bool {
	if !policy.Selects(s.MatchLabels, labels) {
		return false
	}
	for _, e := range s.MatchExpressions {
		value, has := labels[e.Key]
		ok := false
		switch e.Operator {
		case metav1.LabelSelectorOpIn:
			ok = has && contains(e.Values, value)
		case metav1.LabelSelectorOpNotIn:
			ok = !has || !contains(e.Values, value)
		case metav1.LabelSelectorOpExists:
			ok = has
		case metav1.LabelSelectorOpDoesNotExist:
			ok = !has
		}
		if !ok {
			return false
		}
	}
	return true
}
