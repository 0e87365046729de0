package main

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/rogpeppe/go-internal/testscript"
)

func TestMain(m *testing.M) {
	testscript.Main(m, map[string]func(){"credence": func() { os.Exit(run(os.Args[1:])) }})
}

// TestScripts runs testdata/*.txt: the command line as users have it, with exit statuses and output.
func TestScripts(t *testing.T) {
	testscript.Run(t, testscript.Params{
		Dir: "testdata", RequireExplicitExec: true, RequireUniqueNames: true,
		Setup: func(e *testscript.Env) error {
			readme, err := filepath.Abs("../../README.md")
			if err != nil {
				return err
			}
			e.Vars = append(e.Vars, "README="+readme)
			return nil
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"blocks": blocks, "mode": mode, "save": save, "answer": answer,
		},
	})
}

// fence is a block of YAML of a Markdown file.
var fence = regexp.MustCompile("(?ms)^```yaml\n(.*?)^```$")

// blocks MARKDOWN DIR writes each YAML block of a Markdown file to a file of its own.
func blocks(ts *testscript.TestScript, _ bool, args []string) {
	text, err := os.ReadFile(ts.MkAbs(args[0]))
	ts.Check(err)
	found := fence.FindAllStringSubmatch(string(text), -1)
	if len(found) == 0 {
		ts.Fatalf("%s has no block of YAML", args[0])
	}
	ts.Check(os.MkdirAll(ts.MkAbs(args[1]), 0o700))
	for i, b := range found {
		ts.Check(os.WriteFile(filepath.Join(ts.MkAbs(args[1]), fmt.Sprintf("block-%d.yaml", i)), []byte(b[1]), 0o600))
	}
}

// mode FILE OCTAL wants a file's permissions.
func mode(ts *testscript.TestScript, _ bool, args []string) {
	info, err := os.Stat(ts.MkAbs(args[0]))
	ts.Check(err)
	if got := fmt.Sprintf("%04o", info.Mode().Perm()); got != args[1] {
		ts.Fatalf("%s has mode %s, want %s", args[0], got, args[1])
	}
}

// save NAME puts what the last command printed into a variable.
func save(ts *testscript.TestScript, _ bool, args []string) {
	ts.Setenv(args[0], strings.TrimSpace(ts.ReadFile("stdout")))
}
