package limit

import (
	"strings"
	"testing"

	"github.com/credence-mesh/credence/policy"
)

type lines map[string]int

func (l lines) Line(path string) int { return l[path] }

func TestProblemsSayWhereAndWhat(t *testing.T) {
	t.Parallel()
	const limit = "\n  rate_limit: {unit: minute, requests_per_unit: 1}"
	for _, c := range []struct {
		name, text, code, try string
		line                  int
		warning               bool
	}{
		{name: "misspelt key", text: "domain: d\ndescriptors:\n- key: a\n  rate_limit:\n    unit: minute\n    request_per_unit: 5\n", code: "RATELIMIT_UNKNOWN_KEY", try: "requests_per_unit", line: 6},
		{name: "key of another level", text: "domain: d\ndescriptors:\n- key: a\n  unit: minute" + limit, code: "RATELIMIT_UNKNOWN_KEY", line: 4},
		{name: "misspelt unit", text: "domain: d\ndescriptors:\n- key: a\n  rate_limit: {unit: minutes, requests_per_unit: 1}", code: "RATELIMIT_UNIT", try: "minute", line: 4},
		{name: "unlimited with a unit", text: "domain: d\ndescriptors:\n- key: a\n  rate_limit: {unlimited: true, unit: day}", code: "RATELIMIT_UNIT", line: 4},
		{name: "no domain", text: "descriptors: []\n", code: "RATELIMIT_NO_DOMAIN", line: 1},
		{name: "no key", text: "domain: d\ndescriptors:\n- value: a" + limit, code: "RATELIMIT_NO_KEY", line: 3},
		{name: "reserved key", text: "domain: d\ndescriptors:\n- key: credence.customer" + limit, code: "RATELIMIT_RESERVED_KEY", line: 3},
		{name: "twice the same", text: "domain: d\ndescriptors:\n- key: a" + limit + "\n- key: a" + limit, code: "RATELIMIT_DUPLICATE_DESCRIPTOR", line: 5},
		{name: "key said twice", text: "domain: d\ndomain: e\n", code: "RATELIMIT_DUPLICATE_KEY", line: 2},
		{name: "negative count", text: "domain: d\ndescriptors:\n- key: a\n  rate_limit: {unit: day, requests_per_unit: -1}", code: "RATELIMIT_NUMBER", line: 4},
		{name: "count too large", text: "domain: d\ndescriptors:\n- key: a\n  rate_limit: {unit: day, requests_per_unit: 4294967296}", code: "RATELIMIT_NUMBER", line: 4},
		{name: "share without wildcard", text: "domain: d\ndescriptors:\n- key: a\n  value: b\n  share_threshold: true" + limit, code: "RATELIMIT_SHARE_WITHOUT_WILDCARD", line: 3},
		{name: "replaces itself", text: "domain: d\ndescriptors:\n- key: a\n  rate_limit: {unit: day, requests_per_unit: 1, name: x, replaces: [{name: x}]}", code: "RATELIMIT_REPLACES", line: 4},
		{name: "list for mapping", text: "domain: d\ndescriptors:\n- - a\n", code: "RATELIMIT_TYPE", line: 3},
		{name: "two documents", text: "domain: d\n---\ndomain: e\n", code: "RATELIMIT_SYNTAX", line: 1},
		{name: "no YAML", text: "domain: [d\n", code: "RATELIMIT_SYNTAX"},
		{name: "limit of nothing", text: "domain: d\ndescriptors:\n- key: a\n  rate_limit: {unit: day}", code: "RATELIMIT_ZERO", line: 4, warning: true},
		{name: "no limit at all", text: "domain: d\ndescriptors:\n- key: a\n", code: "RATELIMIT_NO_LIMIT", line: 3, warning: true},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			configs, problems := ConfigsIn(setOf(rateLimit("x", c.text)))
			if len(problems) == 0 || len(configs) != 1 {
				t.Fatalf("got %d configurations and problems %v", len(configs), problems)
			}
			var found *policy.Problem
			for i := range problems {
				if problems[i].Code == c.code {
					found = &problems[i]
				}
			}
			if found == nil {
				t.Fatalf("no %s in %v", c.code, problems)
			}
			if c.line > 0 && found.At.Line != c.line {
				t.Errorf("line %d, want %d: %v", found.At.Line, c.line, found)
			}
			if c.try != "" && found.Try != c.try {
				t.Errorf("try %q, want %q", found.Try, c.try)
			}
			if (found.Severity == policy.Warning) != c.warning || configs[0].Void == c.warning {
				t.Errorf("severity %v, void %v", found.Severity, configs[0].Void)
			}
		})
	}
}

func TestConfigInConfigMap(t *testing.T) {
	t.Parallel()
	m := &policy.ConfigMap{
		Object: policy.Object{
			Key: policy.Key{Kind: policy.KindConfigMap, Namespace: "n", Name: "m"}, At: policy.Origin{File: "f.yaml", Line: 1},
			Fields: lines{"data.config.yaml": 7},
		},
		Data: map[string]string{"config.yaml": "# first\ndomain: d\ndescriptors:\n- kye: a\n", "other": "text\n domain: no\n"},
	}
	configs, problems := ConfigsIn(setOf(m))
	if len(configs) != 1 || configs[0].Source != "ConfigMap n/m config.yaml" || configs[0].At.Line != 9 {
		t.Fatalf("configs %+v", configs)
	}
	if p := problems[0]; p.At.String() != "f.yaml:11" || p.Try != "key" || p.Object != "ConfigMap n/m" {
		t.Errorf("problem %v", p)
	}
}

func TestFileThatBeginsWithAComment(t *testing.T) {
	t.Parallel()
	r := rateLimit("x", "# a\n# b\ndomain: d\nbad: 1\n")
	r.At.Line = 3
	_, problems := ConfigsIn(setOf(r))
	if len(problems) != 1 || problems[0].At.Line != 4 {
		t.Errorf("problems %v", problems)
	}
}

func TestTwoConfigsOfOneDomain(t *testing.T) {
	t.Parallel()
	configs, problems := ConfigsIn(setOf(rateLimit("a", "domain: d\n"), rateLimit("b", "domain: d\n")))
	if len(configs) != 1 || configs[0].Source != "RateLimit a" || len(problems) != 1 || problems[0].Code != "RATELIMIT_DUPLICATE_DOMAIN" || problems[0].At.File != "b.yaml" {
		t.Errorf("configs %v problems %v", configs, problems)
	}
}

func TestSeedsAreAccepted(t *testing.T) {
	t.Parallel()
	text := seed(t, "ratelimit/platform-api.yaml")
	m := &policy.ConfigMap{Object: policy.Object{Key: policy.Key{Kind: policy.KindConfigMap, Namespace: "production", Name: "ratelimit-config"}}, Data: map[string]string{}}
	_, block, _ := strings.Cut(seed(t, "ratelimit/configmap.yaml"), "config.yaml: |\n")
	m.Data["config.yaml"] = strings.ReplaceAll("\n"+block, "\n    ", "\n")
	configs, problems := ConfigsIn(setOf(rateLimit("platform-api", text), m))
	if len(problems) != 0 || len(configs) != 2 || len(configs[0].Descriptors) != 4 || len(configs[1].Descriptors) != 3 {
		t.Fatalf("configs %+v problems %v", configs, problems)
	}
	if d := configs[1].Descriptors[1]; d.Value != "starter" || d.Rate.Requests != 600 || d.Descriptors[1].Rate.Unit != Hour {
		t.Errorf("descriptor %+v", d)
	}
}

func FuzzParse(f *testing.F) {
	f.Add("domain: d\ndescriptors:\n- key: a\n  value: b*\n  share_threshold: true\n  rate_limit: {unit: day, requests_per_unit: 1}\n")
	f.Add("domain: &a d\ndescriptors: &b\n- key: *a\n  descriptors: *b\n")
	f.Add("domain: d\ndescriptors: [{key: a, rate_limit: {unlimited: true, replaces: [{name: x}]}}]")
	f.Fuzz(func(t *testing.T, text string) {
		c, problems := parse(text, "s", "o", func(_, line int) policy.Origin { return policy.Origin{File: "f", Line: line} })
		worst := policy.Info
		for _, p := range problems {
			worst = min(worst, p.Severity)
		}
		if c.Void != (worst == policy.Error) {
			t.Fatalf("void %v with problems %v", c.Void, problems)
		}
		if !c.Void {
			if c.Domain == "" {
				t.Fatal("in force without a domain")
			}
			compile(c)
		}
	})
}
