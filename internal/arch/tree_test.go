package arch

import (
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/credence-mesh/credence/internal/envoy"
)

// longFiles lists the files that are longer than maxLines, with the length that they may have. It may only shrink.
var longFiles = map[string]int{}

// A file that one cannot hold in one's head hides a second concern.
const maxLines = 400

// file is one file of the tree, by its path from the root.
type file struct {
	name string
	text []byte
}

func (f file) generated() bool {
	return bytes.Contains(f.text[:min(len(f.text), 2000)], []byte("// Code generated "))
}

// tree is every text file that is, or would be, committed.
func tree(t *testing.T) []file {
	t.Helper()
	root := os.DirFS("../..")
	var all []file
	err := fs.WalkDir(root, ".", func(name string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if slices.Contains([]string{".git", ".tools", ".demo", "bin", "dist", "state"}, name) {
				return fs.SkipDir
			}
			return nil
		}
		if !d.Type().IsRegular() || slices.Contains([]string{".test", ".out", ".prof"}, path.Ext(name)) {
			return nil
		}
		text, err := fs.ReadFile(root, name)
		if err == nil && !bytes.ContainsRune(text[:min(len(text), 8000)], 0) {
			all = append(all, file{name, text})
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	if len(all) < 50 {
		t.Fatalf("%d files: the test looks at the wrong place", len(all))
	}
	return all
}

func TestFilesAreShort(t *testing.T) {
	t.Parallel()
	for _, f := range tree(t) {
		if path.Ext(f.name) != ".go" || strings.HasSuffix(f.name, "_test.go") || f.generated() {
			continue
		}
		lines, allowed := bytes.Count(f.text, []byte("\n")), longFiles[f.name]
		switch {
		case allowed == 0 && lines > maxLines:
			t.Errorf("%s has %d lines, more than %d: which second concern is in it?", f.name, lines, maxLines)
		case allowed != 0 && lines > allowed:
			t.Errorf("%s has grown from %d to %d lines; it may only shrink", f.name, allowed, lines)
		case allowed != 0 && lines <= maxLines:
			t.Errorf("%s is short now: take it off longFiles", f.name)
		}
	}
}

// A package that is named after no concern collects all of them.
func TestPackagesAreNouns(t *testing.T) {
	t.Parallel()
	clause := regexp.MustCompile(`(?m)^package (\w+)`)
	for _, f := range tree(t) {
		if path.Ext(f.name) != ".go" {
			continue
		}
		m := clause.FindSubmatch(f.text)
		if m == nil {
			continue
		}
		switch name := strings.TrimSuffix(string(m[1]), "_test"); name {
		case "util", "utils", "common", "helper", "helpers", "types", "manager", "misc", "shared":
			t.Errorf("%s: a package named %s says nothing about what it is for", f.name, name)
		}
	}
}

// A test that sleeps is slow when it passes and flaky when the machine is busy. In virtual time sleeping costs nothing and is exact.
func TestTestsSleepInVirtualTimeOnly(t *testing.T) {
	t.Parallel()
	sleep := []byte("time." + "Sleep(")
	for _, f := range tree(t) {
		if strings.HasSuffix(f.name, "_test.go") && bytes.Contains(f.text, sleep) && !bytes.Contains(f.text, []byte("synctest.Test(")) {
			t.Errorf("%s sleeps: wait for a fact (internal/envoytest.Eventually), or use testing/synctest", f.name)
		}
	}
}

// ADRs are found by date and title; numbers collide between branches.
func TestDecisionsHaveTheirForm(t *testing.T) {
	t.Parallel()
	form := regexp.MustCompile(`^docs/adr/\d{4}-\d{2}-\d{2}-[a-z0-9]+(-[a-z0-9]+)*\.md$`)
	for _, f := range tree(t) {
		if path.Dir(f.name) != "docs/adr" || f.name == "docs/adr/README.md" {
			continue
		}
		if !form.MatchString(f.name) {
			t.Errorf("%s is not docs/adr/<yyyy-mm-dd>-<slug>.md", f.name)
		}
		for _, part := range []string{"Status", "Context", "Decision"} {
			if !regexp.MustCompile(`(?mi)^(#+ |\**)` + part).Match(f.text) {
				t.Errorf("%s has no %s", f.name, part)
			}
		}
	}
}

// What names one machine or one registry does not work on another. The names are put together here, so that this file has none of them.
func TestNothingNamesAMachine(t *testing.T) {
	t.Parallel()
	banned := []string{
		"/" + "work/", "/" + "home/", "/" + "Users/", "/" + "tmp/bash", "pypi" + ".org", "pythonhosted" + ".org", "proxy.golang" + ".org",
		"sum.golang" + ".org", "registry.npmjs" + ".org", "index.docker" + ".io",
	}
	for _, f := range tree(t) {
		for n, line := range strings.Split(string(f.text), "\n") {
			for _, b := range banned {
				if strings.Contains(line, b) {
					t.Errorf("%s:%d names %s", f.name, n+1, b)
				}
			}
		}
	}
}

// The versions that are supported stand in Go and in the script that runs before Go can.
func TestFetchScriptAgreesOnEnvoyVersions(t *testing.T) {
	t.Parallel()
	script, err := os.ReadFile("../../hack/fetch-envoy")
	if err != nil {
		t.Fatal(err)
	}
	if want := fmt.Sprintf("SUPPORTED = range(%d, %d)", envoy.OldestMinor, envoy.NewestMinor+1); !bytes.Contains(script, []byte(want)) {
		t.Errorf("hack/fetch-envoy does not say %s", want)
	}
}
