package file

import (
	"errors"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"

	"github.com/credence-mesh/credence/policy"
)

func serviceYAML(i int) string {
	return fmt.Sprintf(`apiVersion: v1
kind: Service
metadata:
  name: svc-%d
  namespace: ns-%d
  labels: {app: svc-%d}
spec:
  selector: {app: svc-%d}
  ports:
  - {name: http, port: 80, targetPort: 8080}
  - {name: grpc, port: 9000}
`, i, i%100, i, i)
}

func policyYAML(i int) string {
	return fmt.Sprintf(`apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata:
  name: policy-%d
  namespace: ns-%d
spec:
  selector:
    matchLabels: {app: svc-%d}
  action: ALLOW
  rules:
  - from:
    - source:
        principals: ["cluster.local/ns/ns-%d/sa/caller", "cluster.local/ns/ns-%d/sa/other"]
    to:
    - operation:
        methods: [GET, POST]
        paths: ["/api/v1/*", "/health"]
    when:
    - key: request.auth.claims[role]
      values: [admin, reader]
`, i, i%100, i, i%100, i%100)
}

// large writes 10,000 services and 1,000 policies, ten to a file.
func large(t testing.TB, dir string) {
	t.Helper()
	for n := range 1100 {
		var b strings.Builder
		for i := n * 10; i < n*10+10; i++ {
			b.WriteString("---\n")
			if n < 1000 {
				b.WriteString(serviceYAML(i))
			} else {
				b.WriteString(policyYAML(i - 10000))
			}
		}
		file := filepath.Join(dir, fmt.Sprintf("part-%d", n%20), fmt.Sprintf("f%d.yaml", n))
		if err := os.MkdirAll(filepath.Dir(file), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(b.String()), 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// One bad object among ten thousand: exactly that object is refused (threat F91).
func TestOneBadObjectAmongMany(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	large(t, dir)
	bad := strings.Replace(policyYAML(0), "paths:", "pahts:", 1) + "---\n" + policyYAML(1)
	write(t, bad, dir, "part-0", "f1000.yaml")
	set, problems, err := Load(policy.DefaultMesh(), dir)
	must(t, err)
	void := 0
	for p := range policy.All[*policy.AuthorizationPolicy](set) {
		if p.Void {
			void++
			if p.Key.Name != "policy-0" {
				t.Errorf("%s is void", p.Key)
			}
		}
	}
	if void != 1 || set.Len() != 10000+1000-8 {
		t.Errorf("%v, %d void", set, void)
	}
	for _, p := range problems {
		if p.Object != "AuthorizationPolicy ns-0/policy-0" {
			t.Errorf("told: %s", p)
		}
	}
	if len(problems) != 2 || problems[1].Try != "did you mean paths?" || problems[1].At.Line != 17 {
		t.Errorf("told %v", problems)
	}
}

// Ten thousand files change while their events may be lost; in the end the set is what the directory says (threat F89).
func TestChurnOfManyFiles(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	write(t, entryYAML("first", "10.0.0.1"), dir, "first.yaml")
	f := follow(t, dir)
	const n = 10000
	for i := range n {
		write(t, entryYAML(fmt.Sprintf("e%d", i), "10.0.0.1"), dir, fmt.Sprintf("d%d", i%50), fmt.Sprintf("e%d.yaml", i))
	}
	for i := 0; i < n; i += 3 {
		write(t, entryYAML(fmt.Sprintf("e%d", i), "10.0.0.2"), dir, fmt.Sprintf("d%d", i%50), fmt.Sprintf("e%d.yaml", i))
	}
	write(t, entryYAML("last", "10.0.0.1"), dir, "last.yaml")
	s := f.until(t, "all files", func(s state) bool {
		return s.set.Len() == n+2 && s.address("e9999") == "10.0.0.2" && s.address("e9996") == "10.0.0.2"
	})
	if len(s.problems) > 0 {
		t.Errorf("told %v", s.problems[0])
	}
}

// stepped is a follower whose steps a test takes itself: nothing is watched.
func stepped(dir string) (*follower, *state) {
	last := &state{}
	f := &follower{
		dir: dir, tree: newTree(policy.DefaultMesh()), reader: reader{seed: maphash.MakeSeed()}, stamps: map[string]stamp{},
		pending: map[string]glance{}, bad: map[string]error{}, listed: map[string]bool{}, ended: func() bool { return false },
		put: func(s *policy.Set, p []policy.Problem) { *last = state{s, p} },
	}
	return f, last
}

func TestRescanFindsWhatWasNotReported(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f, last := stepped(dir)
	write(t, entryYAML("a", "10.0.0.1"), dir, "a.yaml")
	write(t, entryYAML("b", "10.0.0.1"), dir, "b.yaml")
	f.scan(time.Now())
	write(t, entryYAML("a", "10.0.0.2"), dir, "a.yaml") // same size, and within the resolution of the clock
	must(t, os.Remove(filepath.Join(dir, "b.yaml")))
	write(t, entryYAML("c", "10.0.0.1"), dir, "d", "c.yaml")
	if !f.scan(time.Now()) {
		t.Error("nothing to publish")
	}
	f.publish()
	if last.address("a") != "10.0.0.2" || last.address("b") != "" || last.address("c") == "" {
		t.Errorf("%v", last.set)
	}
	if f.scan(time.Now()) {
		t.Error("an unchanged directory is published again")
	}
}

// A link that cannot be followed is not gone; when it can be again, what it says counts.
func TestRescanKeepsWhatCannotBeRead(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	f, last := stepped(dir)
	file := filepath.Join(dir, "a.yaml")
	write(t, entryYAML("a", "10.0.0.1"), file)
	f.scan(time.Now())
	must(t, os.Remove(file))
	must(t, os.Symlink("a.yaml", file))
	f.scan(time.Now())
	f.publish()
	if last.address("a") != "10.0.0.1" || !last.has(CodeUnreadable) {
		t.Errorf("%v, told %v", last.set, last.problems)
	}
	must(t, os.Remove(file))
	f.scan(time.Now())
	f.publish()
	if last.address("a") != "" || len(last.problems) > 0 {
		t.Errorf("%v, told %v", last.set, last.problems)
	}
}

func TestPollsWhereTheKernelDoesNotTell(t *testing.T) {
	t.Parallel()
	f, last := stepped(t.TempDir())
	f.scan(time.Now())
	if f.pace() != rescanEvery {
		t.Errorf("pace %s", f.pace())
	}
	f.watch.broken = errors.New("too many open files")
	f.publish()
	if f.pace() != pollEvery || !last.has(CodeNoWatch) {
		t.Errorf("pace %s, told %v", f.pace(), last.problems)
	}
}

func TestOverflowOfEventsIsAFullRescan(t *testing.T) {
	t.Parallel()
	f, _ := stepped(t.TempDir())
	f.reported(fmt.Errorf("watch: %w", fsnotify.ErrEventOverflow))
	if !f.all {
		t.Error("events were lost, and not everything is looked at")
	}
}

// A deletion in two steps is held back as a whole: what the first step took comes back.
func TestSlowMassDeletion(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	for i := range 40 {
		write(t, entryYAML(fmt.Sprintf("e%d", i), "10.0.0.1"), dir, fmt.Sprintf("e%d.yaml", i))
	}
	f, last := stepped(dir)
	now := time.Now()
	f.scan(now)
	remove := func(from, to int) {
		for i := from; i < to; i++ {
			must(t, os.Remove(filepath.Join(dir, fmt.Sprintf("e%d.yaml", i))))
		}
	}
	remove(0, 15)
	f.scan(now.Add(time.Second))
	if f.tree.set.Len() != 25 {
		t.Fatalf("%v: fifteen of forty is no mass deletion", f.tree.set)
	}
	remove(15, 40)
	f.scan(now.Add(2 * time.Second))
	f.publish()
	if last.set.Len() != 40 || !last.has(CodeMassDelete) {
		t.Errorf("%v, told %v", last.set, last.problems)
	}
}

func BenchmarkLoad(b *testing.B) {
	dir := b.TempDir()
	large(b, dir)
	b.ReportAllocs()
	for b.Loop() {
		set, problems, err := Load(policy.DefaultMesh(), dir)
		if err != nil || set.Len() != 11000 || len(problems) > 0 {
			b.Fatal(set, problems, err)
		}
	}
}

// The cost of one edit in a directory of 11,000 objects.
func BenchmarkOneEdit(b *testing.B) {
	dir := b.TempDir()
	large(b, dir)
	f, _ := stepped(dir)
	f.scan(time.Now())
	file := filepath.Join(dir, "part-0", "f1000.yaml")
	for i := 0; b.Loop(); i++ {
		text := policyYAML(0) + "---\n" + strings.Replace(policyYAML(1), "GET", fmt.Sprintf("M%d", i), 1)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			b.Fatal(err)
		}
		f.mark(file)
		f.flush(time.Now())
		f.publish()
	}
}
