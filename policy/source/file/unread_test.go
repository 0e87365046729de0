package file

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/policy/peer"
	"github.com/credence-mesh/credence/policy/strict"
)

const guardYAML = `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: callers, namespace: production}
spec: {selector: {matchLabels: {app: pay}}, rules: [{from: [{source: {principals: [cluster.local/ns/production/sa/order]}}]}]}
`

const workloadsYAML = `apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: pay, namespace: production}
spec: {address: 10.0.0.1, labels: {app: pay}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: shop, namespace: other}
spec: {address: 10.0.0.2, labels: {app: shop}}
`

// guard is how a workload is guarded: "closed", "guarded" by a policy, or "open".
func (s state) guard(t *testing.T, namespace, name string) string {
	t.Helper()
	w, ok := s.set.Workload(namespace, name)
	if !ok {
		t.Fatalf("no workload %s/%s", namespace, name)
	}
	rules, _ := authz.For(s.set, w, 8080, authz.HTTP)
	mode, _ := peer.For(s.set, w, 8080)
	switch {
	case len(rules.Broken) > 0 && mode == peer.Strict:
		return "closed"
	case rules.Open:
		return "open"
	default:
		return "guarded"
	}
}

// What cannot be read at the start may be any policy: what it could cover is closed until it is mended (threats A31, C43, F89).
func TestUnreadableFromTheStartCloses(t *testing.T) {
	t.Parallel()
	text := func(s string) func(*testing.T, string) {
		return func(t *testing.T, path string) { t.Helper(); write(t, s, path) }
	}
	block := strings.Replace(guardYAML, "metadata: {name: callers, namespace: production}", "metadata:\n  name: callers\n  namespace: production", 1)
	cut := func(at string) string { return guardYAML[:strings.Index(guardYAML, at)] }
	tests := []struct {
		name, file string
		make       func(t *testing.T, path string)
		pay, shop  string
	}{
		{name: "good", make: text(guardYAML), pay: "guarded", shop: "open"},
		{name: "garbage after it", make: text(guardYAML + "  bad: [unclosed\n{{{\n"), pay: "closed", shop: "open"},
		{name: "tab", make: text(strings.Replace(guardYAML, "kind:", "\tkind:", 1)), pay: "closed", shop: "open"},
		{name: "block style", make: text(block + "  bad: [unclosed\n"), pay: "closed", shop: "open"},
		{name: "cut after the namespace", make: text(cut("}\nspec") + "}\nspec: {"), pay: "closed", shop: "open"},
		{name: "cut in the namespace", make: text(cut("uction")), pay: "closed", shop: "closed"},
		{name: "cut in the name", make: text(cut("llers")), pay: "closed", shop: "closed"},
		{name: "two namespaces", make: text(guardYAML + "metadata: {namespace: more}\n"), pay: "closed", shop: "closed"},
		{name: "separator lost after something harmless", make: text(strings.SplitAfter(workloadsYAML, "---\n")[1] + guardYAML), pay: "closed", shop: "closed"},
		{name: "harmless document cut off", make: text("apiVersion: v1\nkind: Service\nmetadata: {name: a"), pay: "closed", shop: "closed"},
		{name: "harmless document", make: text("apiVersion: v1\nkind: Service\nmetadata: {name: a, namespace: production}\nspec: [\n---\n" + guardYAML), pay: "guarded", shop: "open"},
		{name: "kind lost", make: text(strings.Replace(guardYAML, "kind: AuthorizationPolicy\n", "", 1)), pay: "closed", shop: "open"},
		{name: "no mapping", make: text("AuthorizationPolicy\n"), pay: "closed", shop: "closed"},
		{name: "JSON cut off", file: "a.json", make: text(`{"kind": "AuthorizationPolicy", "metadata": {"name": "a", "namespace": "production"}, "spec": {`), pay: "closed", shop: "open"},
		{name: "other text", make: text("resources:\n- a.yaml\n"), pay: "open", shop: "open"},
		{name: "UTF-16", make: text("\xff\xfea\x00p\x00i\x00"), pay: "closed", shop: "closed"},
		{name: "too large", make: text(guardYAML + strings.Repeat("#\n", strict.MaxFileBytes/2)), pay: "closed", shop: "closed"},
		{name: "link to itself", make: func(t *testing.T, path string) { t.Helper(); must(t, os.Symlink(path, path)) }, pay: "closed", shop: "closed"},
		{name: "link that leads nowhere", make: func(t *testing.T, path string) { t.Helper(); must(t, os.Symlink(path+".gone", path)) }, pay: "closed", shop: "closed"},
		{name: "directory of a link that leads nowhere", file: "policies", make: func(t *testing.T, path string) { t.Helper(); must(t, os.Symlink(path+".gone", path)) }, pay: "closed", shop: "closed"},
		{name: "other link that leads nowhere", file: "README.md", make: func(t *testing.T, path string) { t.Helper(); must(t, os.Symlink(path+".gone", path)) }, pay: "open", shop: "open"},
		{name: "pipe", make: func(t *testing.T, path string) { t.Helper(); must(t, syscall.Mkfifo(path, 0o600)) }, pay: "closed", shop: "closed"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, workloadsYAML, dir, "workloads.yaml")
			path := filepath.Join(dir, "a.yaml")
			if tt.file != "" {
				path = filepath.Join(dir, tt.file)
			}
			tt.make(t, path)
			f := follow(t, dir)
			set, problems, err := Load(policy.DefaultMesh(), dir)
			must(t, err)
			for who, s := range map[string]state{"followed": f.last, "loaded": {set, problems}} {
				if pay, shop := s.guard(t, "production", "pay"), s.guard(t, "other", "shop"); pay != tt.pay || shop != tt.shop {
					t.Errorf("%s: pay is %s, shop is %s, want %s and %s; told %v", who, pay, shop, tt.pay, tt.shop, s.problems)
				}
				if closed := tt.pay == "closed"; s.has(CodeClosed) != closed {
					t.Errorf("%s: told %v", who, s.problems)
				}
			}
			must(t, os.RemoveAll(path))
			write(t, guardYAML, dir, "b.yaml")
			f.until(t, "the mended policy alone", func(s state) bool {
				return s.guard(t, "production", "pay") == "guarded" && s.guard(t, "other", "shop") == "open" && len(s.problems) == 0
			})
		})
	}
}

// While it runs, the last good version of whatever becomes unreadable stands, and nothing else is closed.
func TestBecomingUnreadableChangesNothing(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		make func(t *testing.T, dir string)
	}{
		{name: "garbage", make: func(t *testing.T, dir string) { t.Helper(); write(t, "{{{", dir, "sub", "a.yaml") }},
		{name: "pipe", make: func(t *testing.T, dir string) {
			t.Helper()
			must(t, os.Remove(filepath.Join(dir, "sub", "a.yaml")))
			must(t, syscall.Mkfifo(filepath.Join(dir, "sub", "a.yaml"), 0o600))
		}},
		{name: "link that leads nowhere", make: func(t *testing.T, dir string) {
			t.Helper()
			must(t, os.Remove(filepath.Join(dir, "sub", "a.yaml")))
			must(t, os.Symlink("gone", filepath.Join(dir, "sub", "a.yaml")))
		}},
		{name: "directory became a link that leads nowhere", make: func(t *testing.T, dir string) {
			t.Helper()
			must(t, os.RemoveAll(filepath.Join(dir, "sub")))
			must(t, os.Symlink("gone", filepath.Join(dir, "sub")))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, workloadsYAML, dir, "workloads.yaml")
			write(t, guardYAML, dir, "sub", "a.yaml")
			f, last := stepped(dir)
			f.scan(time.Now())
			tt.make(t, dir)
			for range emptyLooks + 2 {
				f.note(filepath.Join(dir, "sub", "a.yaml"))
				f.note(filepath.Join(dir, "sub"))
				f.flush(time.Now())
				f.scan(time.Now())
				f.publish()
				if pay, shop := last.guard(t, "production", "pay"), last.guard(t, "other", "shop"); pay != "guarded" || shop != "open" {
					t.Fatalf("pay is %s, shop is %s; told %v", pay, shop, last.problems)
				}
			}
			if len(last.problems) == 0 || last.has(CodeClosed) {
				t.Errorf("told %v", last.problems)
			}
			must(t, os.RemoveAll(filepath.Join(dir, "sub")))
			write(t, guardYAML, dir, "sub", "a.yaml")
			for range 2 {
				f.scan(time.Now())
			}
			f.publish()
			if last.guard(t, "production", "pay") != "guarded" || len(last.problems) > 0 {
				t.Errorf("mended: %s, told %v", last.guard(t, "production", "pay"), last.problems)
			}
		})
	}
}

// Many files that are mended at once are no mass deletion.
func TestMendingManyFilesIsNoDeletion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f, last := stepped(dir)
	for i := range 2 * massObjects {
		write(t, "{{{", dir, fmt.Sprintf("f%d.yaml", i))
	}
	f.scan(time.Now())
	for i := range 2 * massObjects {
		write(t, "# nothing\n", dir, fmt.Sprintf("f%d.yaml", i))
	}
	for range emptyLooks + 2 {
		f.scan(time.Now())
	}
	f.publish()
	if last.set.Len() != 0 || len(last.problems) > 0 {
		t.Errorf("%v, told %v", last.set, last.problems)
	}
}

// Each directory is listed once, so that links cannot multiply them.
func TestLinksDoNotMultiplyDirectories(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 40 {
		write(t, entryYAML(fmt.Sprintf("e%d", i), "10.0.0.1"), dir, fmt.Sprintf("d%d", i), "a.yaml")
		for _, name := range []string{"l", "m"} {
			must(t, os.Symlink(fmt.Sprintf("../d%d", (i+1)%40), filepath.Join(dir, fmt.Sprintf("d%d", i), name)))
		}
	}
	f, last := stepped(dir)
	f.scan(time.Now())
	f.publish()
	if last.set.Len() != 40 || len(last.problems) > 0 {
		t.Errorf("%v, told %v", last.set, last.problems)
	}
	// The path by which a directory was listed goes away; another leads to it.
	must(t, os.Remove(filepath.Join(dir, "d0", "l")))
	f.note(filepath.Join(dir, "d0", "l"))
	f.flush(time.Now())
	f.publish()
	if last.set.Len() != 40 || len(last.problems) > 0 {
		t.Errorf("without the link: %v, told %v", last.set, last.problems)
	}
}

func TestListingIsBounded(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 5 {
		write(t, "", dir, fmt.Sprintf("%d.yaml", i))
	}
	l := newListing(dir)
	l.most = 4
	if l.walk(dir); len(l.files) != 4 || l.bad[dir] == nil {
		t.Errorf("%d files, %v", len(l.files), l.bad)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	called := false
	if err := New(dir, policy.DefaultMesh()).Run(ctx, func(*policy.Set, []policy.Problem) { called = true }); err != nil || called {
		t.Errorf("error %v, published %t", err, called)
	}
}
