package opa

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"

	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/credence-mesh/credence/policy"
)

// policies is everything that is in force. Only its cache of prepared queries grows.
type policies struct {
	compiler *ast.Compiler
	closed   map[string]bool // packages that are broken or need a broken one
	unknown  string          // a module that nobody could read, and that may belong to any package; empty: none
	decision string          // the default; empty: none
	rules    map[string]bool // paths of all rules, the decisions that may be asked for
	mu       sync.Mutex
	prepared map[string]rego.PreparedEvalQuery
}

// Update puts the Rego of a set in force, all at once, and tells what is wrong with it.
//
// A package with an error keeps its last good version; where it has none it is left out, and a decision that needs it is a denial. Other
// packages are not touched. Where no module has changed nothing is compiled again. The decision is Options.Decision, else data.envoy.authz.allow where that package exists, else the rule `allow` of
// the only package that has one. Update must not be called twice at a time.
func (s *Service) Update(set *policy.Set) []policy.Problem {
	c := capabilities(s.options.Builtins)
	b := &build{old: s.state, byName: map[string]module{}, groups: map[string]*group{}, broken: map[string]bool{}, unknown: map[string]bool{}, first: s.policies.Load() == nil}
	modules := modulesIn(set)
	if s.policies.Load() != nil && slices.EqualFunc(modules, s.state.modules, module.equal) {
		return s.state.problems
	}
	b.parse(modules, c)
	compiler := b.compile(c)
	p := &policies{
		compiler: compiler, closed: tainted(compiler, b.broken), rules: ruleNames(compiler), prepared: map[string]rego.PreparedEvalQuery{},
	}
	for source := range b.unknown {
		p.unknown = source
	}
	b.choose(p, s.options.Decision, modules)
	b.soften(p)
	if p.decision != "" && p.open(p.decision) == nil {
		if _, err := p.query(context.Background(), p.decision); err != nil {
			b.add("", policy.Problem{Code: "REGO_DECISION", Says: fmt.Sprintf("%s cannot be evaluated: %v", p.decision, err), Try: "name a rule of a package in force"})
		}
	}
	s.state = b.next()
	s.state.modules, s.state.problems = modules, b.problems()
	s.policies.Store(p)
	s.metrics.loaded(b)
	return s.state.problems
}

func ruleNames(c *ast.Compiler) map[string]bool {
	out := map[string]bool{}
	for _, m := range c.Modules {
		for _, r := range m.Rules {
			out[m.Package.Path.String()+"."+r.Head.Ref().GroundPrefix().String()] = true
		}
	}
	return out
}

// choose picks the default decision.
func (b *build) choose(p *policies, asked string, modules []module) {
	const standard = "data.envoy.authz"
	none := policy.Problem{Code: "REGO_NO_DECISION", Severity: policy.Warning}
	if len(modules) > 0 {
		none.At, none.Object = modules[0].place(1), modules[0].object
	}
	some := len(modules) > 0
	var found []string
	for name := range b.groups {
		if p.rules[name+".allow"] {
			found = append(found, name+".allow")
		}
	}
	slices.Sort(found)
	switch {
	case asked != "":
		p.decision = asked
	case b.broken[standard] || slices.Contains(found, standard+".allow"):
		p.decision = standard + ".allow"
	case len(found) == 1:
		p.decision = found[0]
	case len(found) > 1:
		b.add("", policy.Problem{At: none.At, Object: none.Object, Code: "REGO_AMBIGUOUS_DECISION",
			Says: "several packages have a rule allow, and none is envoy.authz: " + strings.Join(found, ", ") + "; requests are denied",
			Try:  "name the decision in credence.yaml, or per provider"})
	case some:
		none.Says, none.Try = "no package in force has a rule allow; requests that ask for a decision are denied", "write `package envoy.authz` and a rule allow"
		b.add("", none)
	}
	if some && p.decision != "" && p.open(p.decision) == nil && !p.rules[p.decision] {
		none.Says, none.Try = p.decision+" is no rule in force; requests that ask for it are denied", "correct the name of the decision"
		b.add("", none)
	}
}

// soften turns errors into warnings where nothing that was in force is lost and the decision does not need the package.
func (b *build) soften(p *policies) {
	if p.closed[packageOf(p.decision)] {
		return
	}
	for i, f := range b.findings {
		if f.Code == "REGO_COMPILE" && b.broken[f.pkg] && b.old.good[f.pkg] == nil {
			b.findings[i].Severity = policy.Warning
			b.findings[i].Says += "; package " + strings.TrimPrefix(f.pkg, "data.") + " is left out, and no decision in force needs it"
		}
	}
}

// problems are the findings as users see them.
func (b *build) problems() []policy.Problem {
	var out []policy.Problem
	for _, f := range b.findings {
		out = append(out, f.Problem)
	}
	return out
}

func packageOf(decision string) string {
	if i := strings.LastIndexByte(decision, '.'); i > 0 {
		return decision[:i]
	}
	return decision
}

// open returns an error where a decision needs a package that is not in force.
func (p *policies) open(decision string) error {
	if p.unknown != "" {
		return fmt.Errorf("%s cannot be read, and may belong to any package", p.unknown)
	}
	for name := range p.closed {
		if within(decision, name) || within(name, decision) {
			return fmt.Errorf("package %s is not in force", strings.TrimPrefix(name, "data."))
		}
	}
	return nil
}

// query prepares a decision once.
func (p *policies) query(ctx context.Context, decision string) (rego.PreparedEvalQuery, error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if q, ok := p.prepared[decision]; ok {
		return q, nil
	}
	q, err := rego.New(rego.Query(decision), rego.Compiler(p.compiler), rego.StrictBuiltinErrors(false)).PrepareForEval(ctx)
	if err == nil {
		p.prepared[decision] = q
	}
	return q, err
}

// Decisions lists the rules in force, by path.
func (s *Service) Decisions() []string {
	p := s.policies.Load()
	if p == nil {
		return nil
	}
	return slices.Sorted(maps.Keys(p.rules))
}
