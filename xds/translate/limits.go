package translate

import (
	"math"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/limit"
	"github.com/credence-mesh/credence/xds/filter"
)

// limitsOf is the rate limit configurations of a Set, by domain. One that was refused is there without a limit: the limiter answers its
// domain with an error by itself.
func limitsOf(set *policy.Set) map[string][]filter.Limit {
	configs, _ := limit.ConfigsIn(set)
	out := map[string][]filter.Limit{}
	for _, c := range configs {
		out[c.Domain] = limitTree(c.Descriptors)
	}
	return out
}

func limitTree(in []limit.Descriptor) []filter.Limit {
	var out []filter.Limit
	for _, d := range in {
		l := filter.Limit{Key: d.Key, Value: d.Value, Limited: d.Rate.Limits(), Children: limitTree(d.Descriptors)}
		if every := d.Rate.Unit.Duration().Seconds(); every > 0 {
			l.PerSecond = float64(d.Rate.Requests) / every
		}
		if d.Rate.Unlimited {
			l.PerSecond = math.Inf(1) // never what a missing claim counts as
		}
		out = append(out, l)
	}
	return out
}
