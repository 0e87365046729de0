// Package e2e tries the product as its users do: the credence binary, real Envoys, real TLS, real tokens, real requests.
package e2e

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/internal/mesh"
)

// binary is the credence that all tests run, built once.
var binary string

func TestMain(m *testing.M) {
	flag.Parse()
	dir, err := os.MkdirTemp("", "credence-e2e-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binary = filepath.Join(dir, "credence")
	args := []string{"build", "-o", binary}
	if raceEnabled {
		args = append(args, "-race")
	}
	cmd := exec.Command("go", append(args, "../cmd/credence")...)
	cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
	code := 1
	if err := cmd.Run(); err == nil {
		code = m.Run()
	}
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// world is a mesh that a test runs.
type world struct {
	*mesh.Mesh
	t      *testing.T
	ctx    context.Context
	Dir    string
	Config string
	procs  map[string]*mesh.Process // the proxies, by workload
}

// start writes files (name to text) into a directory and serves it. settings is the text of credence.yaml.
func start(t *testing.T, settings string, files map[string]string) *world {
	t.Helper()
	w := &world{t: t, Dir: t.TempDir(), procs: map[string]*mesh.Process{}}
	ctx, cancel := context.WithTimeout(context.Background(), 3*time.Minute)
	t.Cleanup(cancel)
	w.ctx = ctx
	w.Config = filepath.Join(w.Dir, "mesh")
	for name, text := range files {
		w.write(name, text)
	}
	o := mesh.Options{Binary: binary, Dir: w.Dir, Config: w.Config, Envoy: envoytest.Path(t), Log: newTestLog(t)}
	if settings != "" {
		o.Settings = filepath.Join(w.Dir, "credence.yaml")
		if err := os.WriteFile(o.Settings, []byte(settings), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	m, err := mesh.Start(ctx, o)
	if m != nil {
		t.Cleanup(m.Stop)
	}
	if err != nil {
		t.Fatal(err)
	}
	w.Mesh = m
	return w
}

// write puts a file into the mesh directory as an editor would: whole, by a rename.
func (w *world) write(name, text string) {
	w.t.Helper()
	path := filepath.Join(w.Config, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		w.t.Fatal(err)
	}
	if err := os.WriteFile(path+"~", []byte(text), 0o600); err != nil {
		w.t.Fatal(err)
	}
	if err := os.Rename(path+"~", path); err != nil {
		w.t.Fatal(err)
	}
}

// remove takes a file out of the mesh directory.
func (w *world) remove(name string) {
	w.t.Helper()
	if err := os.Remove(filepath.Join(w.Config, name)); err != nil {
		w.t.Fatal(err)
	}
}

// proxy runs an Envoy for a workload.
func (w *world) proxy(workload string, extra ...string) *mesh.Process {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, time.Minute)
	defer cancel()
	p, err := w.StartProxy(ctx, workload, append([]string{"--envoy-log-level", "warning"}, extra...)...)
	w.procs[workload] = p
	if err != nil {
		w.t.Fatal(err)
	}
	return p
}

// until waits for a fact.
func (w *world) until(what string, ok func() (bool, error)) {
	w.t.Helper()
	ctx, cancel := context.WithTimeout(w.ctx, 30*time.Second)
	defer cancel()
	if err := mesh.Until(ctx, what, ok); err != nil {
		w.t.Fatal(err)
	}
}

// testLog shows what the processes say, where the test fails or runs verbosely; what comes after the test has no one to hear it.
type testLog struct {
	mu sync.Mutex
	t  *testing.T
}

func newTestLog(t *testing.T) *testLog {
	l := &testLog{t: t}
	t.Cleanup(func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.t = nil
	})
	return l
}

func (l *testLog) Write(b []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.t != nil {
		l.t.Log(strings.TrimSuffix(string(b), "\n"))
	}
	return len(b), nil
}
