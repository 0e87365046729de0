package opa

import (
	"slices"
	"strings"
	"testing"

	"github.com/credence-mesh/credence/policy"
)

const allowAll = "package envoy.authz\nallow := true\n"

func TestSeedsTogether(t *testing.T) {
	t.Parallel()
	s, problems := newService(t, Options{},
		module1("opa/api_authz_v0.rego", seed(t, "opa/api_authz_v0.rego")), module1("opa/platform_authz.rego", seed(t, "opa/platform_authz.rego")),
		module1("opa/tenant_isolation.rego", seed(t, "opa/tenant_isolation.rego")))
	if got := codesOf(problems); got != "warning REGO_COMPILE" {
		t.Errorf("problems %v", problems)
	}
	if p := problems[0]; p.At.String() != "opa/api_authz_v0.rego:6" || !strings.Contains(p.Says, "valid_jwt_claims") {
		t.Errorf("%v", p)
	}
	req := ask(t, "/api/v1/tenants/A", map[string]string{"authorization": "Bearer " + signed(t, tenantA)}, tenantA)
	if got := code(t, s, req); got != 200 {
		t.Errorf("%d", got)
	}
	req.Attributes.ContextExtensions = map[string]string{DecisionKey: "platform/authz/allow"}
	if got := code(t, s, req); got != 200 {
		t.Errorf("%d", got)
	}
	req.Attributes.ContextExtensions = map[string]string{DecisionKey: "api/authz/allow"}
	if got := check(t, s, req); reason(got) != string(NotInUse) {
		t.Errorf("%v", got)
	}
}

func TestProblems(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, text, codes, at string
		open                  int
	}{
		{"good", allowAll, "", "", 200},
		{"old syntax in force", "package envoy.authz\nallow { true }", "", "", 200},
		{"syntax", "package envoy.authz\n\nallow if {", "error REGO_SYNTAX", "x.rego:3", 403},
		{"no package", "allow := true", "error REGO_SYNTAX, warning REGO_NO_DECISION", "x.rego:1", 403},
		{"empty", "", "error REGO_SYNTAX, warning REGO_NO_DECISION", "x.rego:1", 403},
		{"unsafe", "package envoy.authz\nimport rego.v1\nallow if x == 1", "error REGO_COMPILE", "x.rego:3", 403},
		{"http.send", "package envoy.authz\nimport rego.v1\nallow if http.send({\"method\": \"get\", \"url\": \"http://localhost\"}).status_code == 200", "error REGO_BUILTIN_REFUSED, error REGO_COMPILE", "x.rego:3", 403},
		{"opa.runtime", "package envoy.authz\nimport rego.v1\nallow if opa.runtime().env.HOME", "error REGO_BUILTIN_REFUSED, error REGO_COMPILE", "x.rego:3", 403},
		{"net.lookup", "package envoy.authz\nimport rego.v1\nallow if net.lookup_ip_addr(\"localhost\")", "error REGO_BUILTIN_REFUSED, error REGO_COMPILE", "x.rego:3", 403},
		{"no allow", "package envoy.authz\nother := true", "warning REGO_NO_DECISION", "", 403},
		{"default is another package", "package a.b\nallow := true", "", "", 200},
		{"two candidates", "package a.b\nallow := true\n", "error REGO_AMBIGUOUS_DECISION", "", 403},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			objects := []policy.Resource{module1("x.rego", c.text)}
			if c.name == "two candidates" {
				objects = append(objects, module1("y.rego", "package c.d\nallow := true"))
			}
			s, problems := newService(t, Options{}, objects...)
			if got := codesOf(problems); got != c.codes {
				t.Errorf("problems %v, want %s", problems, c.codes)
			}
			if c.at != "" && problems[0].At.String() != c.at {
				t.Errorf("at %s, want %s", problems[0].At, c.at)
			}
			if got := code(t, s, ask(t, "/", nil, nil)); got != c.open {
				t.Errorf("%d, want %d", got, c.open)
			}
		})
	}
}

// C43: a package with an error keeps its last good version, whole; others go on.
func TestLastGoodPackageStands(t *testing.T) {
	t.Parallel()
	a := module1("a.rego", "package envoy.authz\nimport rego.v1\ndefault allow := false\nallow if input.path == \"/a\"")
	b := module1("b.rego", "package envoy.authz\nimport rego.v1\nallow if input.path == \"/b\"")
	other := func(v string) *policy.Rego { return module1("o.rego", "package other\nallow := "+v) }
	s, problems := newService(t, Options{}, a, b, other("false"))
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	ask2 := func(path, decision string) int {
		req := ask(t, path, nil, nil)
		req.Attributes.ContextExtensions = map[string]string{DecisionKey: decision}
		return code(t, s, req)
	}
	for _, broken := range []string{"package envoy.authz\nallow if {", "package envoy.authz\nimport rego.v1\nallow if nothing(1)", "pack"} {
		problems = s.Update(setOf(a, module1("b.rego", broken), other("true")))
		if len(problems) == 0 || problems[0].Severity != policy.Error {
			t.Fatalf("%q: %v", broken, problems)
		}
		if ask2("/a", "") != 200 || ask2("/b", "") != 200 || ask2("/c", "") != 403 {
			t.Errorf("%q: the last good version does not stand", broken)
		}
		if ask2("/", "other/allow") != 200 {
			t.Errorf("%q: another package was held back", broken)
		}
	}
	if problems = s.Update(setOf(a)); len(problems) != 0 || ask2("/b", "") != 403 || ask2("/a", "") != 200 {
		t.Errorf("a removed module stays: %v", problems)
	}
}

// A decision that needs a package that is not in force is a denial, even where the rules that remain would allow.
func TestDecisionThatNeedsABrokenPackage(t *testing.T) {
	t.Parallel()
	s, problems := newService(t, Options{},
		module1("a.rego", "package envoy.authz\nimport rego.v1\nallow if not data.lists.through.blocked"),
		module1("t.rego", "package lists.through\nimport rego.v1\nblocked if input.path in data.lists.raw.paths"),
		module1("l.rego", "package lists.raw\nimport rego.v1\npaths := missing"))
	if got := codesOf(problems); got != "error REGO_COMPILE" {
		t.Errorf("problems %v", problems)
	}
	if got := check(t, s, ask(t, "/", nil, nil)); got.GetOkResponse() != nil || reason(got) != string(NotInUse) {
		t.Errorf("%v", got)
	}
}

func TestModulesOfConfigMaps(t *testing.T) {
	t.Parallel()
	m := &policy.ConfigMap{
		Object: policy.Object{Key: policy.Key{Kind: policy.KindConfigMap, Namespace: "n", Name: "opa-policies"}, At: policy.Origin{File: "cm.yaml", Line: 2}},
		Data:   map[string]string{"a.rego": allowAll, "a_test.rego": "package envoy.authz\nallow := 5", "readme": "package nothing"},
	}
	s, problems := newService(t, Options{}, m)
	if len(problems) != 0 || !slices.Equal(s.Decisions(), []string{"data.envoy.authz.allow"}) {
		t.Errorf("%v %v", problems, s.Decisions())
	}
	m.Data = map[string]string{"a.rego": "package envoy.authz\nallow { true }"}
	if problems = s.Update(setOf(m)); codesOf(problems) != "warning REGO_V0" {
		t.Errorf("%v", problems)
	}
	m.Data = map[string]string{"a.rego": "package envoy.authz\nallow if {"}
	problems = s.Update(setOf(m))
	if len(problems) == 0 || problems[0].At.String() != "cm.yaml:4" || problems[0].Object != "ConfigMap n/opa-policies" {
		t.Errorf("%v", problems)
	}
}

func TestAllowedBuiltin(t *testing.T) {
	t.Parallel()
	text := "package envoy.authz\nimport rego.v1\nallow if is_object(opa.runtime())"
	s, problems := newService(t, Options{Builtins: []string{"opa.runtime"}}, module1("x.rego", text))
	if len(problems) != 0 || code(t, s, ask(t, "/", nil, nil)) != 200 {
		t.Errorf("%v", problems)
	}
}

func TestNothingIsCompiledAgainWithoutNeed(t *testing.T) {
	t.Parallel()
	other := &policy.ConfigMap{Object: policy.Object{Key: policy.Key{Kind: policy.KindConfigMap, Namespace: "n", Name: "m"}}, Data: map[string]string{"a": "b"}}
	s, problems := newService(t, Options{}, module1("a.rego", "package envoy.authz\nallow { true }"))
	first := s.policies.Load()
	if again := s.Update(setOf(module1("a.rego", "package envoy.authz\nallow { true }"), other)); s.policies.Load() != first || codesOf(again) != codesOf(problems) {
		t.Errorf("compiled again, or problems forgotten: %v", again)
	}
	if again := s.Update(setOf(module1("a.rego", "package envoy.authz\nallow := false"), other)); s.policies.Load() == first || len(again) != 0 || code(t, s, ask(t, "/", nil, nil)) != 403 {
		t.Errorf("a change is not in force: %v", again)
	}
}

// A module that the source refused, and of which nothing is known, could hold a denial. At the start nothing stands in its place, so all is
// denied; later everything is in force as it was before.
func TestModuleOfWhichNothingIsKnown(t *testing.T) {
	t.Parallel()
	good, lost := module1("a.rego", allowAll), module1("b.rego", "")
	lost.Void = true
	s, _ := newService(t, Options{}, good, lost)
	if got := check(t, s, ask(t, "/", nil, nil)); reason(got) != string(NotInUse) {
		t.Errorf("at the start: %v", got)
	}
	s.Update(setOf(module1("a.rego", allowAll+"x := 1"), lost))
	if got := check(t, s, ask(t, "/", nil, nil)); reason(got) != string(NotInUse) {
		t.Errorf("after another edit: %v", got)
	}
	s.Update(setOf(good))
	if got := code(t, s, ask(t, "/", nil, nil)); got != 200 {
		t.Errorf("after it is gone: %d", got)
	}
	s.Update(setOf(good, lost))
	if got := code(t, s, ask(t, "/", nil, nil)); got != 200 {
		t.Errorf("new and void: %d", got)
	}
	s, _ = newService(t, Options{Decision: "other/allow"}, module1("o.rego", "package other\nallow := true"), voided(module1("c.rego", "package envoy.authz\nallow if {")))
	if got := code(t, s, ask(t, "/", nil, nil)); got != 200 {
		t.Errorf("void in another package: %d", got)
	}
}

func voided(r *policy.Rego) *policy.Rego {
	r.Void = true
	return r
}
