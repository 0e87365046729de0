package state

import (
	"bytes"
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"
)

func open(t *testing.T, path string, opts ...Option) *Dir {
	t.Helper()
	d, err := Open(path, opts...)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestOpen(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		prepare func(path string) error
		want    string // in the error; empty for none
	}{
		{"not there", func(string) error { return nil }, ""},
		{"closed", func(p string) error { return os.Mkdir(p, 0o700) }, ""},
		{"open but empty is closed", func(p string) error { return errors.Join(os.Mkdir(p, 0o755), os.Chmod(p, 0o755)) }, ""},
		{"open and used", func(p string) error {
			return errors.Join(os.Mkdir(p, 0o755), os.WriteFile(filepath.Join(p, "mesh-root.pem"), nil, 0o600), os.Chmod(p, 0o755))
		}, "chmod 700"},
		{"open to the group", func(p string) error {
			return errors.Join(os.Mkdir(p, 0o755), os.WriteFile(filepath.Join(p, "mesh-root.pem"), nil, 0o600), os.Chmod(p, 0o710))
		}, "mode 0710"},
		{"a file", func(p string) error { return os.WriteFile(p, nil, 0o600) }, "not a directory"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			path := filepath.Join(t.TempDir(), "state")
			if err := c.prepare(path); err != nil {
				t.Fatal(err)
			}
			_, err := Open(path)
			if c.want != "" {
				if err == nil || !strings.Contains(err.Error(), c.want) {
					t.Fatalf("got %v, want %q", err, c.want)
				}
				return
			}
			if err != nil {
				t.Fatal(err)
			}
			if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o700 {
				t.Errorf("mode %v, %v", info.Mode(), err)
			}
		})
	}
}

func TestReadRefuses(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name    string
		prepare func(path string) error
		want    string
	}{
		{"readable by all", func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o600), os.Chmod(p, 0o644)) }, "chmod 600"},
		{"readable by the group", func(p string) error { return errors.Join(os.WriteFile(p, nil, 0o600), os.Chmod(p, 0o640)) }, "chmod 600"},
		{"a symlink", func(p string) error { return os.Symlink("/dev/null", p) }, "too many levels"},
		{"a folder", func(p string) error { return os.Mkdir(p, 0o700) }, "regular"},
		{"a pipe", func(p string) error { return syscall.Mkfifo(p, 0o600) }, "regular"},
		{"too large", func(p string) error { return os.WriteFile(p, make([]byte, MaxFile+1), 0o600) }, "larger"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			d := open(t, filepath.Join(t.TempDir(), "state"))
			if err := c.prepare(filepath.Join(d.Path(), "f")); err != nil {
				t.Fatal(err)
			}
			if _, err := d.Read("f"); err == nil || !strings.Contains(err.Error(), c.want) {
				t.Errorf("got %v, want %q", err, c.want)
			}
		})
	}
}

// A crash that lets deferred functions run is milder than kill -9, which package ca tests with real processes.
func TestWriteIsOldOrNew(t *testing.T) {
	t.Parallel()
	before, after := []byte(strings.Repeat("old", 100)), []byte(strings.Repeat("new!", 100))
	crash := errors.New("crash")
	for n := 0; ; n++ {
		path := filepath.Join(t.TempDir(), "state")
		if err := open(t, path).Write("f", before); err != nil {
			t.Fatal(err)
		}
		steps := 0
		d := open(t, path, Trace(func(string) {
			if steps++; steps == n+2 { // the first is mkdir
				panic(crash)
			}
		}))
		crashed := func() (crashed bool) {
			defer func() { crashed = recover() != nil }()
			if err := d.Write("f", after); err != nil {
				t.Error(err)
			}
			return false
		}()
		got, err := open(t, path).Read("f")
		if err != nil || (!bytes.Equal(got, before) && !bytes.Equal(got, after)) {
			t.Fatalf("crash at step %d: %q, %v", n, got, err)
		}
		if !crashed {
			if !bytes.Equal(got, after) || n < 5 {
				t.Errorf("after %d steps: %q", n, got)
			}
			return
		}
	}
}

func TestRenameHasOneWinner(t *testing.T) {
	t.Parallel()
	d := open(t, filepath.Join(t.TempDir(), "state"))
	if err := d.Write("a", nil); err != nil {
		t.Fatal(err)
	}
	var won, lost int
	var mu sync.Mutex
	var all sync.WaitGroup
	for range 16 {
		all.Go(func() {
			err := d.Rename("a", "b")
			mu.Lock()
			defer mu.Unlock()
			switch {
			case err == nil:
				won++
			case errors.Is(err, fs.ErrNotExist):
				lost++
			default:
				t.Error(err)
			}
		})
	}
	all.Wait()
	if won != 1 || lost != 15 {
		t.Errorf("%d won, %d lost", won, lost)
	}
}

func TestLock(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	unlock, err := open(t, path).Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 30*time.Millisecond)
	defer cancel()
	if _, err := open(t, path).Lock(ctx); !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("two have the lock: %v", err)
	}
	unlock()
	again, err := open(t, path).Lock(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	again()
}

func TestListAndSweep(t *testing.T) {
	t.Parallel()
	d := open(t, filepath.Join(t.TempDir(), "state"))
	if err := errors.Join(d.Folder("tokens"), d.Write("tokens/a", nil)); err != nil {
		t.Fatal(err)
	}
	torn := filepath.Join(d.Path(), "tokens", tempPrefix+"x")
	if err := os.WriteFile(torn, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	names, err := d.List("tokens")
	if err != nil || len(names) != 1 || names[0] != "a" {
		t.Errorf("got %v, %v", names, err)
	}
	if err := d.Sweep("tokens"); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(torn); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("got %v", err)
	}
}
