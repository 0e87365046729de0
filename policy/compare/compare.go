package compare

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"strings"
	"text/tabwriter"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/explain"
)

// Mesh is one of the two that are compared.
type Mesh interface {
	Set() *policy.Set
	Config(w *policy.Workload) (*explain.Config, error)
	Explain(ctx context.Context, namespace, name string, r explain.Request) (explain.Verdict, error)
}

// maxQuestions bounds what is asked about one port.
const maxQuestions = 20000

// Change is requests of one caller whose verdict changes in the same way.
type Change struct {
	Workload string   `json:"workload"`
	Port     uint32   `json:"port"`
	Caller   string   `json:"caller"`
	Requests []string `json:"requests"` // "GET /orders/probe"
	Before   Verdict  `json:"before"`
	After    Verdict  `json:"after"`
}

// Verdict is what is compared: who decides, and how.
type Verdict struct {
	Code     int    `json:"code"`
	Decision string `json:"decision"` // allow, deny, unknown, or absent: there is no such workload or port
	Policy   string `json:"policy"`   // "namespace/name rule 0"; told, not compared
}

// Result is all changes, and how much was asked.
type Result struct {
	Asked     int      `json:"asked"`
	Truncated []string `json:"truncated,omitempty"` // workloads with more questions than are asked
	Changes   []Change `json:"changes"`
}

// Effect is what a change does to a caller.
func (c Change) Effect() string {
	switch {
	case c.After.Decision == explain.Allow:
		return "opens"
	case c.Before.Decision == explain.Allow:
		return "closes"
	default:
		return "refuses otherwise"
	}
}

// Matters tells whether anybody gets in who did not, or the other way round, or whether that is not known.
func (r Result) Matters() bool {
	return slices.ContainsFunc(r.Changes, func(c Change) bool { return c.Effect() != "refuses otherwise" || c.After.Decision == explain.Unknown })
}

// Sets asks both meshes everything that the rules of either suggest.
func Sets(ctx context.Context, before, after Mesh) (Result, error) {
	out := Result{Changes: []Change{}}
	for _, name := range workloads(before.Set(), after.Set()) {
		if err := out.workload(ctx, before, after, name); err != nil {
			return out, err
		}
	}
	return out, nil
}

type workload struct{ namespace, name string }

func workloads(sets ...*policy.Set) []workload {
	var out []workload
	for _, s := range sets {
		for w := range s.Workloads() {
			out = append(out, workload{w.Namespace, w.Name})
		}
	}
	slices.SortFunc(out, func(a, b workload) int {
		return cmp.Or(cmp.Compare(a.namespace, b.namespace), cmp.Compare(a.name, b.name))
	})
	return slices.Compact(out)
}

func (r *Result) workload(ctx context.Context, before, after Mesh, w workload) error {
	old, err := portsOf(before, w)
	if err != nil {
		return err
	}
	fresh, err := portsOf(after, w)
	if err != nil {
		return err
	}
	p := probesOf(w.namespace, w.name, before.Set(), after.Set())
	for _, port := range union(old, fresh) {
		var found []Change
		asked := 0
		for _, c := range p.callers {
			for _, a := range p.requests {
				if asked++; asked > maxQuestions {
					continue
				}
				q := explain.Request{
					Port: port, Transport: c.transport, Peer: c.peer, ServerName: a.host, SourceIP: c.source, Method: a.method, Host: a.host, Path: a.path,
					Headers: c.headers, Claims: c.claims,
				}
				x, err := ask(ctx, before, w, slices.Contains(old, port), q)
				if err != nil {
					return err
				}
				y, err := ask(ctx, after, w, slices.Contains(fresh, port), q)
				if err != nil {
					return err
				}
				if x.Decision != y.Decision || x.Code != y.Code {
					found = record(found, Change{Workload: w.namespace + "/" + w.name, Port: port, Caller: c.String(), Requests: []string{a.String()}, Before: x, After: y})
				}
			}
		}
		if asked > maxQuestions {
			r.Truncated = append(r.Truncated, w.namespace+"/"+w.name)
		}
		r.Asked += min(asked, maxQuestions)
		slices.SortStableFunc(found, func(a, b Change) int { return cmp.Compare(rank(a), rank(b)) })
		r.Changes = append(r.Changes, found...)
	}
	return nil
}

// rank puts what opens first: it is what reviewers must not miss.
func rank(c Change) int {
	return slices.Index([]string{"opens", "closes", "refuses otherwise"}, c.Effect())
}

func (a asked) String() string { return strings.TrimSpace(a.method + " " + a.host + a.path) }

func portsOf(m Mesh, w workload) ([]uint32, error) {
	found, ok := m.Set().Workload(w.namespace, w.name)
	if !ok {
		return nil, nil
	}
	c, err := m.Config(found)
	if err != nil {
		return nil, err
	}
	return c.Ports(), nil
}

func union(a, b []uint32) []uint32 {
	out := append(slices.Clone(a), b...)
	slices.Sort(out)
	return slices.Compact(out)
}

func ask(ctx context.Context, m Mesh, w workload, there bool, r explain.Request) (Verdict, error) {
	if !there {
		return Verdict{Decision: "absent"}, nil
	}
	v, err := m.Explain(ctx, w.namespace, w.name, r)
	if err != nil {
		return Verdict{}, err
	}
	out := Verdict{Code: v.Code, Decision: v.Decision, Policy: v.Policy}
	if v.Policy != "" && v.Rule != explain.NoRule {
		out.Policy = fmt.Sprintf("%s rule %d", v.Policy, v.Rule)
	}
	if v.Nearest != nil {
		out.Policy = "" // none of them matched
	}
	return out, nil
}

// record joins requests that change in the same way.
func record(list []Change, c Change) []Change {
	for i := range list {
		if x := &list[i]; x.Caller == c.Caller && x.Before == c.Before && x.After == c.After {
			x.Requests = append(x.Requests, c.Requests...)
			return list
		}
	}
	return append(list, c)
}

func (v Verdict) String() string {
	s := v.Decision
	if v.Code != 0 {
		s = fmt.Sprintf("%s %d", s, v.Code)
	}
	if v.Policy != "" {
		s += " (" + v.Policy + ")"
	}
	return s
}

// shownRequests is how many requests a row of the table has.
const shownRequests = 3

// Table writes the changes for a terminal.
func Table(out io.Writer, r Result) error {
	w := tabwriter.NewWriter(out, 0, 0, 2, ' ', 0)
	if r.Matters() {
		fmt.Fprintln(w, "EFFECT\tWORKLOAD\tPORT\tCALLER\tREQUEST\tBEFORE\tAFTER")
	}
	otherwise := 0
	for _, c := range r.Changes {
		if c.Effect() == "refuses otherwise" && c.After.Decision != explain.Unknown {
			otherwise++
			continue
		}
		requests := strings.Join(c.Requests[:min(len(c.Requests), shownRequests)], ", ")
		if n := len(c.Requests) - shownRequests; n > 0 {
			requests += fmt.Sprintf(" and %d more", n)
		}
		fmt.Fprintf(w, "%s\t%s\t%d\t%s\t%s\t%s\t%s\n", c.Effect(), c.Workload, c.Port, c.Caller, requests, c.Before, c.After)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, name := range r.Truncated {
		if _, err := fmt.Fprintf(out, "%s: more questions than %d: not all were asked\n", name, maxQuestions); err != nil {
			return err
		}
	}
	_, err := fmt.Fprintf(out, "%d questions asked of both: %d changes open or close something, %d change how a refusal is told (-o json has them)\n",
		r.Asked, len(r.Changes)-otherwise, otherwise)
	return err
}
