package filter

import (
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
	for _, name := range spellings(h.Guard.Strip) {
		m.RequestMutations = append(m.RequestMutations, &mutationrulesv3.HeaderMutation{Action: &mutationrulesv3.HeaderMutation_Remove{Remove: name}})
	}
	if h.Edge { // nobody outside may give Envoy orders, or say where a request came from
		m.RequestMutations = append(m.RequestMutations, &mutationrulesv3.HeaderMutation{Action: &mutationrulesv3.HeaderMutation_RemoveOnMatch_{
			RemoveOnMatch: &mutationrulesv3.HeaderMutation_RemoveOnMatch{KeyMatcher: &matcherv3.StringMatcher{
				MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: envoyPrefix}, IgnoreCase: true,
			}},
		}})
	}
	return made{config: &headermutationv3.HeaderMutation{Mutations: m}}, nil
}

// envoyPrefix begins the headers that only Envoy reads.
const envoyPrefix = "x-envoy-"

// maxSpelled is how many dashes of a name may also be underscores: each doubles what is removed.
const maxSpelled = 4

// spellings is the names, and each with underscores for any of its dashes: many backends, CGI first, take them for one. (An expression
// that matches all spellings at once would cost a regular expression a header, and Envoy bounds its size.)
func spellings(names []string) []string {
	var out []string
	for _, name := range names {
		name = strings.ToLower(name)
		all := []string{name}
		if n := strings.Count(name, "-"); n <= maxSpelled && !strings.HasPrefix(name, envoyPrefix) {
			all = spelled(name)
		} else {
			all = append(all, strings.ReplaceAll(name, "-", "_"))
		}
		out = append(out, all...)
	}
	slices.Sort(out)
	return slices.Compact(out)
}

func spelled(name string) []string {
	head, rest, ok := strings.Cut(name, "-")
	if !ok {
		return []string{name}
	}
	var out []string
	for _, tail := range spelled(rest) {
		out = append(out, head+"-"+tail, head+"_"+tail)
	}
	return out
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
