package file

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/credence-mesh/credence/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// state is what a source has put.
type state struct {
	set      *policy.Set
	problems []policy.Problem
}

func (s state) codes() []string {
	var out []string
	for _, p := range s.problems {
		out = append(out, p.Code)
	}
	return out
}

func (s state) has(code string) bool { return slices.Contains(s.codes(), code) }

// address of a WorkloadEntry in namespace default; empty: there is none.
func (s state) address(name string) string {
	if w, ok := policy.Get[*policy.WorkloadEntry](s.set, "default", name); ok {
		return w.Spec.GetAddress()
	}
	return ""
}

// followed is a source that runs in a test.
type followed struct {
	dir  string
	puts chan state
	last state
	seen []state // every state since the start
}

func follow(t *testing.T, dir string) *followed {
	t.Helper()
	f := &followed{dir: dir, puts: make(chan state, 4096)}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() {
		done <- New(dir, policy.DefaultMesh()).Run(ctx, func(s *policy.Set, p []policy.Problem) { f.puts <- state{s, p} })
	}()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	f.until(t, "the first set", func(state) bool { return true })
	return f
}

// until waits for a state of which a fact holds.
func (f *followed) until(t *testing.T, fact string, holds func(state) bool) state {
	t.Helper()
	if f.last.set != nil && holds(f.last) {
		return f.last
	}
	timeout := time.NewTimer(60 * time.Second)
	defer timeout.Stop()
	for {
		select {
		case f.last = <-f.puts:
			f.seen = append(f.seen, f.last)
			if holds(f.last) {
				return f.last
			}
		case <-timeout.C:
			t.Fatalf("waited for %s; have %v and problems %v", fact, f.last.set, f.last.problems)
		}
	}
}

func (f *followed) untilAddress(t *testing.T, name, address string) state {
	t.Helper()
	return f.until(t, name+" at "+address, func(s state) bool { return s.address(name) == address })
}

func entryYAML(name, address string) string {
	return "apiVersion: networking.istio.io/v1\nkind: WorkloadEntry\nmetadata: {name: " + name + "}\nspec: {address: " + address + "}\n"
}

func write(t *testing.T, text string, path ...string) {
	t.Helper()
	file := filepath.Join(path...)
	must(t, os.MkdirAll(filepath.Dir(file), 0o700))
	must(t, os.WriteFile(file, []byte(text), 0o600))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}
