package file

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/credence-mesh/credence/policy"
)

// Each way in which editors and tools save a file takes effect.
func TestSaving(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		save func(t *testing.T, dir string)
	}{
		{name: "in place", save: func(t *testing.T, dir string) {
			write(t, entryYAML("a", "10.0.0.2"), dir, "a.yaml")
		}},
		{name: "atomic rename", save: func(t *testing.T, dir string) {
			write(t, entryYAML("a", "10.0.0.2"), dir, ".a.yaml.tmp")
			must(t, os.Rename(filepath.Join(dir, ".a.yaml.tmp"), filepath.Join(dir, "a.yaml")))
		}},
		{name: "vim", save: func(t *testing.T, dir string) {
			write(t, "", dir, "4913")
			must(t, os.Remove(filepath.Join(dir, "4913")))
			write(t, "b0VIM", dir, ".a.yaml.swp")
			must(t, os.Rename(filepath.Join(dir, "a.yaml"), filepath.Join(dir, "a.yaml~")))
			write(t, entryYAML("a", "10.0.0.2"), dir, "a.yaml")
			must(t, os.Remove(filepath.Join(dir, "a.yaml~")))
			must(t, os.Remove(filepath.Join(dir, ".a.yaml.swp")))
		}},
		{name: "emacs", save: func(t *testing.T, dir string) {
			must(t, os.Symlink("user@host.1", filepath.Join(dir, ".#a.yaml")))
			write(t, entryYAML("a", "10.0.0.9"), dir, "#a.yaml#")
			must(t, os.Rename(filepath.Join(dir, "a.yaml"), filepath.Join(dir, "a.yaml~")))
			write(t, entryYAML("a", "10.0.0.2"), dir, "a.yaml")
			must(t, os.Remove(filepath.Join(dir, ".#a.yaml")))
		}},
		{name: "removed and written again", save: func(t *testing.T, dir string) {
			must(t, os.Remove(filepath.Join(dir, "a.yaml")))
			write(t, entryYAML("a", "10.0.0.2"), dir, "a.yaml")
		}},
		{name: "renamed and edited", save: func(t *testing.T, dir string) {
			must(t, os.Rename(filepath.Join(dir, "a.yaml"), filepath.Join(dir, "b.yaml")))
			write(t, entryYAML("a", "10.0.0.2"), dir, "b.yaml")
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, entryYAML("a", "10.0.0.1"), dir, "a.yaml")
			f := follow(t, dir)
			tt.save(t, dir)
			f.untilAddress(t, "a", "10.0.0.2")
			f.until(t, "no problem", func(s state) bool { return len(s.problems) == 0 })
		})
	}
}

func TestNestedFoldersThatAppearLater(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f := follow(t, dir)
	write(t, entryYAML("deep", "10.0.0.1"), dir, "a", "b", "c", "deep.yaml")
	f.untilAddress(t, "deep", "10.0.0.1")
	write(t, entryYAML("deep", "10.0.0.2"), dir, "a", "b", "c", "deep.yaml")
	f.untilAddress(t, "deep", "10.0.0.2")
	must(t, os.Rename(filepath.Join(dir, "a", "b"), filepath.Join(dir, "a", "z")))
	write(t, entryYAML("deep", "10.0.0.3"), dir, "a", "z", "c", "deep.yaml")
	f.untilAddress(t, "deep", "10.0.0.3")
}

// A volume of Kubernetes: the links beside ..data stay as they are, and where ..data leads is swapped.
func TestKubernetesSymlinkSwap(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	version := func(n int) {
		data := fmt.Sprintf("..2026_%d", n)
		write(t, entryYAML("a", fmt.Sprintf("10.0.0.%d", n)), dir, data, "a.yaml")
		write(t, entryYAML("b", fmt.Sprintf("10.0.1.%d", n)), dir, data, "sub", "b.yaml")
		must(t, os.Symlink(data, filepath.Join(dir, "..data_tmp")))
		must(t, os.Rename(filepath.Join(dir, "..data_tmp"), filepath.Join(dir, "..data")))
		_ = os.RemoveAll(filepath.Join(dir, fmt.Sprintf("..2026_%d", n-1)))
	}
	version(1)
	must(t, os.Symlink("..data/a.yaml", filepath.Join(dir, "a.yaml")))
	must(t, os.Symlink("..data/sub", filepath.Join(dir, "sub")))
	f := follow(t, dir)
	if f.last.set.Len() != 2 || len(f.last.problems) > 0 {
		t.Fatalf("%v, problems %v: ..data was read beside the links", f.last.set, f.last.problems)
	}
	for n := 2; n <= 4; n++ {
		version(n)
		f.untilAddress(t, "a", fmt.Sprintf("10.0.0.%d", n))
		f.untilAddress(t, "b", fmt.Sprintf("10.0.1.%d", n))
	}
	for _, s := range f.seen {
		if s.set.Len() != 2 {
			t.Errorf("on the way: %v", s.set)
		}
	}
}

// A file that is written in pieces is taken up when it is whole; nothing of it is lost or refused in between.
func TestHalfWrittenFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	text := entryYAML("a", "10.0.0.1") + "---\n" + entryYAML("b", "10.0.0.1")
	file := filepath.Join(dir, "a.yaml")
	write(t, text, file)
	f, last := stepped(dir)
	f.scan(time.Now())
	text = strings.ReplaceAll(text, "10.0.0.1", "10.0.0.2")
	for _, cut := range []int{0, len(text) / 3, len(text) / 2, len(text) - 3} {
		write(t, text[:cut], file)
		f.mark(file)
		f.flush(time.Now())
		f.publish()
		if last.address("a") != "10.0.0.1" || last.address("b") != "10.0.0.1" || len(last.problems) > 0 {
			t.Errorf("after %d bytes: %v, problems %v", cut, last.set, last.problems)
		}
	}
	write(t, text, file)
	f.mark(file)
	f.flush(time.Now())
	f.publish()
	if last.address("b") != "10.0.0.2" || len(last.problems) > 0 || len(f.pending) > 0 {
		t.Errorf("%v, problems %v", last.set, last.problems)
	}
}

// A file that became empty is most often about to be written; one that stays so is taken at its word.
func TestEmptiedFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "a.yaml")
	write(t, entryYAML("a", "10.0.0.1"), file)
	f, last := stepped(dir)
	f.scan(time.Now())
	write(t, "", file)
	for range emptyLooks {
		f.mark(file)
		f.flush(time.Now())
		f.publish()
		if last.address("a") == "" {
			t.Fatal("taken away too early")
		}
	}
	f.mark(file)
	f.flush(time.Now())
	f.publish()
	if last.address("a") != "" || len(f.pending) > 0 {
		t.Errorf("%v is still there", last.set)
	}
}

func TestBadEditKeepsTheLastGoodVersion(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text string }{
		{name: "unknown field", text: entryYAML("a", "10.0.0.2, adress: x")},
		{name: "no YAML", text: entryYAML("a", `"10.0.0.2`)},
		{name: "no YAML and no name", text: "{ [ \n"},
		{name: "no object", text: "- a\n- b\n"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, entryYAML("a", "10.0.0.1")+"---\n"+entryYAML("b", "10.0.0.1"), dir, "a.yaml")
			f := follow(t, dir)
			write(t, tt.text+"---\n"+entryYAML("b", "10.0.0.2"), dir, "a.yaml")
			s := f.untilAddress(t, "b", "10.0.0.2")
			if s.address("a") != "10.0.0.1" || !s.has(CodeLastGood) {
				t.Errorf("a at %q, problems %v", s.address("a"), s.problems)
			}
			write(t, entryYAML("a", "10.0.0.3")+"---\n"+entryYAML("b", "10.0.0.3"), dir, "a.yaml")
			s = f.untilAddress(t, "a", "10.0.0.3")
			if len(s.problems) > 0 {
				t.Errorf("still told: %v", s.problems)
			}
		})
	}
}

// What guards something is void where no good version is known, so that it can be closed; nothing else is put into the set.
func TestRefusedFromTheStart(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, entryYAML("a", "not/an/address"), dir, "a.yaml")
	write(t, `apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: guard, namespace: shop}
spec: {selector: {matchLabels: {app: cart}}, action: DENY}
`, dir, "guard.yaml")
	s := follow(t, dir).last
	p, ok := policy.Get[*policy.AuthorizationPolicy](s.set, "shop", "guard")
	if !ok || !p.Void || p.Spec.GetSelector().GetMatchLabels()["app"] != "cart" || !s.has(CodeClosed) {
		t.Errorf("guard is %v, problems %v", p, s.problems)
	}
	if s.set.Len() != 1 {
		t.Errorf("%v, want the guard alone", s.set)
	}
}

func TestUnreadableFileKeepsItsObjects(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	file := filepath.Join(dir, "a.yaml")
	write(t, entryYAML("a", "10.0.0.1"), file)
	f := follow(t, dir)
	must(t, os.Symlink("a.yaml", filepath.Join(dir, ".loop"))) // a link to itself can be read by nobody, root included
	must(t, os.Rename(filepath.Join(dir, ".loop"), file))
	s := f.until(t, "the problem", func(s state) bool { return s.has(CodeUnreadable) })
	if s.address("a") != "10.0.0.1" {
		t.Error("the object is gone")
	}
	must(t, os.Remove(file))
	write(t, entryYAML("a", "10.0.0.2"), file)
	if s := f.untilAddress(t, "a", "10.0.0.2"); len(s.problems) > 0 {
		t.Errorf("still told: %v", s.problems)
	}
}

func TestDirectoryVanishesAndComesBack(t *testing.T) {
	t.Parallel()
	dir := filepath.Join(t.TempDir(), "config")
	write(t, entryYAML("a", "10.0.0.1"), dir, "a.yaml")
	f := follow(t, dir)
	must(t, os.Rename(dir, dir+".away"))
	s := f.until(t, "the problem", func(s state) bool { return s.has(CodeDirectoryMissing) })
	if s.address("a") != "10.0.0.1" {
		t.Error("the object is gone")
	}
	write(t, entryYAML("a", "10.0.0.2"), dir, "a.yaml")
	f.untilAddress(t, "a", "10.0.0.2")
	f.until(t, "no problem", func(s state) bool { return len(s.problems) == 0 })
	write(t, entryYAML("a", "10.0.0.3"), dir, "a.yaml")
	f.untilAddress(t, "a", "10.0.0.3")
}

func TestRemovingOneFile(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, entryYAML("a", "10.0.0.1")+"---\n"+entryYAML("b", "10.0.0.1"), dir, "a.yaml")
	write(t, entryYAML("c", "10.0.0.1"), dir, "c.yaml")
	f := follow(t, dir)
	must(t, os.Remove(filepath.Join(dir, "c.yaml")))
	f.untilAddress(t, "c", "")
	write(t, entryYAML("a", "10.0.0.1"), dir, "a.yaml")
	f.untilAddress(t, "b", "")
	if s := f.last; s.set.Len() != 1 || len(s.problems) > 0 {
		t.Errorf("%v, problems %v", s.set, s.problems)
	}
}

func TestDuplicates(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, entryYAML("a", "10.0.0.2"), dir, "m.yaml")
	f := follow(t, dir)
	write(t, entryYAML("a", "10.0.0.1"), dir, "b.yaml")
	s := f.until(t, "the problem", func(s state) bool { return s.has(CodeDuplicate) })
	if s.address("a") != "10.0.0.2" {
		t.Error("the version in force gave way to a later one")
	}
	want := policy.Problem{
		At: policy.Origin{File: filepath.Join(dir, "b.yaml"), Line: 1}, Object: "WorkloadEntry default/a", Code: CodeDuplicate,
		Says: "also written at " + filepath.Join(dir, "m.yaml") + ":1, which stays in force", Try: "remove one of the two",
	}
	if len(s.problems) != 1 || s.problems[0] != want {
		t.Errorf("told %v", s.problems)
	}
	must(t, os.Remove(filepath.Join(dir, "m.yaml")))
	if s := f.untilAddress(t, "a", "10.0.0.1"); len(s.problems) > 0 {
		t.Errorf("still told: %v", s.problems)
	}
	set, _, err := Load(policy.DefaultMesh(), dir)
	must(t, err)
	if (state{set: set}).address("a") != "10.0.0.1" {
		t.Error("read once, the first file by name is in force")
	}
}

func TestGatewayGivesWayToWorkloadEntryOfItsName(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, `apiVersion: gateway.networking.k8s.io/v1
kind: Gateway
metadata: {name: a}
spec: {gatewayClassName: credence, listeners: [{name: http, port: 80, protocol: HTTP}]}
`, dir, "a.yaml")
	f := follow(t, dir)
	write(t, entryYAML("a", "10.0.0.1"), dir, "b.yaml")
	s := f.untilAddress(t, "a", "10.0.0.1")
	if _, ok := policy.Get[*policy.Gateway](s.set, "default", "a"); ok || !s.has(CodeWorkloadClash) {
		t.Errorf("problems %v", s.problems)
	}
	must(t, os.Remove(filepath.Join(dir, "b.yaml")))
	s = f.until(t, "the gateway", func(s state) bool { _, ok := policy.Get[*policy.Gateway](s.set, "default", "a"); return ok })
	if len(s.problems) > 0 {
		t.Errorf("still told: %v", s.problems)
	}
}

func TestMassDeletionWaitsForConfirmation(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name string
		then func(t *testing.T, dir string)
		want int
	}{
		{name: "confirmed", then: func(t *testing.T, dir string) { write(t, "", dir, ConfirmFile) }, want: 1},
		{name: "put back", then: func(t *testing.T, dir string) {
			must(t, os.Rename(filepath.Join(dir, ".away"), filepath.Join(dir, "many")))
		}, want: 31},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, entryYAML("stays", "10.0.0.1"), dir, "stays.yaml")
			for i := range 30 {
				write(t, entryYAML(fmt.Sprintf("e%d", i), "10.0.0.1"), dir, "many", fmt.Sprintf("e%d.yaml", i))
			}
			f := follow(t, dir)
			must(t, os.Rename(filepath.Join(dir, "many"), filepath.Join(dir, ".away")))
			s := f.until(t, "the problem", func(s state) bool { return s.has(CodeMassDelete) })
			if s.set.Len() != 31 {
				t.Errorf("%v: objects are gone without confirmation", s.set)
			}
			write(t, entryYAML("stays", "10.0.0.2"), dir, "stays.yaml") // meanwhile, edits take effect
			f.untilAddress(t, "stays", "10.0.0.2")
			tt.then(t, dir)
			s = f.until(t, "no problem", func(s state) bool { return len(s.problems) == 0 })
			if s.set.Len() != tt.want {
				t.Errorf("%v, want %d objects", s.set, tt.want)
			}
		})
	}
}

func TestMovingADirectoryIsNoDeletion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 30 {
		write(t, entryYAML(fmt.Sprintf("e%d", i), "10.0.0.1"), dir, "old", fmt.Sprintf("e%d.yaml", i))
	}
	f := follow(t, dir)
	must(t, os.Rename(filepath.Join(dir, "old"), filepath.Join(dir, "new")))
	s := f.until(t, "the move", func(s state) bool {
		w, _ := policy.Get[*policy.WorkloadEntry](s.set, "default", "e7")
		return w.At.File == filepath.Join(dir, "new", "e7.yaml")
	})
	if s.set.Len() != 30 || len(s.problems) > 0 {
		t.Errorf("%v, problems %v", s.set, s.problems)
	}
}

func TestRunRefusesWhatIsNoDirectory(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, "", dir, "file")
	for _, path := range []string{filepath.Join(dir, "file"), filepath.Join(dir, "absent")} {
		if New(path, policy.DefaultMesh()).Run(context.Background(), nil) == nil {
			t.Errorf("%s was accepted", path)
		}
	}
}

// The current directory: what the kernel reports begins with "./", what is listed does not.
func TestCurrentDirectory(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	write(t, entryYAML("a", "10.0.0.1"), dir, "a.yaml")
	f := follow(t, ".")
	write(t, entryYAML("a", "10.0.0.2"), dir, "a.yaml")
	s := f.untilAddress(t, "a", "10.0.0.2")
	if len(s.problems) > 0 || s.set.Len() != 1 {
		t.Errorf("%v, told %v", s.set, s.problems)
	}
	must(t, os.Remove("a.yaml"))
	f.untilAddress(t, "a", "")
}

// A file with an error takes nothing away: an object that it does not say any more stays until the file is right, or another says it.
func TestObjectThatVanishesFromABrokenFile(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text string }{
		{name: "kind lost", text: strings.Replace(entryYAML("a", "10.0.0.1"), "kind: WorkloadEntry\n", "", 1) + "---\n" + entryYAML("b", "10.0.0.1")},
		{name: "separator lost", text: entryYAML("b", "10.0.0.1") + entryYAML("a", "10.0.0.1")},
		{name: "name lost", text: strings.Replace(entryYAML("a", "10.0.0.1"), "name: a", "name: A_", 1) + "---\n" + entryYAML("b", "10.0.0.1")},
		{name: "removed beside a mistake", text: entryYAML("b", "10.0.0.1, weight: x")},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			dir := t.TempDir()
			write(t, entryYAML("a", "10.0.0.1")+"---\n"+entryYAML("b", "10.0.0.1"), dir, "f.yaml")
			f := follow(t, dir)
			write(t, tt.text, dir, "f.yaml")
			s := f.until(t, "the problem", func(s state) bool { return s.has(CodeLastGood) })
			if s.address("a") == "" || s.address("b") == "" {
				t.Errorf("%v, told %v", s.set, s.problems)
			}
			write(t, entryYAML("a", "10.0.0.3"), dir, "g.yaml")
			f.untilAddress(t, "a", "10.0.0.3")
			write(t, entryYAML("b", "10.0.0.3"), dir, "f.yaml")
			if s := f.untilAddress(t, "b", "10.0.0.3"); len(s.problems) > 0 || s.set.Len() != 2 {
				t.Errorf("%v, told %v", s.set, s.problems)
			}
		})
	}
}
