package cases

import (
	"bytes"
	"context"
	"encoding/xml"
	"errors"
	"strings"
	"testing"

	securityv1beta1 "istio.io/api/security/v1beta1"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/explain"
)

const suite = `config: [../mesh]
settings: ../credence.yaml
defaults:
  workload: shop/orders
  port: 8080
  peer: spiffe://cluster.local/ns/shop/sa/web
  headers: {x-a: "1", x-b: "2"}
cases:
- name: reads
  path: /orders/1
  headers: {x-b: "3"}
  expect: {status: 200, policy: shop/orders, rule: 0}
- path: /
  method: POST
  peer: plaintext
  claims: {iss: x, roles: [a, b], n: 1}
  expect: {decision: deny}
`

func TestRead(t *testing.T) {
	t.Parallel()
	s, problems := Read("tests/a.yaml", []byte(suite))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	if s.Config[0] != "mesh" || s.Settings != "credence.yaml" || len(s.Cases) != 2 || s.Cases[0].Line != 9 || s.Cases[1].Line != 13 {
		t.Errorf("%+v", s)
	}
	first, err := s.Cases[0].request()
	if err != nil || first.Transport != explain.MutualTLS || first.Port != 8080 || len(first.Headers) != 2 || first.Headers[1].Value != "3" {
		t.Errorf("%+v, %v", first, err)
	}
	second, err := s.Cases[1].request()
	if err != nil || second.Transport != explain.Plaintext || second.Claims["iss"] != "x" || second.Headers[1].Value != "2" {
		t.Errorf("%+v, %v", second, err)
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	const base = "config: [m]\ndefaults: {workload: a/b, port: 1}\ncases:\n"
	for _, tt := range []struct{ name, text, want string }{
		{"an unknown field", base + "- {pth: /, expect: {status: 200}}\n", "pth"},
		{"no expectation", base + "- {path: /}\n", "could not fail"},
		{"a decision that there is not", base + "- {expect: {decision: maybe}}\n", "neither allow nor deny"},
		{"a caller that is none", base + "- {peer: web, expect: {status: 200}}\n", "nor a SPIFFE ID"},
		{"no workload", "config: [m]\ncases: [{port: 1, expect: {status: 200}}]\n", "namespace/name"},
		{"no port", "config: [m]\ncases: [{workload: a/b, expect: {status: 200}}]\n", "no port"},
		{"no configuration", "cases: [{workload: a/b, port: 1, expect: {status: 200}}]\n", "no config"},
		{"no cases", "config: [m]\n", "no cases"},
		{"an address that is none", base + "- {sourceIP: x, expect: {status: 200}}\n", "sourceIP"},
		{"two documents", base + "- {expect: {status: 200}}\n---\nconfig: [x]\n", "second document"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			_, problems := Read("a.yaml", []byte(tt.text))
			for _, p := range problems {
				if strings.Contains(p.String(), tt.want) && p.Severity == policy.Error {
					return
				}
			}
			t.Errorf("%v: nothing of %q", problems, tt.want)
		})
	}
}

// answers is an Asker with one answer.
type answers struct {
	v   explain.Verdict
	err error
}

func (a answers) Explain(context.Context, string, string, explain.Request) (explain.Verdict, error) {
	return a.v, a.err
}

func TestRun(t *testing.T) {
	t.Parallel()
	zero := 0
	one := func(e Expect) Suite {
		return Suite{File: "a.yaml", Cases: []Case{{Name: "n", Line: 3, Expect: e, Request: Request{Workload: "a/b", Port: 1}}}}
	}
	denied := answers{v: explain.Verdict{Code: 403, Decision: explain.Deny, Policy: "a/p", Rule: 0}}
	for _, tt := range []struct {
		name   string
		expect Expect
		mesh   answers
		wrong  string // empty: passes
	}{
		{"all of it", Expect{403, explain.Deny, "a/p", &zero}, denied, ""},
		{"another status", Expect{Status: 200}, denied, "status: expected 200, got 403"},
		{"another decision", Expect{Decision: explain.Allow}, denied, "decision: expected allow, got deny"},
		{"another policy", Expect{Policy: "a/q"}, denied, "policy: expected a/q, got a/p"},
		{"another rule", Expect{Rule: &zero}, answers{v: explain.Verdict{Decision: explain.Deny, Rule: 2}}, "rule: expected 0, got 2"},
		{"what is not known satisfies nothing", Expect{Decision: explain.Allow}, answers{v: explain.Verdict{Decision: explain.Unknown}}, "not known"},
		{"an error", Expect{Status: 200}, answers{err: errors.New("no workload")}, "no workload"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			r := Run(context.Background(), one(tt.expect), tt.mesh)[0]
			if r.Passed != (tt.wrong == "") || !strings.Contains(strings.Join(r.Wrong, "\n"), tt.wrong) {
				t.Errorf("%+v", r)
			}
			if r.At != "a.yaml:3" {
				t.Errorf("at %s", r.At)
			}
		})
	}
}

func TestReports(t *testing.T) {
	t.Parallel()
	p := &policy.AuthorizationPolicy{
		Object: policy.Object{Key: policy.Key{Kind: policy.KindAuthorizationPolicy, Namespace: "a", Name: "p"}, At: policy.Origin{File: "p.yaml", Line: 1}},
		Spec:   &securityv1beta1.AuthorizationPolicy{Rules: []*securityv1beta1.Rule{{}, {}}},
	}
	set := policy.NewSet(policy.DefaultMesh()).Apply([]policy.Resource{p}, nil)
	results := []Result{
		{Name: "good", At: "a.yaml:1", Passed: true, Verdict: explain.Verdict{Steps: []explain.Step{{Policy: "ns[a]-policy[p]-rule[1]"}}}},
		{Name: "bad <one>", At: "a.yaml:2", Wrong: []string{"status: expected 200, got 403"}},
	}
	report := Report{File: "a.yaml", Results: results, Coverage: Covered(set, results)}
	var text bytes.Buffer
	if err := Text(&text, []Report{report}); err != nil {
		t.Fatal(err)
	}
	want := "FAIL  bad <one> (a.yaml:2)\n      status: expected 200, got 403\n2 cases, 1 failed\na.yaml: 1 of 2 rules exercised\n  never exercised: a/p rule 0 (p.yaml:1)\n"
	if text.String() != want {
		t.Errorf("got\n%swant\n%s", &text, want)
	}
	var junit bytes.Buffer
	if err := JUnit(&junit, []Report{report}); err != nil {
		t.Fatal(err)
	}
	var back junitSuites
	if err := xml.Unmarshal(junit.Bytes(), &back); err != nil {
		t.Fatal(err)
	}
	if s := back.Suites[0]; s.Tests != 2 || s.Failures != 1 || s.Cases[0].Failure != nil || s.Cases[1].Failure == nil {
		t.Errorf("%s", &junit)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(suite))
	f.Fuzz(func(t *testing.T, data []byte) {
		s, problems := Read("a.yaml", data)
		if len(problems) == 0 {
			for i := range s.Cases {
				if _, err := s.Cases[i].request(); err != nil {
					t.Error(err)
				}
			}
		}
	})
}
