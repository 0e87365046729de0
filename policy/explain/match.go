package explain

import (
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

// text matches a string.
func (m *memory) text(s *matcherv3.StringMatcher, v string) answer {
	fold := func(x string) string {
		if s.GetIgnoreCase() {
			return strings.ToLower(x)
		}
		return x
	}
	switch p := s.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return answerOf(fold(v) == fold(p.Exact))
	case *matcherv3.StringMatcher_Prefix:
		return answerOf(strings.HasPrefix(fold(v), fold(p.Prefix)))
	case *matcherv3.StringMatcher_Suffix:
		return answerOf(strings.HasSuffix(fold(v), fold(p.Suffix)))
	case *matcherv3.StringMatcher_Contains:
		return answerOf(strings.Contains(fold(v), fold(p.Contains)))
	case *matcherv3.StringMatcher_SafeRegex:
		return m.regex(p.SafeRegex.GetRegex(), v)
	default:
		return maybe
	}
}

func (m *memory) regex(expression, v string) answer {
	re, ok := m.expression(expression)
	if !ok {
		return maybe
	}
	return answerOf(re.MatchString(v))
}

// value matches a metadata value. One that is missing is nil.
func (m *memory) value(p *matcherv3.ValueMatcher, v *structpb.Value) answer {
	switch p := p.GetMatchPattern().(type) {
	case *matcherv3.ValueMatcher_StringMatch:
		if s, ok := v.GetKind().(*structpb.Value_StringValue); ok {
			return m.text(p.StringMatch, s.StringValue)
		}
		return no
	case *matcherv3.ValueMatcher_BoolMatch:
		b, ok := v.GetKind().(*structpb.Value_BoolValue)
		return answerOf(ok && b.BoolValue == p.BoolMatch)
	case *matcherv3.ValueMatcher_NullMatch_:
		_, ok := v.GetKind().(*structpb.Value_NullValue)
		return answerOf(ok)
	case *matcherv3.ValueMatcher_PresentMatch:
		return answerOf(p.PresentMatch && v.GetKind() != nil)
	case *matcherv3.ValueMatcher_ListMatch:
		l, ok := v.GetKind().(*structpb.Value_ListValue)
		if !ok {
			return no
		}
		return some(l.ListValue.GetValues(), func(item *structpb.Value) answer { return m.value(p.ListMatch.GetOneOf(), item) })
	case *matcherv3.ValueMatcher_OrMatch:
		return some(p.OrMatch.GetValueMatchers(), func(x *matcherv3.ValueMatcher) answer { return m.value(x, v) })
	default:
		return maybe
	}
}

// header matches a header. Each value of one that is sent more than once is matched for itself, and one that matches is enough.
func (m *memory) header(p *routev3.HeaderMatcher, h *headers) answer {
	values := h.all(p.GetName())
	a := maybe
	switch s := p.GetHeaderMatchSpecifier().(type) {
	case nil:
		a = answerOf(len(values) > 0)
	case *routev3.HeaderMatcher_PresentMatch:
		a = answerOf(len(values) > 0 == s.PresentMatch)
	case *routev3.HeaderMatcher_StringMatch:
		if len(values) == 0 && !p.GetTreatMissingHeaderAsEmpty() {
			return no // also of a match that is inverted
		}
		if len(values) == 0 {
			values = []string{""}
		}
		a = some(values, func(v string) answer { return m.text(s.StringMatch, v) })
	}
	if p.GetInvertMatch() {
		return a.not()
	}
	return a
}

// parameter matches a query parameter.
func (m *memory) parameter(p *routev3.QueryParameterMatcher, query params) answer {
	v, ok := query.first(p.GetName())
	switch s := p.GetQueryParameterMatchSpecifier().(type) {
	case nil:
		return answerOf(ok)
	case *routev3.QueryParameterMatcher_PresentMatch:
		return answerOf(ok == s.PresentMatch)
	case *routev3.QueryParameterMatcher_StringMatch:
		if !ok {
			return no
		}
		return m.text(s.StringMatch, v)
	default:
		return maybe
	}
}

// route matches a request.
func (m *memory) route(p *routev3.RouteMatch, h *headers) answer {
	path := withoutQuery(h.path())
	full := path
	fold := strings.Clone
	if p.GetCaseSensitive() != nil && !p.GetCaseSensitive().GetValue() {
		fold = strings.ToLower
	}
	a := maybe
	switch s := p.GetPathSpecifier().(type) {
	case *routev3.RouteMatch_Prefix:
		a = answerOf(strings.HasPrefix(fold(full), fold(s.Prefix)))
	case *routev3.RouteMatch_Path:
		a = answerOf(fold(path) == fold(s.Path))
	case *routev3.RouteMatch_PathSeparatedPrefix:
		rest, ok := strings.CutPrefix(fold(path), fold(s.PathSeparatedPrefix))
		a = answerOf(ok && (rest == "" || rest[0] == '/'))
	case *routev3.RouteMatch_SafeRegex:
		a = m.regex(s.SafeRegex.GetRegex(), path)
	}
	conditions := []func() answer{
		func() answer { return a },
		func() answer {
			return every(p.GetHeaders(), func(x *routev3.HeaderMatcher) answer { return m.header(x, h) })
		},
		func() answer {
			query := rawParamsOf(h.path())
			return every(p.GetQueryParameters(), func(x *routev3.QueryParameterMatcher) answer { return m.parameter(x, query) })
		},
	}
	if p.GetRuntimeFraction() != nil || p.GetGrpc() != nil || p.GetTlsContext() != nil || len(p.GetDynamicMetadata()) > 0 || len(p.GetCookies()) > 0 {
		conditions = append(conditions, func() answer { return maybe })
	}
	return every(conditions, func(f func() answer) answer { return f() })
}
