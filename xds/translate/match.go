package translate

import (
	"fmt"
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/xds/ir"
)

func routeMatch(m *ir.RouteMatch) (*routev3.RouteMatch, error) {
	out := &routev3.RouteMatch{}
	switch prefix := strings.TrimSuffix(m.Path.Value, "/"); {
	case m.Path.Value == "", m.Path.Kind == authz.Prefix && prefix == "":
		out.PathSpecifier = &routev3.RouteMatch_Prefix{Prefix: "/"}
	case m.Path.Kind == authz.Exact:
		out.PathSpecifier = &routev3.RouteMatch_Path{Path: m.Path.Value}
	case m.Path.Kind == authz.Prefix:
		out.PathSpecifier = &routev3.RouteMatch_PathSeparatedPrefix{PathSeparatedPrefix: prefix}
	case m.Path.Kind == authz.Regex:
		out.PathSpecifier = &routev3.RouteMatch_SafeRegex{SafeRegex: regex(m.Path.Value)}
	default:
		return nil, fmt.Errorf("path match of kind %d", m.Path.Kind)
	}
	if m.Method != "" {
		out.Headers = append(out.Headers, header(":method", exactly(m.Method)))
	}
	for _, h := range m.Headers {
		s, err := stringMatch(h.Match)
		if err != nil {
			return nil, fmt.Errorf("header %s: %w", h.Name, err)
		}
		out.Headers = append(out.Headers, header(h.Name, s))
	}
	for _, q := range m.Query {
		s, err := stringMatch(q.Match)
		if err != nil {
			return nil, fmt.Errorf("query parameter %s: %w", q.Name, err)
		}
		out.QueryParameters = append(out.QueryParameters, &routev3.QueryParameterMatcher{
			Name: q.Name, QueryParameterMatchSpecifier: &routev3.QueryParameterMatcher_StringMatch{StringMatch: s},
		})
	}
	return out, nil
}

func header(name string, s *matcherv3.StringMatcher) *routev3.HeaderMatcher {
	return &routev3.HeaderMatcher{Name: name, HeaderMatchSpecifier: &routev3.HeaderMatcher_StringMatch{StringMatch: s}}
}

func exactly(s string) *matcherv3.StringMatcher {
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: s}}
}

func regex(s string) *matcherv3.RegexMatcher { return &matcherv3.RegexMatcher{Regex: s} }

func stringMatch(m authz.Match) (*matcherv3.StringMatcher, error) {
	switch m.Kind {
	case authz.Exact:
		return exactly(m.Value), nil
	case authz.Regex:
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: regex(m.Value)}}, nil
	default:
		return nil, fmt.Errorf("match of kind %d", m.Kind)
	}
}

// rewrite edits the path of a forwarded request.
func rewrite(out *routev3.RouteAction, m *ir.RouteMatch, a *ir.Forward) error {
	switch {
	case a.RewritePath != nil:
		out.RegexRewrite = wholePath(*a.RewritePath)
	case a.RewritePrefix != nil:
		plain, pattern, err := replacePrefix(m, *a.RewritePrefix)
		if err != nil {
			return err
		}
		out.PrefixRewrite, out.RegexRewrite = plain, pattern
	}
	return nil
}

func wholePath(path string) *matcherv3.RegexMatchAndSubstitute {
	return &matcherv3.RegexMatchAndSubstitute{Pattern: regex("^.*$"), Substitution: backslashed(path)}
}

// backslashed keeps a replacement from referring to groups.
func backslashed(s string) string { return strings.ReplaceAll(s, `\`, `\\`) }

// replacePrefix follows the Gateway API's table of ReplacePrefixMatch: slashes at the end of either do not count, and a path keeps exactly one
// between what was put in and what is left.
func replacePrefix(m *ir.RouteMatch, to string) (string, *matcherv3.RegexMatchAndSubstitute, error) {
	if m.Path.Value != "" && m.Path.Kind != authz.Prefix {
		return "", nil, fmt.Errorf("a prefix is replaced, but the path is not matched by prefix")
	}
	from, to := strings.TrimSuffix(m.Path.Value, "/"), strings.TrimSuffix(to, "/")
	switch {
	case from != "" && to != "":
		return to, nil, nil
	case from != "": // what is left may be empty, and a path never is
		return "", &matcherv3.RegexMatchAndSubstitute{Pattern: regex("^" + regexp.QuoteMeta(from) + "/*"), Substitution: "/"}, nil
	case to != "":
		return to + "/", nil, nil
	default:
		return "/", nil, nil
	}
}

func redirect(m *ir.RouteMatch, a *ir.RedirectTo) (*routev3.RedirectAction, error) {
	code, ok := map[uint32]routev3.RedirectAction_RedirectResponseCode{
		0: routev3.RedirectAction_FOUND, 301: routev3.RedirectAction_MOVED_PERMANENTLY, 302: routev3.RedirectAction_FOUND,
		303: routev3.RedirectAction_SEE_OTHER, 307: routev3.RedirectAction_TEMPORARY_REDIRECT, 308: routev3.RedirectAction_PERMANENT_REDIRECT,
	}[a.Status]
	if !ok {
		return nil, fmt.Errorf("redirect with status %d", a.Status)
	}
	out := &routev3.RedirectAction{ResponseCode: code, HostRedirect: a.Host, PortRedirect: a.Port}
	if a.Scheme != "" {
		out.SchemeRewriteSpecifier = &routev3.RedirectAction_SchemeRedirect{SchemeRedirect: a.Scheme}
	}
	switch {
	case a.Path != nil:
		out.PathRewriteSpecifier = &routev3.RedirectAction_PathRedirect{PathRedirect: *a.Path}
	case a.Prefix != nil:
		plain, pattern, err := replacePrefix(m, *a.Prefix)
		if err != nil {
			return nil, err
		}
		if pattern != nil {
			out.PathRewriteSpecifier = &routev3.RedirectAction_RegexRewrite{RegexRewrite: pattern}
		} else {
			out.PathRewriteSpecifier = &routev3.RedirectAction_PrefixRewrite{PrefixRewrite: plain}
		}
	}
	return out, nil
}
