package filter

import (
	"net/netip"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/credence-mesh/credence/policy/authz"
)

// stringMatcher translates a match. Present is a value that is not empty. An empty prefix or suffix, which Envoy refuses, is any value.
func stringMatcher(m authz.Match) *matcherv3.StringMatcher {
	s := &matcherv3.StringMatcher{IgnoreCase: m.IgnoreCase}
	switch {
	case m.Kind == authz.Exact:
		s.MatchPattern = &matcherv3.StringMatcher_Exact{Exact: m.Value}
	case m.Kind == authz.Prefix && m.Value != "":
		s.MatchPattern = &matcherv3.StringMatcher_Prefix{Prefix: m.Value}
	case m.Kind == authz.Suffix && m.Value != "":
		s.MatchPattern = &matcherv3.StringMatcher_Suffix{Suffix: m.Value}
	case m.Kind == authz.Regex:
		return regex(m.Value, m.IgnoreCase)
	case m.Kind == authz.Present:
		return regex(`\C+`, false)
	default:
		return regex(`\C*`, false)
	}
	return s
}

// regex is a full match. Envoy does not take ignore_case beside a regular expression: the flag goes inside.
func regex(expression string, ignoreCase bool) *matcherv3.StringMatcher {
	if ignoreCase {
		expression = "(?i)" + expression
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{SafeRegex: &matcherv3.RegexMatcher{Regex: expression}}}
}

// valueMatcher matches one of several strings.
func stringValue(m authz.Match) *matcherv3.ValueMatcher {
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_StringMatch{StringMatch: stringMatcher(m)}}
}

func listValue(m authz.Match) *matcherv3.ValueMatcher {
	return &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_ListMatch{ListMatch: &matcherv3.ListMatcher{
		MatchPattern: &matcherv3.ListMatcher_OneOf{OneOf: stringValue(m)},
	}}}
}

func metadataMatcher(filter string, path []string, value *matcherv3.ValueMatcher) *matcherv3.MetadataMatcher {
	m := &matcherv3.MetadataMatcher{Filter: filter, Value: value}
	for _, p := range path {
		m.Path = append(m.Path, &matcherv3.MetadataMatcher_PathSegment{Segment: &matcherv3.MetadataMatcher_PathSegment_Key{Key: p}})
	}
	return m
}

// claimMatcher matches a verified claim: a string, or a list that contains one.
func claimMatcher(c authz.Claim) *matcherv3.MetadataMatcher {
	either := &matcherv3.ValueMatcher{MatchPattern: &matcherv3.ValueMatcher_OrMatch{OrMatch: &matcherv3.OrMatcher{
		ValueMatchers: []*matcherv3.ValueMatcher{stringValue(c.Match), listValue(c.Match)},
	}}}
	return metadataMatcher(ClaimsNamespace, append([]string{ClaimsKey}, c.Path...), either)
}

func cidr(p netip.Prefix) *corev3.CidrRange {
	return &corev3.CidrRange{AddressPrefix: p.Addr().String(), PrefixLen: wrapperspb.UInt32(uint32(max(p.Bits(), 0)))}
}
