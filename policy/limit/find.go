package limit

import (
	"cmp"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/credence-mesh/credence/policy"
)

// ConfigsIn finds every configuration in a set: RateLimit objects, and each value of a ConfigMap that has a line `domain:`.
// A configuration that has an error is returned Void; of two for one domain the first by kind, namespace and name stands, and the second is a
// problem, where upstream refuses both. It keeps no memory: the last good configuration is the Service's to keep.
func ConfigsIn(set *policy.Set) ([]Config, []policy.Problem) {
	var configs []Config
	var problems []policy.Problem
	add := func(c Config, p []policy.Problem) {
		configs, problems = append(configs, c), append(problems, p...)
	}
	for m := range policy.All[*policy.ConfigMap](set) {
		for _, key := range slices.Sorted(maps.Keys(m.Data)) {
			if isConfig(m.Data[key]) {
				add(parse(m.Data[key], m.Key.String()+" "+key, m.Key.String(), valuePlace(m, key)))
			}
		}
	}
	for r := range policy.All[*policy.RateLimit](set) {
		add(fromFile(r))
	}
	return distinct(configs, problems)
}

// fromFile reads a bare file. A file that could not even be decoded carries its domain as its name.
func fromFile(r *policy.RateLimit) (Config, []policy.Problem) {
	if r.Void && r.Config == "" {
		return Config{Domain: r.Key.Name, Source: r.Key.String(), At: r.At, Void: true}, nil
	}
	return parse(r.Config, r.Key.String(), r.Key.String(), func(first, line int) policy.Origin {
		return policy.Origin{File: r.At.File, Line: max(r.At.Line, 1) + line - first}
	})
}

// isConfig tells a configuration of the limiter from any other value of a ConfigMap, such as an application's own settings with a domain in
// them: it has, at its outermost level, a domain and a list of descriptors, however misspelt the latter.
func isConfig(text string) bool {
	domain, tree := false, false
	for line := range strings.Lines(text) {
		domain = domain || strings.HasPrefix(line, "domain:")
		tree = tree || strings.HasPrefix(line, "desc")
	}
	return domain && tree
}

// valuePlace turns a line of a value that is written as a block scalar into a line of the file: the block begins below its key.
func valuePlace(m *policy.ConfigMap, key string) func(first, line int) policy.Origin {
	at := m.Where("data." + key)
	if other := m.Where(fmt.Sprintf("data[%s]", key)); cmp.Compare(other.Line, at.Line) > 0 {
		at = other
	}
	return func(_, line int) policy.Origin { return policy.Origin{File: at.File, Line: at.Line + line} }
}

// distinct keeps the first configuration of each domain.
func distinct(configs []Config, problems []policy.Problem) ([]Config, []policy.Problem) {
	first := map[string]Config{}
	out := configs[:0]
	for _, c := range configs {
		if had, twice := first[c.Domain]; twice && c.Domain != "" {
			object, _, _ := strings.Cut(c.Source, " ")
			problems = append(problems, policy.Problem{
				At: c.At, Object: object + " " + sourceName(c.Source), Field: "domain", Code: "RATELIMIT_DUPLICATE_DOMAIN",
				Says: fmt.Sprintf("the domain %q is already configured at %s; this configuration is not in force", c.Domain, had.At),
				Try:  "merge the two, or rename one",
			})
			continue
		}
		first[c.Domain] = c
		out = append(out, c)
	}
	return out, problems
}

func sourceName(source string) string {
	if parts := strings.Fields(source); len(parts) > 1 {
		return parts[1]
	}
	return source
}
