package kinds

import (
	"regexp/syntax"
	"testing"
)

// TestProgramSize compares with what Envoy 1.40 said of each expression when re2.max_program_size.warn_level was 0. To be a few too high is
// allowed, to be too low is not: Envoy would refuse what is accepted here.
func TestProgramSize(t *testing.T) {
	t.Parallel()
	for expr, envoy := range map[string]int{
		"abc": 7, "/api/v1/orders": 18, "/api/.*": 11, "/api/[a-z]+/x": 13, "^/a$": 4, "(foo|bar|baz)": 13, "[0-9a-f]{8}-[0-9a-f]{4}": 29, `\d+`: 6,
		"[^/]+": 7, "/users/[^/]+/orders/[^/]+": 25, "é+": 7, "(?i)abc": 7, "a{30}": 34, "(ab|cd){10}": 64, ".": 6, "(?s).": 5, `[\w.-]+`: 9,
		"/v[0-9]+/(users|orders|payments)/[0-9]+": 33, "x*y*z*": 9, "[a-z]{1,20}": 43, "(a?){20}": 84, ".{10}": 24, "[^a]": 6, `\S+`: 9,
		"(?:/[^/]+){3}": 16, "/tenants/[a-zA-Z0-9_-]{1,36}/docs": 197, "日本": 10, "[à-ü]": 5, "(?i)é": 6, "a|b|c|d": 5, "abc|abd|abe": 7,
	} {
		parsed, err := syntax.Parse(expr, syntax.Perl)
		if err != nil {
			t.Fatal(err)
		}
		if n := programSize(parsed); n < envoy || n > envoy+8 {
			t.Errorf("%s: %d, and Envoy says %d", expr, n, envoy)
		}
	}
}
