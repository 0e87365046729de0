package opa

import (
	"errors"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/credence-mesh/credence/policy"
)

// module is one Rego file as users wrote it.
type module struct {
	source string // stable across edits; the file name that OPA's errors carry
	object string
	text   string
	place  func(row int) policy.Origin
	void   bool // refused by the source, which may have lost the text
	read   bool // by the source, which has told what it thinks of the syntax
}

// equal tells that two modules say the same in the same place, so that also the problems are the same.
func (m module) equal(o module) bool {
	return m.source == o.source && m.object == o.object && m.text == o.text && m.void == o.void && m.place(1) == o.place(1)
}

// modulesIn finds every module of a set: Rego objects, and the values of ConfigMaps under keys that end in ".rego". Tests are left out.
func modulesIn(set *policy.Set) []module {
	var out []module
	for r := range policy.All[*policy.Rego](set) {
		if strings.HasSuffix(r.Key.Name, "_test.rego") {
			continue
		}
		out = append(out, module{source: r.Key.String(), object: r.Key.String(), text: r.Module, void: r.Void, read: true, place: func(row int) policy.Origin {
			return policy.Origin{File: r.At.File, Line: max(r.At.Line, 1) + row - 1}
		}})
	}
	for m := range policy.All[*policy.ConfigMap](set) {
		for _, key := range slices.Sorted(maps.Keys(m.Data)) {
			if strings.HasSuffix(key, ".rego") && !strings.HasSuffix(key, "_test.rego") {
				out = append(out, module{source: m.Key.String() + " " + key, object: m.Key.String(), text: m.Data[key], place: valuePlace(m, key)})
			}
		}
	}
	return out
}

// valuePlace turns a row of a value that is written as a block scalar into a line of the file: the block begins below its key.
func valuePlace(m *policy.ConfigMap, key string) func(row int) policy.Origin {
	at := m.Where("data." + key)
	if other := m.Where(fmt.Sprintf("data[%s]", key)); other.Line > at.Line {
		at = other
	}
	return func(row int) policy.Origin { return policy.Origin{File: at.File, Line: at.Line + row} }
}

func (m module) problem(severity policy.Severity, e *ast.Error, code, try string) policy.Problem {
	p := policy.Problem{At: m.place(1), Object: m.object, Code: code, Says: e.Message, Try: try, Severity: severity}
	if e.Location != nil {
		p.At = m.place(e.Location.Row)
		p.Says = fmt.Sprintf("column %d: %s", e.Location.Col, e.Message)
	}
	return p
}

// parse reads a module in today's syntax, else in that of OPA before 1.0.
func (m module) parse(c *ast.Capabilities) (*ast.Module, []policy.Problem) {
	parsed, err := ast.ParseModuleWithOpts(m.source, m.text, ast.ParserOptions{RegoVersion: ast.RegoV1, Capabilities: c})
	if err == nil && parsed != nil && !m.void {
		return parsed, m.refused(parsed, c)
	}
	old, oldErr := ast.ParseModuleWithOpts(m.source, m.text, ast.ParserOptions{RegoVersion: ast.RegoV0, Capabilities: c})
	switch {
	case m.void:
		return nil, nil // the source has told why
	case oldErr == nil && old != nil && m.read:
		return old, m.refused(old, c)
	case oldErr == nil && old != nil:
		return old, append(m.refused(old, c), m.problem(policy.Warning, &ast.Error{Location: old.Package.Location, Message: "the module is in the syntax of OPA before 1.0"},
			"REGO_V0", "write `if` before the bodies of rules and `contains` in partial sets; `opa fmt --v0-v1` does it"))
	}
	return nil, m.unreadable(err)
}

// unreadable tells why a module cannot be parsed.
func (m module) unreadable(err error) []policy.Problem {
	const code, try = "REGO_SYNTAX", "correct the syntax; the last good version of the package stays in force"
	var all ast.Errors
	if !errors.As(err, &all) || len(all) == 0 {
		says := "the module is empty"
		if err != nil {
			says = err.Error()
		}
		return []policy.Problem{m.problem(policy.Error, &ast.Error{Message: says}, code, try)}
	}
	var out []policy.Problem
	for _, e := range all {
		out = append(out, m.problem(policy.Error, e, code, try))
	}
	return out
}

// refused tells in plain words which calls the capabilities do not allow. The compiler refuses them again, so nothing rests on this list.
func (m module) refused(parsed *ast.Module, c *ast.Capabilities) []policy.Problem {
	known := map[string]bool{}
	for _, b := range c.Builtins {
		known[b.Name] = true
	}
	var out []policy.Problem
	ast.WalkRefs(parsed, func(r ast.Ref) bool {
		if name := r.String(); ast.BuiltinMap[name] != nil && !known[name] {
			out = append(out, m.problem(policy.Error, &ast.Error{Location: r[0].Location, Message: name + " reaches beyond the request, and is not allowed"},
				"REGO_BUILTIN_REFUSED", "decide by the input alone, or allow the function in credence.yaml"))
		}
		return false
	})
	return out
}

var packageLine = regexp.MustCompile(`(?m)^\s*package\s+([A-Za-z0-9_.]+)`)

// packageOf guesses the package of a module that cannot be parsed.
func (m module) packageOf() string {
	if found := packageLine.FindStringSubmatch(m.text); found != nil {
		return "data." + found[1]
	}
	return ""
}

// capabilities are all built-in functions but those that read or reach something other than the input: the network, the process's environment.
func capabilities(allowed []string) *ast.Capabilities {
	c := ast.CapabilitiesForThisVersion()
	c.AllowNet = []string{} // none: no schema is fetched either
	c.Builtins = slices.DeleteFunc(slices.Clone(c.Builtins), func(b *ast.Builtin) bool {
		reaches := b.Name == "http.send" || b.Name == "opa.runtime" || strings.HasPrefix(b.Name, "net.lookup") || b.Name == "rego.parse_module"
		return reaches && !slices.Contains(allowed, b.Name)
	})
	return c
}
