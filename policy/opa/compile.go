package opa

import (
	"maps"
	"slices"
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"

	"github.com/credence-mesh/credence/policy"
)

// state is what Update remembers: above all the modules of each package as they last compiled.
type state struct {
	good     map[string]map[string]*ast.Module // package, source
	packages map[string]string                 // source to package
	modules  []module                          // as last given
	problems []policy.Problem                  // as last told
	unknown  map[string]bool                   // sources that were void at the start, of unknown packages
}

// group is the modules of one package on their way into force.
type group struct {
	modules  map[string]*ast.Module // by source
	fallback bool                   // they are the last good ones
}

// build is one run of Update.
type build struct {
	old      state
	byName   map[string]module
	groups   map[string]*group
	broken   map[string]bool // packages of which no version is in force
	first    bool            // nothing was in force before
	unknown  map[string]bool // sources that could belong to any package, and of which nothing was ever in force
	findings []finding
}

// finding is a problem and the package that it is about, where one is known.
type finding struct {
	policy.Problem
	pkg string
}

func (b *build) add(pkg string, problems ...policy.Problem) {
	for _, p := range problems {
		b.findings = append(b.findings, finding{p, pkg})
	}
}

// parse groups the modules by package. A package of which one module cannot be read stays as it last was. Where not even its package can be
// told, that is all packages: at the start, when there is no last good version of any, no decision is in force until the module is mended.
func (b *build) parse(modules []module, c *ast.Capabilities) {
	failed := map[string]bool{}
	for _, m := range modules {
		b.byName[m.source] = m
		parsed, problems := m.parse(c)
		if parsed == nil {
			name := m.packageOf()
			if name == "" {
				name = b.old.packages[m.source]
			}
			failed[name] = true
			b.add(name, problems...)
			if name == "" && (b.first || b.old.unknown[m.source]) {
				b.unknown[m.source] = true
			}
			continue
		}
		name := parsed.Package.Path.String()
		b.add(name, problems...)
		if b.groups[name] == nil {
			b.groups[name] = &group{modules: map[string]*ast.Module{}}
		}
		b.groups[name].modules[m.source] = parsed
	}
	for name := range failed {
		b.retreat(name)
	}
}

// retreat takes a package back to its last good version, or out of force where there is none.
func (b *build) retreat(name string) {
	if name == "" {
		return // not even its package is known: it never was in force
	}
	now, last := b.groups[name], b.old.good[name]
	if last != nil && (now == nil || !now.fallback) {
		b.groups[name] = &group{modules: last, fallback: true}
		return
	}
	delete(b.groups, name)
	b.broken[name] = true
}

// compile compiles all packages together; a package with an error retreats, and the rest is compiled again.
func (b *build) compile(c *ast.Capabilities) *ast.Compiler {
	for {
		compiler := ast.NewCompiler().WithCapabilities(c).SetErrorLimit(0).WithDefaultRegoVersion(ast.RegoV1)
		all := map[string]*ast.Module{}
		for _, g := range b.groups {
			maps.Copy(all, g.modules)
		}
		compiler.Compile(all)
		if !compiler.Failed() {
			return compiler
		}
		culprits := b.culprits(compiler.Errors)
		if len(culprits) == 0 {
			culprits = slices.Sorted(maps.Keys(b.groups)) // an error that names no module takes all back
		}
		for _, name := range culprits {
			b.retreat(name)
		}
	}
}

// culprits are the packages that errors point to; each error becomes a problem, unless it is in a version that stands already.
func (b *build) culprits(errs ast.Errors) []string {
	found := map[string]bool{}
	for _, e := range errs {
		for name, g := range b.groups {
			if e.Location == nil || g.modules[e.Location.File] == nil {
				continue
			}
			found[name] = true
			if m, ok := b.byName[e.Location.File]; ok && !g.fallback {
				b.add(name, m.problem(policy.Error, e, "REGO_COMPILE", "correct the rule; until then the package's last good version stands, or none"))
			}
		}
	}
	return slices.Sorted(maps.Keys(found))
}

// next is what to remember for the next Update.
func (b *build) next() state {
	s := state{good: map[string]map[string]*ast.Module{}, packages: map[string]string{}, unknown: b.unknown}
	for name, g := range b.groups {
		s.good[name] = g.modules
		for source := range g.modules {
			s.packages[source] = name
		}
	}
	return s
}

// tainted are the packages that need a broken one, directly or through others. What they would decide is not what their author wrote.
func tainted(compiler *ast.Compiler, broken map[string]bool) map[string]bool {
	out := maps.Clone(broken)
	if len(broken) == 0 {
		return out
	}
	needs := map[string][]string{}
	for _, m := range compiler.Modules {
		name := m.Package.Path.String()
		ast.WalkRefs(m, func(r ast.Ref) bool {
			if len(r) > 0 && r[0].Equal(ast.DefaultRootDocument) {
				needs[name] = append(needs[name], r.GroundPrefix().String())
			}
			return false
		})
	}
	for changed := true; changed; {
		changed = false
		for name, refs := range needs {
			if !out[name] && slices.ContainsFunc(refs, func(r string) bool { return overlaps(r, name, out) }) {
				out[name], changed = true, true
			}
		}
	}
	return out
}

func overlaps(ref, self string, packages map[string]bool) bool {
	for p := range packages {
		if p != self && (within(ref, p) || within(p, ref)) {
			return true
		}
	}
	return false
}

// within tells whether path a lies at or below path b.
func within(a, b string) bool {
	return a == b || strings.HasPrefix(a, b+".") || strings.HasPrefix(a, b+"[")
}
