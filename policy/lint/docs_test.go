package lint_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Every code that the sources and the linter can tell has its section in docs/problems.md, and no code has two.
func TestEveryCodeIsDocumented(t *testing.T) {
	t.Parallel()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "problems.md"))
	if err != nil {
		t.Fatal(err)
	}
	sections := map[string]int{}
	for line := range strings.Lines(string(text)) {
		if code, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok {
			sections[code]++
		}
	}
	for code, n := range sections {
		if n > 1 {
			t.Errorf("%s has %d sections", code, n)
		}
	}
	codes := 0
	for _, dir := range []string{".", "../strict", "../kinds", "../source/file"} {
		for _, code := range codesOf(t, dir) {
			codes++
			if sections[code] == 0 {
				t.Errorf("%s is not documented", code)
			}
		}
	}
	if codes < 60 {
		t.Errorf("only %d codes were found", codes)
	}
}

// codesOf are the string constants whose names begin with Code.
func codesOf(t *testing.T, dir string) []string {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.go"))
	if err != nil {
		t.Fatal(err)
	}
	var out []string
	for _, file := range files {
		f, err := parser.ParseFile(token.NewFileSet(), file, nil, 0)
		if err != nil {
			t.Fatal(err)
		}
		ast.Inspect(f, func(n ast.Node) bool {
			spec, ok := n.(*ast.ValueSpec)
			if !ok || !strings.HasPrefix(spec.Names[0].Name, "Code") || len(spec.Values) == 0 {
				return true
			}
			if lit, ok := spec.Values[0].(*ast.BasicLit); ok {
				if code, err := strconv.Unquote(lit.Value); err == nil {
					out = append(out, code)
				}
			}
			return true
		})
	}
	return out
}
