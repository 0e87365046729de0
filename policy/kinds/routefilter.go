package kinds

import (
	"fmt"
	"slices"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

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
				o.refuse(at, CodeMissingField, "the field of the same name, as urlRewrite beside type: URLRewrite", "a filter of type %s has its settings beside it", t)
			}
		case there:
			o.refuse(at, CodeConflict, "one filter a type", "a filter of type %s has the settings of type %s", f.Type, t)
		}
	}
	if !known && string(f.Type) != "ExternalAuth" {
		o.refuse(at+".type", CodeBadValue, "RequestHeaderModifier, ResponseHeaderModifier, RequestRedirect, URLRewrite or RequestMirror", "unknown type %q", f.Type)
	}
}

// filterSettings checks what a filter is set to.
func (o *object) filterSettings(at string, f gatewayv1.HTTPRouteFilter) {
	if r := f.RequestRedirect; r != nil {
		at := at + ".requestRedirect"
		if r.StatusCode != nil && !slices.Contains([]int{301, 302, 303, 307, 308}, *r.StatusCode) {
			o.refuse(at+".statusCode", CodeBadValue, "301, 302, 303, 307 or 308", "%d is no status of a redirect", *r.StatusCode)
		}
		if r.Scheme != nil && *r.Scheme != "http" && *r.Scheme != "https" {
			o.refuse(at+".scheme", CodeBadValue, "http or https", "unknown scheme %q", *r.Scheme)
		}
		if r.Port != nil {
			o.port(at+".port", int32(*r.Port))
		}
		o.plainHost(at+".hostname", r.Hostname)
		o.pathModifier(at+".path", r.Path)
	}
	if r := f.URLRewrite; r != nil {
		o.plainHost(at+".urlRewrite.hostname", r.Hostname)
		o.pathModifier(at+".urlRewrite.path", r.Path)
	}
	o.headerFilter(at+".requestHeaderModifier", f.RequestHeaderModifier)
	o.headerFilter(at+".responseHeaderModifier", f.ResponseHeaderModifier)
}

func (o *object) plainHost(field string, h *gatewayv1.PreciseHostname) {
	if h != nil && !subdomain(string(*h)) {
		o.refuse(field, CodeBadValue, "a full host name, in lower case", "%q is no host name", *h)
	}
}

func (o *object) pathModifier(at string, m *gatewayv1.HTTPPathModifier) {
	if m == nil {
		return
	}
	full, prefix := m.ReplaceFullPath != nil, m.ReplacePrefixMatch != nil
	switch m.Type {
	case gatewayv1.FullPathHTTPPathModifier:
		if !full || prefix {
			o.refuse(at, CodeConflict, "replaceFullPath: /path", "type ReplaceFullPath goes with replaceFullPath alone")
		}
	case gatewayv1.PrefixMatchHTTPPathModifier:
		if full || !prefix {
			o.refuse(at, CodeConflict, "replacePrefixMatch: /path", "type ReplacePrefixMatch goes with replacePrefixMatch alone")
		}
	default:
		o.refuse(at+".type", CodeBadValue, "ReplaceFullPath or ReplacePrefixMatch", "unknown type %q", m.Type)
	}
}

func (o *object) headerFilter(at string, f *gatewayv1.HTTPHeaderFilter) {
	if f == nil {
		return
	}
	seen := map[string]bool{}
	for _, list := range []struct {
		name    string
		headers []gatewayv1.HTTPHeader
	}{{"set", f.Set}, {"add", f.Add}} {
		for i, h := range list.headers {
			field := fmt.Sprintf("%s.%s[%d].name", at, list.name, i)
			o.headerToken(field, string(h.Name))
			o.unique(field, "header", list.name+" "+strings.ToLower(string(h.Name)), seen)
		}
	}
	for i, name := range f.Remove {
		o.headerToken(fmt.Sprintf("%s.remove[%d]", at, i), name)
	}
}
