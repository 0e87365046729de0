package lint_test

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/lint"
	"github.com/credence-mesh/credence/policy/source/file"
)

var update = flag.Bool("update", false, "rewrite the expected findings")

// findings reads a directory and lints it: every problem as "file:line severity CODE field".
func findings(t *testing.T, dir string) string {
	t.Helper()
	set, problems, err := file.Load(policy.DefaultMesh(), dir)
	if err != nil {
		t.Fatal(err)
	}
	var out strings.Builder
	for _, p := range append(problems, lint.Set(set)...) {
		name, err := filepath.Rel(dir, p.At.File)
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%s:%d %s %s %s", filepath.ToSlash(name), p.At.Line, p.Severity, p.Code, p.Field)
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
		return
	}
	want, err := os.ReadFile(wantFile)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range missing(string(want), got) {
		t.Errorf("missing: %s", line)
	}
	for _, line := range missing(got, string(want)) {
		t.Errorf("unexpected: %s", line)
	}
}

// missing are the lines of a that b does not have, as often.
func missing(a, b string) []string {
	count := map[string]int{}
	for line := range strings.Lines(b) {
		count[line]++
	}
	var out []string
	for line := range strings.Lines(a) {
		if count[line]--; count[line] < 0 {
			out = append(out, line)
		}
	}
	return out
}

// The whole list for the articles' own files: codes and lines of all ten traps, and not one finding more.
func TestSeedsTellTheirTenTraps(t *testing.T) {
	t.Parallel()
	dir := filepath.Join("..", "..", "..", "shared", "seeds")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("the seeds are not beside this checkout")
	}
	compare(t, findings(t, dir), filepath.Join("testdata", "seeds.want"))
}

// The same traps and the other findings in files of our own; clean.yaml beside them has none.
func TestTraps(t *testing.T) {
	t.Parallel()
	got := findings(t, filepath.Join("testdata", "traps"))
	if strings.Contains(got, "clean.yaml") {
		t.Error("a finding in clean.yaml")
	}
	compare(t, got, filepath.Join("testdata", "traps.want"))
}

func TestEveryFindingSaysWhatToTry(t *testing.T) {
	t.Parallel()
	set, _, err := file.Load(policy.DefaultMesh(), filepath.Join("testdata", "traps"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range lint.Set(set) {
		if p.Try == "" || p.Says == "" || p.Object == "" || p.At.Line == 0 {
			t.Errorf("incomplete: %s", p)
		}
	}
}

func TestTryNamesThePrincipalThatMatches(t *testing.T) {
	t.Parallel()
	set, _, err := file.Load(policy.DefaultMesh(), filepath.Join("testdata", "traps", "policies"))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range lint.Set(set) {
		if p.Code == lint.CodePrincipalNeverMatches && strings.HasSuffix(p.Field, "requestPrincipals[0]") {
			if want := "https://id.shop.test//*"; p.Try != want {
				t.Errorf("try %q, want %q", p.Try, want)
			}
			return
		}
	}
	t.Error("no finding")
}
