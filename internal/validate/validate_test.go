package validate_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/credence-mesh/credence/internal/validate"
	"github.com/credence-mesh/credence/policy"
)

var update = flag.Bool("update", false, "rewrite the expected findings")

// TestOneFindingACause compares everything that is told of a directory with a list that was read by a person: no cause is in it twice. The
// linter alone cannot see it, since its twins come from building the configuration.
func TestOneFindingACause(t *testing.T) {
	t.Parallel()
	seeds := filepath.Join("..", "..", "..", "shared", "seeds")
	for _, tt := range []struct {
		name  string
		paths []string
	}{
		{"traps", []string{filepath.Join("testdata", "traps")}},
		{"seeds", []string{seeds, filepath.Join("..", "..", "e2e", "testdata", "seeds-workloads.yaml")}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if _, err := os.Stat(tt.paths[0]); err != nil {
				t.Skip("the seeds are not beside this checkout")
			}
			problems, err := validate.Paths(policy.DefaultMesh(), "", tt.paths...)
			if err != nil {
				t.Fatal(err)
			}
			compare(t, written(problems), filepath.Join("testdata", tt.name+".want"))
		})
	}
}

func written(problems []policy.Problem) string {
	var out strings.Builder
	for _, p := range problems {
		line := fmt.Sprintf("%s:%d %s %s %s", filepath.Base(p.At.File), p.At.Line, p.Severity, p.Code, p.Field)
		out.WriteString(strings.TrimSpace(line) + "\n")
	}
	return out.String()
}

func compare(t *testing.T, got, wantFile string) {
	t.Helper()
	if *update {
		if err := os.WriteFile(wantFile, []byte(got), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(wantFile)
	if err != nil {
		t.Fatal(err)
	}
	if got != string(want) {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
}

func TestMerged(t *testing.T) {
	t.Parallel()
	at := func(line int, object, field, code string, s policy.Severity, says string) policy.Problem {
		return policy.Problem{At: policy.Origin{File: "f", Line: line}, Object: object, Field: field, Code: code, Severity: s, Says: says}
	}
	tests := []struct {
		name                string
		built, linted, want []policy.Problem
	}{
		{
			name:   "the deeper field wins and the worse severity stays",
			built:  []policy.Problem{at(3, "o", "spec.a", "C", policy.Error, "built")},
			linted: []policy.Problem{at(4, "o", "spec.a.b", "C", policy.Warning, "linted")},
			want:   []policy.Problem{at(4, "o", "spec.a.b", "C", policy.Error, "linted")},
		},
		{
			name:   "what is built is more exact at the same place",
			built:  []policy.Problem{at(3, "o", "spec.a", "C", policy.Error, "built")},
			linted: []policy.Problem{at(3, "o", "spec.a", "C", policy.Warning, "linted")},
			want:   []policy.Problem{at(3, "o", "spec.a", "C", policy.Error, "built")},
		},
		{
			name:   "a field that only begins alike is another",
			built:  []policy.Problem{at(3, "o", "spec.a", "C", policy.Error, "built")},
			linted: []policy.Problem{at(4, "o", "spec.ab", "C", policy.Warning, "linted")},
			want:   []policy.Problem{at(3, "o", "spec.a", "C", policy.Error, "built"), at(4, "o", "spec.ab", "C", policy.Warning, "linted")},
		},
		{
			name:   "another object, another code",
			built:  []policy.Problem{at(3, "o", "spec.a", "C", policy.Error, "built")},
			linted: []policy.Problem{at(3, "p", "spec.a", "C", policy.Warning, "1"), at(3, "o", "spec.a", "D", policy.Warning, "2")},
			want: []policy.Problem{
				at(3, "o", "spec.a", "C", policy.Error, "built"), at(3, "p", "spec.a", "C", policy.Warning, "1"), at(3, "o", "spec.a", "D", policy.Warning, "2"),
			},
		},
		{
			name:   "two lines of one field are two causes",
			linted: []policy.Problem{at(3, "o", "data", "C", policy.Warning, "1"), at(4, "o", "data", "C", policy.Warning, "2")},
			want:   []policy.Problem{at(3, "o", "data", "C", policy.Warning, "1"), at(4, "o", "data", "C", policy.Warning, "2")},
		},
		{
			name: "a listener without certificates follows from each that is wrong",
			built: []policy.Problem{
				at(3, "o", "l.refs", "GATEWAY_NO_CERTIFICATE", policy.Error, "none"), at(3, "o", "l.refs[0]", "SECRET_NOT_FOUND", policy.Error, "x"),
			},
			want: []policy.Problem{at(3, "o", "l.refs[0]", "SECRET_NOT_FOUND", policy.Error, "x")},
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			if got := validate.Merged(tt.built, tt.linted); fmt.Sprint(got) != fmt.Sprint(tt.want) {
				t.Errorf("got %v\nwant %v", got, tt.want)
			}
		})
	}
}
