package kinds

import (
	"fmt"
	"regexp"
	"strings"
	"text/template"
	"time"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/credence-mesh/credence/policy"
)

// maxListeners and maxRules are the limits of the Gateway API's own schema.
const (
	maxListeners = 64
	maxRules     = 16
)

func gatewayOf(o *object) policy.Resource {
	spec := specOf[gatewayv1.GatewaySpec](o)
	if len(spec.Listeners) == 0 {
		o.refuse("spec.listeners", CodeMissingField, "", "a Gateway has a listener")
	}
	if len(spec.Listeners) > maxListeners {
		o.refuse("spec.listeners", CodeTooMany, "", "%d listeners, more than %d", len(spec.Listeners), maxListeners)
	}
	names, places := map[string]bool{}, map[string]bool{}
	for i, l := range spec.Listeners {
		at := fmt.Sprintf("spec.listeners[%d]", i)
		o.listener(at, l)
		o.unique(at+".name", "listener name", string(l.Name), names)
		host := "any host"
		if l.Hostname != nil && *l.Hostname != "" {
			host = string(*l.Hostname)
		}
		o.unique(at, "the place", fmt.Sprintf("%s of port %d for %s", l.Protocol, l.Port, host), places)
	}
	return &policy.Gateway{Spec: spec}
}

func (o *object) listener(at string, l gatewayv1.Listener) {
	if !subdomain(string(l.Name)) {
		o.refuse(at+".name", CodeBadName, "", "%q is no name", l.Name)
	}
	o.port(at+".port", int32(l.Port))
	if l.Hostname != nil && *l.Hostname != "" && !hostname(string(*l.Hostname)) {
		o.refuse(at+".hostname", CodeBadValue, "", "%q is no host name", *l.Hostname)
	}
	switch l.Protocol {
	case gatewayv1.HTTPProtocolType, gatewayv1.TCPProtocolType, gatewayv1.UDPProtocolType:
		if l.TLS != nil {
			o.refuse(at+".tls", CodeConflict, "protocol: HTTPS, or remove tls", "a listener of protocol %s has no TLS", l.Protocol)
		}
	case gatewayv1.HTTPSProtocolType, gatewayv1.TLSProtocolType:
		o.listenerTLS(at, l)
	default:
		o.refuse(at+".protocol", CodeBadValue, "HTTP, HTTPS, TLS, TCP or UDP", "unknown protocol %q", l.Protocol)
	}
}

func (o *object) listenerTLS(at string, l gatewayv1.Listener) {
	passthrough := l.TLS != nil && l.TLS.Mode != nil && *l.TLS.Mode == gatewayv1.TLSModePassthrough
	if passthrough && l.Protocol == gatewayv1.HTTPSProtocolType {
		o.refuse(at+".tls.mode", CodeConflict, "protocol: TLS", "protocol HTTPS terminates TLS")
	}
	if !passthrough && (l.TLS == nil || len(l.TLS.CertificateRefs)+len(l.TLS.Options) == 0) {
		o.refuse(at+".tls", CodeMissingField, "tls: {certificateRefs: [{name: SECRET}]}", "protocol %s needs a certificate", l.Protocol)
	}
}

func httpRoute(o *object) policy.Resource {
	spec := specOf[gatewayv1.HTTPRouteSpec](o)
	if len(spec.ParentRefs) == 0 {
		o.warn("spec", CodeNoParent, "parentRefs: [{name: GATEWAY}]", "the route belongs to no Gateway and has no effect")
	}
	for i, h := range spec.Hostnames {
		if !hostname(string(h)) {
			o.refuse(fmt.Sprintf("spec.hostnames[%d]", i), CodeBadValue, "", "%q is no host name", h)
		}
	}
	if len(spec.Rules) > maxRules {
		o.refuse("spec.rules", CodeTooMany, "split the route", "%d rules, more than %d", len(spec.Rules), maxRules)
	}
	for i, r := range spec.Rules {
		o.routeRule(fmt.Sprintf("spec.rules[%d]", i), r)
	}
	return &policy.HTTPRoute{Spec: spec}
}

func (o *object) routeRule(at string, r gatewayv1.HTTPRouteRule) {
	for i, m := range r.Matches {
		o.routeMatch(fmt.Sprintf("%s.matches[%d]", at, i), m)
	}
	redirects := false
	for i, f := range r.Filters {
		redirects = redirects || f.Type == gatewayv1.HTTPRouteFilterRequestRedirect
		o.routeFilter(fmt.Sprintf("%s.filters[%d]", at, i), f)
	}
	if redirects && len(r.BackendRefs) > 0 {
		o.refuse(at+".backendRefs", CodeConflict, "remove backendRefs", "a redirect has no backends")
	}
	for i, b := range r.BackendRefs {
		field := fmt.Sprintf("%s.backendRefs[%d]", at, i)
		service := (b.Group == nil || *b.Group == "") && (b.Kind == nil || *b.Kind == "Service")
		if service && b.Port == nil {
			o.refuse(field, CodeMissingField, "port: the Service's port", "a Service as backend needs a port")
		}
		if b.Port != nil {
			o.port(field+".port", int32(*b.Port))
		}
		if b.Weight != nil && *b.Weight < 0 {
			o.refuse(field+".weight", CodeBadValue, "0 or more", "%d is no weight", *b.Weight)
		}
	}
	if t := r.Timeouts; t != nil {
		o.routeTimeout(at+".timeouts.request", t.Request)
		o.routeTimeout(at+".timeouts.backendRequest", t.BackendRequest)
	}
}

func (o *object) routeTimeout(field string, d *gatewayv1.Duration) {
	if d == nil {
		return
	}
	if v, err := time.ParseDuration(string(*d)); err != nil || v < 0 {
		o.refuse(field, CodeBadValue, "10s, 500ms, 1h30m", "%q is no duration", *d)
	}
}

func (o *object) routeMatch(at string, m gatewayv1.HTTPRouteMatch) {
	if p := m.Path; p != nil && p.Value != nil {
		switch t := p.Type; {
		case t != nil && *t == gatewayv1.PathMatchRegularExpression:
			o.regexp(at+".path.value", *p.Value)
		case t != nil && *t != gatewayv1.PathMatchExact && *t != gatewayv1.PathMatchPathPrefix:
			o.refuse(at+".path.type", CodeBadValue, "Exact, PathPrefix or RegularExpression", "unknown type %q", *t)
		case !strings.HasPrefix(*p.Value, "/"):
			o.refuse(at+".path.value", CodeBadValue, "/"+*p.Value, "a path starts with /")
		case strings.Contains(*p.Value, "//") || strings.Contains(*p.Value, "/../") || strings.Contains(strings.ToLower(*p.Value), "%2f"):
			o.refuse(at+".path.value", CodeBadValue, "", "%q never arrives: paths are normalised before they are matched", *p.Value)
		}
	}
	for i, h := range m.Headers {
		field := fmt.Sprintf("%s.headers[%d]", at, i)
		o.headerToken(field+".name", string(h.Name))
		if h.Type != nil && *h.Type == gatewayv1.HeaderMatchRegularExpression {
			o.regexp(field+".value", h.Value)
		}
	}
	for i, q := range m.QueryParams {
		if q.Type != nil && *q.Type == gatewayv1.QueryParamMatchRegularExpression {
			o.regexp(fmt.Sprintf("%s.queryParams[%d].value", at, i), q.Value)
		}
	}
	if m.Method != nil {
		switch *m.Method {
		case "GET", "HEAD", "POST", "PUT", "DELETE", "CONNECT", "OPTIONS", "TRACE", "PATCH":
		default:
			o.refuse(at+".method", CodeBadValue, "GET, POST …, in capitals", "unknown method %q", *m.Method)
		}
	}
}

var token = regexp.MustCompile("^[A-Za-z0-9!#$%&'*+\\-.^_`|~]+$")

func (o *object) headerToken(field, name string) {
	if !token.MatchString(name) {
		o.refuse(field, CodeBadValue, "", "%q is no header name", name)
	}
}

func (o *object) regexp(field, expr string) {
	if _, err := regexp.Compile(expr); err != nil {
		o.refuse(field, CodeBadValue, "the syntax of RE2", "%q is no regular expression", expr)
	}
}

func (o *object) routeFilter(at string, f gatewayv1.HTTPRouteFilter) {
	set := map[gatewayv1.HTTPRouteFilterType]bool{
		gatewayv1.HTTPRouteFilterRequestHeaderModifier:  f.RequestHeaderModifier != nil,
		gatewayv1.HTTPRouteFilterResponseHeaderModifier: f.ResponseHeaderModifier != nil,
		gatewayv1.HTTPRouteFilterRequestMirror:          f.RequestMirror != nil,
		gatewayv1.HTTPRouteFilterRequestRedirect:        f.RequestRedirect != nil,
		gatewayv1.HTTPRouteFilterURLRewrite:             f.URLRewrite != nil,
		gatewayv1.HTTPRouteFilterExtensionRef:           f.ExtensionRef != nil,
		gatewayv1.HTTPRouteFilterCORS:                   f.CORS != nil,
	}
	known := false
	for t, there := range set {
		switch {
		case t == f.Type:
			known = true
			if !there {
				o.refuse(at, CodeMissingField, "", "a filter of type %s has its settings beside it", t)
			}
		case there:
			o.refuse(at, CodeConflict, "", "a filter of type %s has the settings of type %s", f.Type, t)
		}
	}
	if !known && string(f.Type) != "ExternalAuth" {
		o.refuse(at+".type", CodeBadValue, "RequestHeaderModifier, ResponseHeaderModifier, RequestRedirect, URLRewrite or RequestMirror", "unknown type %q", f.Type)
	}
}

func referenceGrant(o *object) policy.Resource {
	spec := specOf[gatewayv1.ReferenceGrantSpec](o)
	if len(spec.From) == 0 {
		o.refuse("spec.from", CodeMissingField, "", "a grant says from where")
	}
	if len(spec.To) == 0 {
		o.refuse("spec.to", CodeMissingField, "", "a grant says to what")
	}
	for i, f := range spec.From {
		if f.Kind == "" || f.Namespace == "" {
			o.refuse(fmt.Sprintf("spec.from[%d]", i), CodeMissingField, "", "kind and namespace are needed")
		}
	}
	for i, t := range spec.To {
		if t.Kind == "" {
			o.refuse(fmt.Sprintf("spec.to[%d]", i), CodeMissingField, "", "kind is needed")
		}
	}
	return &policy.ReferenceGrant{Spec: spec}
}

func clusterSPIFFEID(o *object) policy.Resource {
	spec := specOf[policy.ClusterSPIFFEIDSpec](o)
	if spec.SPIFFEIDTemplate == "" {
		o.refuse("spec.spiffeIDTemplate", CodeMissingField, "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}", "a template is needed")
	} else if _, err := template.New("id").Parse(spec.SPIFFEIDTemplate); err != nil {
		o.refuse("spec.spiffeIDTemplate", CodeBadValue, "the syntax of Go's text/template", "is no template")
	}
	return &policy.ClusterSPIFFEID{Spec: spec}
}

// clusterIssuer and certificate are recognised; what they say beside their names is cert-manager's.
func clusterIssuer(o *object) policy.Resource {
	specOf[map[string]any](o)
	return &policy.ClusterIssuer{}
}

func certificate(o *object) policy.Resource {
	specOf[map[string]any](o)
	return &policy.Certificate{}
}
