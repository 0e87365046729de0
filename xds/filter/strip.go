package filter

import (
	"regexp"
	"slices"
	"strings"

	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	faultv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/fault/v3"
	headermutationv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/header_mutation/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/proto"

	"github.com/credence-mesh/credence/xds/ir"
)

func stripTypes() []proto.Message {
	return []proto.Message{&headermutationv3.HeaderMutation{}, &faultv3.HTTPFault{}}
}

// strip removes the request headers that only we may set, whatever runs after it: Envoy's jwt_authn removes them too, but not on a route
// where it is switched off. Where the guard is not in force, everything is refused in this slot.
func strip(h *ir.HTTP) (made, error) {
	if refused(h.Guard) {
		return made{config: unavailable(), sources: brokenSources(h.Guard)}, nil
	}
	m := &headermutationv3.Mutations{}
	names := slices.Clone(h.Guard.Strip)
	slices.Sort(names)
	for _, name := range slices.Compact(names) {
		m.RequestMutations = append(m.RequestMutations, removeMatching(spellings(name)))
	}
	if h.Edge {
		for _, prefix := range edgePrefixes() {
			m.RequestMutations = append(m.RequestMutations, removeMatching(&matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: prefix}, IgnoreCase: true,
			}))
		}
	}
	return made{config: &headermutationv3.HeaderMutation{Mutations: m}}, nil
}

// edgePrefixes is what nobody outside may say to Envoy. It removes most of them itself, from requests that it takes as external only.
func edgePrefixes() []string {
	return []string{"x-envoy-original-", "x-envoy-internal", "x-envoy-decorator-", "x-envoy-upstream-", "x-envoy-retry-", "x-envoy-max-", "x-envoy-hedge-", "x-envoy-ip-tags", "x-envoy-peer-", "x-envoy-force-trace", "x-envoy-expected-", "x-envoy-is-"}
}

func removeMatching(m *matcherv3.StringMatcher) *mutationrulesv3.HeaderMutation {
	return &mutationrulesv3.HeaderMutation{Action: &mutationrulesv3.HeaderMutation_RemoveOnMatch_{
		RemoveOnMatch: &mutationrulesv3.HeaderMutation_RemoveOnMatch{KeyMatcher: m},
	}}
}

// spellings matches a header name in any case and with underscores for dashes: many backends, CGI first, take them for one.
func spellings(name string) *matcherv3.StringMatcher {
	parts := strings.FieldsFunc(strings.ToLower(name), func(r rune) bool { return r == '-' || r == '_' })
	if len(parts) < 2 {
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: name}, IgnoreCase: true}
	}
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_SafeRegex{
		SafeRegex: &matcherv3.RegexMatcher{Regex: "(?i)" + strings.Join(parts, "[-_]+")},
	}}
}

// unavailable answers every request with 503.
func unavailable() proto.Message {
	return &faultv3.HTTPFault{
		Abort: &faultv3.FaultAbort{
			ErrorType:  &faultv3.FaultAbort_HttpStatus{HttpStatus: 503},
			Percentage: &typev3.FractionalPercent{Numerator: 100},
		},
		DisableDownstreamClusterStats: true,
	}
}

// refused tells whether nothing may pass.
func refused(g ir.Guard) bool { return !g.Enforce || len(g.Broken) > 0 || len(g.Rules.Broken) > 0 }

func brokenSources(g ir.Guard) []ir.Source {
	return append(slices.Clone(g.Broken), g.Rules.Broken...)
}
