package lint

import (
	"strings"

	"github.com/open-policy-agent/opa/v1/ast"
	securityv1beta1 "istio.io/api/security/v1beta1"

	"github.com/credence-mesh/credence/policy"
)

// rego finds modules that nothing asks, and tokens that are read without being verified.
func (l *linter) rego() {
	wired := l.wired()
	for r := range policy.All[*policy.Rego](l.set) {
		m := module(r)
		if m == nil || strings.HasSuffix(r.Key.Name, "_test.rego") { // tests are not asked by anyone
			continue
		}
		if !wired {
			l.line(r, m.Package.Location.Row, finding{
				CodeRegoNotWired, policy.Warning, "no AuthorizationPolicy with action CUSTOM and provider opa exists: no request is ever put to this policy",
				"add an AuthorizationPolicy with action: CUSTOM, provider: {name: opa}, rules: [{}]",
			})
		}
		l.tokens(r, m)
	}
}

func (l *linter) line(r *policy.Rego, line int, f finding) {
	l.found = append(l.found, policy.Problem{
		At: policy.Origin{File: r.At.File, Line: line}, Object: r.Key.String(), Code: f.code, Severity: f.severity, Says: f.says, Try: f.try,
	})
}

func (l *linter) wired() bool {
	for p := range policy.All[*policy.AuthorizationPolicy](l.set) {
		if p.Spec.GetAction() == securityv1beta1.AuthorizationPolicy_CUSTOM && p.Spec.GetProvider().GetName() == embedded {
			return true
		}
	}
	return false
}

// module parses what the source has parsed before; nil for a void one.
func module(r *policy.Rego) *ast.Module {
	for _, v := range []ast.RegoVersion{ast.RegoV1, ast.RegoV0} {
		if m, err := ast.ParseModuleWithOpts(r.Key.Name, r.Module, ast.ParserOptions{RegoVersion: v}); err == nil && m != nil {
			return m
		}
	}
	return nil
}

// tokens finds io.jwt.decode in a module that verifies no token.
func (l *linter) tokens(r *policy.Rego, m *ast.Module) {
	var at []int
	verifies := false
	ast.WalkRefs(m, func(ref ast.Ref) bool {
		switch name := ref.String(); {
		case name == "io.jwt.decode" && ref[0].Location != nil:
			at = append(at, ref[0].Location.Row)
		case strings.HasPrefix(name, "io.jwt.verify_"), name == "io.jwt.decode_verify":
			verifies = true
		}
		return false
	})
	if verifies {
		return
	}
	for _, line := range at {
		l.line(r, line, finding{
			CodeRegoUnverified, policy.Warning, "io.jwt.decode reads a token without verifying it: under any other OPA a forged token passes; here the input holds verified tokens only",
			"read the verified claims: input.claims",
		})
	}
}
