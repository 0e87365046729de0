package validate_test

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"

	"github.com/credence-mesh/credence/policy/lint"
)

// TestEveryCodeIsDocumented holds three lists to each other: the codes that any package tells, the sections of docs/problems.md, and
// lint.Codes, by which an annotation that ignores a code is read.
func TestEveryCodeIsDocumented(t *testing.T) {
	t.Parallel()
	told := codesOfTree(t)
	if len(told) < 100 {
		t.Fatalf("only %d codes were found", len(told))
	}
	sections := sectionsOf(t)
	for _, code := range slices.Sorted(maps.Keys(told)) {
		if sections[code] == 0 {
			t.Errorf("%s, which %s tells, has no section in docs/problems.md", code, told[code])
		}
	}
	for code, n := range sections {
		if n > 1 {
			t.Errorf("%s has %d sections in docs/problems.md", code, n)
		}
		if told[code] == "" {
			t.Errorf("docs/problems.md explains %s, which nothing tells", code)
		}
	}
	want := slices.Sorted(maps.Keys(told))
	if *update {
		writeCodes(t, want)
		return
	}
	if got := lint.Codes(); !slices.Equal(got, want) {
		t.Errorf("lint.Codes lacks %v and has %v too many: run this test with -update", without(want, got), without(got, want))
	}
}

// writeCodes writes the list of package lint anew.
func writeCodes(t *testing.T, codes []string) {
	t.Helper()
	const head = `package lint

// Codes is every code that a Problem of this version can have, sorted. A test of internal/validate holds it to the sources and to
// docs/problems.md.
func Codes() []string {
	return []string{
`
	out, line := head, "\t\t"
	for _, code := range codes {
		if item := strconv.Quote(code) + ", "; len(line)+len(item) > 132 {
			out, line = out+strings.TrimRight(line, " ")+"\n", "\t\t"+item
		} else {
			line += item
		}
	}
	out += strings.TrimRight(line, " ") + "\n\t}\n}\n"
	if err := os.WriteFile(filepath.Join("..", "..", "policy", "lint", "codes.go"), []byte(out), 0o600); err != nil {
		t.Fatal(err)
	}
}

func without(a, b []string) []string {
	return slices.DeleteFunc(slices.Clone(a), func(s string) bool { return slices.Contains(b, s) })
}

// TestEverySectionTellsWhatToDo: who looks a code up wants to know how bad it is and what to do.
func TestEverySectionTellsWhatToDo(t *testing.T) {
	t.Parallel()
	for _, section := range strings.Split(problemsPage(t), "\n## ")[1:] {
		code, body, _ := strings.Cut(section, "\n")
		if severity := regexp.MustCompile(`(?m)^\*(Error|Warning|Info)`); !severity.MatchString(body) {
			t.Errorf("%s: no severity", code)
		}
		if !strings.Contains(body, "\nTry: ") {
			t.Errorf("%s: nothing to try", code)
		}
	}
}

func problemsPage(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile(filepath.Join("..", "..", "docs", "problems.md"))
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

func sectionsOf(t *testing.T) map[string]int {
	t.Helper()
	sections := map[string]int{}
	for line := range strings.Lines(problemsPage(t)) {
		if code, ok := strings.CutPrefix(strings.TrimSpace(line), "## "); ok {
			sections[code]++
		}
	}
	return sections
}

// codesOfTree finds every code that the product tells, with a file that does.
func codesOfTree(t *testing.T) map[string]string {
	t.Helper()
	found := map[string]string{}
	for _, dir := range []string{"policy", "xds", "snapshot", "identity", "console", "proxy", "cmd", "internal/settings", "internal/validate", "internal/offline"} {
		root := filepath.Join("..", "..", filepath.FromSlash(dir))
		if _, err := os.Stat(root); err != nil {
			continue
		}
		err := filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
			if err != nil || d.IsDir() || filepath.Ext(path) != ".go" || strings.HasSuffix(path, "_test.go") {
				return err
			}
			f, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
			if err != nil {
				return err
			}
			ast.Inspect(f, func(n ast.Node) bool {
				for _, code := range codesAt(n) {
					found[code] = path
				}
				return true
			})
			return nil
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	return found
}

// codesAt is the codes that a node of source says: in a constant, in a Problem, in an assignment to its Code, or in a call that makes one.
func codesAt(n ast.Node) []string {
	switch n := n.(type) {
	case *ast.ValueSpec:
		if name := strings.ToLower(n.Names[0].Name); strings.HasPrefix(name, "code") {
			return codesIn(n.Values)
		}
	case *ast.KeyValueExpr:
		if k, ok := n.Key.(*ast.Ident); ok && k.Name == "Code" {
			return codesIn([]ast.Expr{n.Value})
		}
	case *ast.AssignStmt:
		for _, left := range n.Lhs {
			if s, ok := left.(*ast.SelectorExpr); ok && s.Sel.Name == "Code" {
				return codesIn(n.Rhs)
			}
		}
	case *ast.CallExpr:
		if s, ok := n.Fun.(*ast.SelectorExpr); ok && slices.Contains([]string{"problem", "fail", "add", "warn", "info", "refuse", "report", "tell"}, s.Sel.Name) {
			return codesIn(n.Args)
		}
	}
	return nil
}

var shape = regexp.MustCompile(`^[A-Z]+(_[A-Z0-9]+)+$`)

func codesIn(exprs []ast.Expr) []string {
	var out []string
	for _, e := range exprs {
		if lit, ok := e.(*ast.BasicLit); ok && lit.Kind == token.STRING {
			if s, err := strconv.Unquote(lit.Value); err == nil && shape.MatchString(s) {
				out = append(out, s)
			}
		}
	}
	return out
}
