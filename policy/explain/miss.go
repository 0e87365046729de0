package explain

import (
	"fmt"
	"slices"
	"strings"

	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	"google.golang.org/protobuf/proto"

	"github.com/credence-mesh/credence/policy"
)

// miss is a condition that did not hold.
type miss struct {
	field    string
	want     []string
	got      string
	unwanted bool // it holds, and must not
}

// misses are the fewest conditions that stand between a request and a match.
func (c condition) misses(r *run) []miss {
	if c.ask(r) == yes {
		return nil
	}
	switch c.kind {
	case isAnd:
		var out []miss
		for _, x := range c.of {
			out = append(out, x.misses(r)...)
		}
		return out
	case isOr:
		return fewest(r, c.of)
	case isNot:
		return c.of[0].hits(r)
	default:
		_, got := c.leaf.ask(r)
		return []miss{{field: c.leaf.field, want: []string{c.leaf.want}, got: got}}
	}
}

// hits are the conditions that hold where they must not.
func (c condition) hits(r *run) []miss {
	switch c.kind {
	case isLeaf:
		_, got := c.leaf.ask(r)
		return []miss{{field: c.leaf.field, want: []string{c.leaf.want}, got: got, unwanted: true}}
	case isNot:
		return c.of[0].misses(r)
	case isAnd, isOr:
	}
	for _, x := range c.of {
		if x.ask(r) == yes {
			return x.hits(r)
		}
	}
	return []miss{{field: "any", got: "any", unwanted: true}}
}

// fewest takes the nearest of alternatives. Alternatives that ask the same of one field are told as one.
func fewest(r *run, of []condition) []miss {
	var best []miss
	var wants []string
	for i, x := range of {
		m := x.misses(r)
		if len(m) == 1 && !m[0].unwanted {
			wants = append(wants, m[0].want...)
		}
		if i == 0 || len(m) < len(best) {
			best = m
		}
	}
	if len(best) == 1 && len(wants) == len(of) {
		best = slices.Clone(best)
		best[0].want = wants
	}
	return best
}

// holding counts the conditions that hold, in the best of alternatives.
func (c condition) holding(r *run) int {
	n := 0
	switch c.kind {
	case isAnd:
		for _, x := range c.of {
			n += x.holding(r)
		}
	case isOr:
		for _, x := range c.of {
			n = max(n, x.holding(r))
		}
	default:
		if c.ask(r) == yes {
			n = 1
		}
	}
	return n
}

// nearest is the rule with the fewest misses, and of such rules the one of which the most holds.
func (r *run) nearest(config *rbacconfigv3.RBAC) *Miss {
	var best []miss
	id, held := "", 0
	for _, x := range r.config.remembered.rulesOf(config) {
		if _, ok := RuleOf(x.id); !ok {
			continue
		}
		m := append(x.principals.misses(r), x.permission.misses(r)...)
		n := x.principals.holding(r) + x.permission.holding(r)
		if id == "" || len(m) < len(best) || len(m) == len(best) && n > held {
			best, id, held = m, x.id, n
		}
	}
	x, ok := RuleOf(id)
	if !ok {
		return nil
	}
	out := &Miss{Policy: x.Namespace + "/" + x.Name, Rule: x.Index, At: Where(r.set, x, "")}
	for _, m := range best {
		out.Failed = append(out.Failed, m.failed(r.set, x))
	}
	return out
}

func (m miss) failed(set *policy.Set, x Rule) Failed {
	want, field := strings.Join(m.want, " or "), m.field
	if m.unwanted {
		want = "not " + want
		if !strings.Contains(field, ".") {
			field = "not" + strings.ToUpper(field[:1]) + field[1:]
		}
	}
	return Failed{Field: field, Want: want, Got: m.got, At: fieldAt(set, x, field)}
}

// fieldAt looks for the line of a field in the sources, operations and conditions of a rule. Where several have it, the first is named.
func fieldAt(set *policy.Set, x Rule, field string) string {
	p, ok := policy.Get[*policy.AuthorizationPolicy](set, x.Namespace, x.Name)
	if !ok || p.Spec == nil || x.Index >= len(p.Spec.GetRules()) {
		return ""
	}
	field, _, _ = strings.Cut(field, " ")
	base := fmt.Sprintf("spec.rules[%d]", x.Index)
	rule := p.Spec.GetRules()[x.Index]
	for i, f := range rule.GetFrom() {
		if says(f.GetSource(), field) {
			return p.Where(fmt.Sprintf("%s.from[%d].source.%s", base, i, field)).String()
		}
	}
	for i, t := range rule.GetTo() {
		if says(t.GetOperation(), field) {
			return p.Where(fmt.Sprintf("%s.to[%d].operation.%s", base, i, field)).String()
		}
	}
	for i, w := range rule.GetWhen() {
		if w.GetKey() == field {
			return p.Where(fmt.Sprintf("%s.when[%d]", base, i)).String()
		}
	}
	return p.Where(base).String()
}

// says tells whether a message has a field, by its name in YAML.
func says(m proto.Message, field string) bool {
	f := m.ProtoReflect().Descriptor().Fields().ByJSONName(field)
	return f != nil && m.ProtoReflect().Has(f)
}
