// Package cases is policy tests as users write them: a caller and a request, and what must become of it. They are run against what the proxies
// would get, without any proxy, and tell which rules no case exercises.
package cases

import (
	"fmt"
	"net/netip"
	"path/filepath"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/explain"
	"github.com/credence-mesh/credence/policy/strict"
)

// Suite is one file.
type Suite struct {
	Config   []string `json:"config"`   // resources: files and directories; relative to this file
	Settings string   `json:"settings"` // credence.yaml; relative to this file; empty: the defaults
	Defaults Request  `json:"defaults"` // what a case leaves out
	Cases    []Case   `json:"cases"`
	File     string   `json:"-"`
}

// Case is one question and the answer that is expected.
type Case struct {
	Name   string `json:"name"`
	Expect Expect `json:"expect"`
	Line   int    `json:"-"`
	Request
}

// Request is a caller and what is asked.
type Request struct {
	Workload string            `json:"workload"` // namespace/name
	Port     uint32            `json:"port"`
	Peer     string            `json:"peer"` // SPIFFE ID, tls, or plaintext (the default)
	SourceIP string            `json:"sourceIP"`
	SNI      string            `json:"sni"`
	Method   string            `json:"method"`
	Path     string            `json:"path"`
	Host     string            `json:"host"`
	Headers  map[string]string `json:"headers"` // those of the defaults are added
	Claims   map[string]any    `json:"claims"`  // of a token that counts as verified
	Token    string            `json:"token"`   // a token whose signature is verified
	Body     int64             `json:"bodyBytes"`
}

// Expect is what must become of a request. What is left out is not compared; something must be there.
type Expect struct {
	Status   int    `json:"status"`
	Decision string `json:"decision"` // allow or deny
	Policy   string `json:"policy"`   // namespace/name of the policy that decides
	Rule     *int   `json:"rule"`
}

// Read decodes a file. Where a problem is an error the suite must not be run.
func Read(file string, data []byte) (Suite, []policy.Problem) {
	s := Suite{File: file}
	docs, problems := strict.Split(file, data)
	for i, d := range docs {
		if d.Problem.Code != "" || i > 0 {
			problems = append(problems, cmpProblem(d, i))
			continue
		}
		r := strict.NewReader(file, "")
		r.Survey(d.Root)
		r.Into(d.Root, "", &s)
		problems = append(problems, r.Problems...)
		for n, line := range lines(d.Root) {
			if n < len(s.Cases) {
				s.Cases[n].Line = line
			}
		}
	}
	for i := range s.Config {
		s.Config[i] = beside(file, s.Config[i])
	}
	if s.Settings != "" {
		s.Settings = beside(file, s.Settings)
	}
	for i := range s.Cases {
		s.Cases[i].inherit(s.Defaults)
	}
	return s, append(problems, s.check()...)
}

func cmpProblem(d strict.Document, i int) policy.Problem {
	if i == 0 || d.Problem.Code != "" {
		return d.Problem
	}
	return policy.Problem{At: d.At, Code: strict.CodeYAMLSyntax, Says: "a second document in a file of cases", Try: "put it into a file of its own"}
}

// lines are where the cases begin.
func lines(root *yaml.Node) []int {
	if root.Kind == yaml.DocumentNode && len(root.Content) > 0 {
		root = root.Content[0]
	}
	var out []int
	for i := 0; i+1 < len(root.Content); i += 2 {
		if root.Content[i].Value == "cases" {
			for _, c := range root.Content[i+1].Content {
				out = append(out, c.Line)
			}
		}
	}
	return out
}

func beside(file, path string) string {
	if filepath.IsAbs(path) {
		return path
	}
	return filepath.Join(filepath.Dir(file), path)
}

// inherit fills in what a case leaves out.
func (c *Case) inherit(d Request) {
	for to, from := range map[*string]string{
		&c.Workload: d.Workload, &c.Peer: d.Peer, &c.SourceIP: d.SourceIP, &c.SNI: d.SNI, &c.Method: d.Method, &c.Path: d.Path, &c.Host: d.Host,
	} {
		if *to == "" {
			*to = from
		}
	}
	if c.Port == 0 {
		c.Port = d.Port
	}
	if c.Claims == nil && c.Token == "" {
		c.Claims, c.Token = d.Claims, d.Token
	}
	for k, v := range d.Headers {
		if _, has := c.Headers[k]; !has {
			if c.Headers == nil {
				c.Headers = map[string]string{}
			}
			c.Headers[k] = v
		}
	}
}

// check finds cases that cannot be asked, or that no answer could fail.
func (s *Suite) check() []policy.Problem {
	var out []policy.Problem
	bad := func(line int, field, says, try string) {
		out = append(out, policy.Problem{At: policy.Origin{File: s.File, Line: line}, Field: field, Code: "CASE_INVALID", Says: says, Try: try})
	}
	if len(s.Config) == 0 {
		bad(1, "config", "no config: which resources are tested?", "config: [../mesh]")
	}
	if len(s.Cases) == 0 {
		bad(1, "cases", "there are no cases", "")
	}
	for i, c := range s.Cases {
		field := fmt.Sprintf("cases[%d]", i)
		if _, err := c.request(); err != nil {
			bad(c.Line, field, err.Error(), "")
		}
		if c.Expect == (Expect{}) {
			bad(c.Line, field+".expect", "expects nothing, so it could not fail", "expect: {status: 403}")
		}
		if d := c.Expect.Decision; d != "" && d != explain.Allow && d != explain.Deny {
			bad(c.Line, field+".expect.decision", fmt.Sprintf("%q is neither allow nor deny", d), "")
		}
	}
	return out
}

// request is the case as it is asked.
func (c *Case) request() (explain.Request, error) {
	out := explain.Request{
		Port: c.Port, ServerName: c.SNI, Method: c.Method, Path: c.Path, Host: c.Host, Claims: c.Claims, Token: c.Token, Body: c.Body,
	}
	if ns, name, ok := strings.Cut(c.Workload, "/"); !ok || ns == "" || name == "" {
		return out, fmt.Errorf("workload %q is not namespace/name", c.Workload)
	}
	if c.Port == 0 {
		return out, fmt.Errorf("no port")
	}
	var err error
	if out.Transport, out.Peer, err = explain.Caller(c.Peer); err != nil {
		return out, fmt.Errorf("peer: %w", err)
	}
	if c.SourceIP != "" {
		if out.SourceIP, err = netip.ParseAddr(c.SourceIP); err != nil {
			return out, fmt.Errorf("sourceIP: %w", err)
		}
	}
	for k, v := range c.Headers {
		out.Headers = append(out.Headers, explain.Header{Name: k, Value: v})
	}
	slices.SortFunc(out.Headers, func(a, b explain.Header) int { return strings.Compare(a.Name, b.Name) })
	return out, nil
}
