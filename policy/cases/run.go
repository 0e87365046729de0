package cases

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/explain"
)

// Asker answers questions about workloads.
type Asker interface {
	Explain(ctx context.Context, namespace, name string, r explain.Request) (explain.Verdict, error)
}

// Result is what became of one case.
type Result struct {
	Name    string          `json:"name"`
	At      string          `json:"at"`
	Passed  bool            `json:"passed"`
	Wrong   []string        `json:"wrong,omitempty"` // what was expected and is not so
	Verdict explain.Verdict `json:"verdict"`
	Took    time.Duration   `json:"-"`
}

// Run asks every case of a suite.
func Run(ctx context.Context, s Suite, mesh Asker) []Result {
	out := make([]Result, 0, len(s.Cases))
	for i := range s.Cases {
		c := &s.Cases[i]
		began := time.Now()
		r := Result{Name: c.title(), At: fmt.Sprintf("%s:%d", s.File, c.Line)}
		v, err := c.ask(ctx, mesh)
		if err != nil {
			r.Wrong = []string{err.Error()}
		} else {
			r.Verdict, r.Wrong = v, c.Expect.wrong(v)
		}
		r.Passed, r.Took = len(r.Wrong) == 0, time.Since(began)
		out = append(out, r)
	}
	return out
}

func (c *Case) title() string {
	if c.Name != "" {
		return c.Name
	}
	return strings.TrimSpace(fmt.Sprintf("%s %s %s", c.Workload, c.Method, c.Path))
}

func (c *Case) ask(ctx context.Context, mesh Asker) (explain.Verdict, error) {
	r, err := c.request()
	if err != nil {
		return explain.Verdict{}, err
	}
	namespace, name, _ := strings.Cut(c.Workload, "/")
	return mesh.Explain(ctx, namespace, name, r)
}

// wrong compares. A verdict that is not known satisfies nothing.
func (e Expect) wrong(v explain.Verdict) []string {
	var out []string
	differs := func(what string, want, got any) {
		if want != got {
			out = append(out, fmt.Sprintf("%s: expected %v, got %v", what, want, got))
		}
	}
	if v.Decision == explain.Unknown {
		return []string{"not known: " + v.Because}
	}
	if e.Status != 0 {
		differs("status", e.Status, v.Code)
	}
	if e.Decision != "" {
		differs("decision", e.Decision, v.Decision)
	}
	if e.Policy != "" {
		differs("policy", e.Policy, v.Policy)
	}
	if e.Rule != nil {
		differs("rule", *e.Rule, v.Rule)
	}
	if len(out) > 0 {
		out = append(out, v.Because)
	}
	return out
}

// Coverage is the rules of a set, and which of them some case exercised.
type Coverage struct {
	Rules  int        `json:"rules"`
	Unused []Untested `json:"neverExercised"`
}

// Untested is a rule that decided about no case.
type Untested struct {
	Policy string `json:"policy"`
	Rule   int    `json:"rule"`
	At     string `json:"at"`
}

// Covered compares the rules of AuthorizationPolicies with those that matched in results.
func Covered(set *policy.Set, results []Result) Coverage {
	matched := map[explain.Rule]bool{}
	for _, r := range results {
		for _, id := range r.Verdict.Exercised() {
			if x, ok := explain.RuleOf(id); ok {
				matched[x] = true
			}
		}
	}
	c := Coverage{Unused: []Untested{}}
	for p := range policy.All[*policy.AuthorizationPolicy](set) {
		for i := range p.Spec.GetRules() {
			c.Rules++
			x := explain.Rule{Namespace: p.Key.Namespace, Name: p.Key.Name, Index: i}
			if !matched[x] {
				c.Unused = append(c.Unused, Untested{Policy: p.Key.Namespace + "/" + p.Key.Name, Rule: i, At: explain.Where(set, x, "")})
			}
		}
	}
	return c
}
