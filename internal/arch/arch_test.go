package arch

import (
	"bytes"
	"encoding/json"
	"errors"
	"io"
	"os/exec"
	"strings"
	"testing"
)

func TestImports(t *testing.T) {
	t.Parallel()
	packages := listPackages(t)
	if len(packages) < 10 {
		t.Fatalf("go list found %d packages: the test looks at the wrong place", len(packages))
	}
	for _, w := range check(packages) {
		t.Error(w)
	}
}

func listPackages(t *testing.T) []pkg {
	t.Helper()
	var complaints bytes.Buffer
	cmd := exec.CommandContext(t.Context(), "go", "list", "-e", "-json=ImportPath,Imports,TestImports,XTestImports", module+"/...")
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("go list: %v\n%s", err, complaints.String())
	}
	var all []pkg
	for d := json.NewDecoder(bytes.NewReader(out)); ; {
		var p pkg
		err := d.Decode(&p)
		if errors.Is(err, io.EOF) {
			return all
		}
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, p)
	}
}

// The check itself must fire: a table that forgives everything would look as green as a clean tree.
func TestCheckFires(t *testing.T) {
	t.Parallel()
	const envoy = "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	for name, c := range map[string]struct {
		p    pkg
		want string // a part of the one complaint; empty: none
	}{
		"a right arrow":               {pkg{ImportPath: module + "/xds/compile", Imports: []string{module + "/xds/ir", "fmt"}}, ""},
		"a wrong arrow":               {pkg{ImportPath: module + "/xds/ir", Imports: []string{module + "/xds/compile"}}, "xds/ir imports " + module + "/xds/compile: it may import"},
		"a leaf that imports":         {pkg{ImportPath: module + "/policy", Imports: []string{module + "/identity"}}, "nothing of ours"},
		"a package missing":           {pkg{ImportPath: module + "/xds/magic"}, "xds/magic is not in the table"},
		"Envoy in our own words":      {pkg{ImportPath: module + "/xds/ir", Imports: []string{envoy}}, "our own words"},
		"Envoy where it is made":      {pkg{ImportPath: module + "/xds/translate", Imports: []string{envoy}}, ""},
		"fsnotify elsewhere":          {pkg{ImportPath: module + "/proxy", Imports: []string{"github.com/fsnotify/fsnotify"}}, "one way to watch files"},
		"I/O in a pure room":          {pkg{ImportPath: module + "/xds/translate", Imports: []string{"os"}}, "pure"},
		"somebody imports cmd":        {pkg{ImportPath: module + "/proxy", Imports: []string{module + "/cmd/credence"}}, "nobody imports it"},
		"a test imports e2e":          {pkg{ImportPath: module + "/proxy", XTestImports: []string{module + "/e2e"}}, "a test of proxy"},
		"a test imports itself":       {pkg{ImportPath: module + "/e2e", XTestImports: []string{module + "/e2e"}}, ""},
		"test helpers in the product": {pkg{ImportPath: module + "/cmd/credence", Imports: []string{module + "/internal/envoytest"}}, "only tests may"},
		"cmd imports all":             {pkg{ImportPath: module + "/cmd/credence", Imports: []string{module + "/snapshot"}}, ""},
		"a whole tree allowed":        {pkg{ImportPath: module + "/snapshot", Imports: []string{module + "/policy", module + "/policy/limit"}}, ""},
		"a name that only begins so":  {pkg{ImportPath: module + "/snapshot", Imports: []string{module + "/policyx"}}, "it may import"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got := check([]pkg{c.p})
			switch {
			case c.want == "" && len(got) != 0:
				t.Errorf("it complains: %v", got)
			case c.want != "" && (len(got) != 1 || !strings.Contains(got[0], c.want)):
				t.Errorf("got %q, want one with %q", got, c.want)
			}
		})
	}
}

func TestTableNamesEachRoomOnce(t *testing.T) {
	t.Parallel()
	seen := map[string]bool{}
	for _, r := range rooms {
		if seen[r.path] {
			t.Errorf("%s stands twice in the table", r.path)
		}
		seen[r.path] = true
	}
}
