package ca

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/state"
)

// Killed before any change of the disk, an authority opens again; a root that others may have seen never changes.
func TestKillAtEveryStepOfTheBeginning(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		path := filepath.Join(t.TempDir(), "state")
		_, killed := process(t, path, n)
		before, _ := os.ReadFile(filepath.Join(path, rootFile))
		a := openIn(t, mustState(t, path))
		after, err := os.ReadFile(filepath.Join(path, rootFile))
		if err != nil || (before != nil && string(before) != string(after)) {
			t.Fatalf("killed at step %d: the root was replaced or lost: %v", n, err)
		}
		if _, err := a.Mint(t.Context(), Request{ID: orders}); err != nil {
			t.Fatalf("killed at step %d: %v", n, err)
		}
		if left, _ := filepath.Glob(filepath.Join(path, ".new-*")); len(left) > 0 {
			t.Errorf("killed at step %d: %v is left", n, left)
		}
		if !killed {
			if n < 15 {
				t.Errorf("only %d steps were seen", n)
			}
			return
		}
	}
}

func TestKillAtEveryStepOfARenewal(t *testing.T) {
	t.Parallel()
	for n := 1; ; n++ {
		dir := newState(t)
		a := openIn(t, dir)
		old := a.intermediate.Load().cert
		age(t, a)
		_, killed := process(t, dir.Path(), n)
		b := openIn(t, mustState(t, dir.Path()))
		if now := b.intermediate.Load().cert; due(now) || now.Equal(old) {
			t.Fatalf("killed at step %d: the intermediate was not renewed", n)
		}
		if !killed {
			return
		}
	}
}

// age replaces the intermediate by one that is due.
func age(t *testing.T, a *Authority) {
	t.Helper()
	tmpl := authority("mesh intermediate", IntermediateTTL/4)
	tmpl.NotBefore = time.Now().Add(-IntermediateTTL * 3 / 4)
	tmpl.MaxPathLenZero = true
	s, err := newSigner(tmpl, a.root)
	if err != nil {
		t.Fatal(err)
	}
	if err := store(a.dir, intermediateFile, s); err != nil {
		t.Fatal(err)
	}
}

func mustState(t *testing.T, path string) *state.Dir {
	t.Helper()
	d, err := state.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestManyProcessesMakeOneAuthority(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "state")
	roots := make([]string, 6)
	var all sync.WaitGroup
	for i := range roots {
		all.Go(func() { roots[i], _ = process(t, path, 0) })
	}
	all.Wait()
	want := fmt.Sprintf("%x", sha256.Sum256(openIn(t, mustState(t, path)).Root().Raw))
	for _, r := range roots {
		if r != want {
			t.Errorf("a process has the root %q, not %q", r, want)
		}
	}
}

func TestOpenRefuses(t *testing.T) {
	t.Parallel()
	other, err := newRoot(domain)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		spoil func(dir *state.Dir) error
		td    identity.TrustDomain
		want  string
	}{
		{"another trust domain", func(*state.Dir) error { return nil }, spiffeid.RequireTrustDomainFromString("example.org"), "belongs to the trust domain cluster.local"},
		{"a lost root", func(d *state.Dir) error { return d.Remove(rootFile) }, domain, "restore it from a backup"},
		{"another root", func(d *state.Dir) error { return store(d, rootFile, other) }, domain, "was not signed by"},
		{"a root that all can read", func(d *state.Dir) error { return os.Chmod(filepath.Join(d.Path(), rootFile), 0o644) }, domain, "chmod 600"},
		{"an intermediate that the group can read", func(d *state.Dir) error { return os.Chmod(filepath.Join(d.Path(), intermediateFile), 0o640) }, domain, "chmod 600"},
		{"a torn root", func(d *state.Dir) error { return os.Truncate(filepath.Join(d.Path(), rootFile), 100) }, domain, rootFile},
		{"an empty channel authority", func(d *state.Dir) error { return os.Truncate(filepath.Join(d.Path(), channelFile), 0) }, domain, channelFile},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			dir := newState(t)
			openIn(t, dir)
			if err := c.spoil(dir); err != nil {
				t.Fatal(err)
			}
			_, err := Open(t.Context(), dir, c.td)
			wantError(t, err, c.want)
		})
	}
}

func TestOpenWithoutATrustDomainReadsOnly(t *testing.T) {
	t.Parallel()
	dir := newState(t)
	if _, err := Open(t.Context(), dir, identity.TrustDomain{}); !errors.Is(err, ErrNoAuthority) {
		t.Errorf("got %v", err)
	}
	openIn(t, dir)
	a, err := Open(t.Context(), dir, identity.TrustDomain{})
	if err != nil || a.TrustDomain() != domain {
		t.Errorf("got %v, %v", a.TrustDomain(), err)
	}
}

func TestIntermediateIsRenewedLongBeforeItsEnd(t *testing.T) {
	dir := newState(t)
	synctest.Test(t, func(t *testing.T) {
		a := openIn(t, dir)
		for range 12 * 5 {
			<-time.After(30 * 24 * time.Hour)
			svid, err := a.Mint(t.Context(), Request{ID: orders, TTL: 90 * 24 * time.Hour})
			if err != nil {
				t.Fatal(err)
			}
			if left := time.Until(svid.Certificates[0].NotAfter); left < 89*24*time.Hour {
				t.Fatalf("the authority's end cut an SVID short: %s", left)
			}
		}
		if err := a.Check(t.Context()); err != nil {
			t.Error(err)
		}
		<-time.After(RootTTL)
		if _, err := a.Mint(t.Context(), Request{ID: orders}); err == nil {
			t.Error("an authority that has ended still signs")
		}
		if err := a.Check(t.Context()); err == nil {
			t.Error("an authority that has ended is well")
		}
	})
}

func TestRenewalByAnotherProcessIsSeen(t *testing.T) {
	t.Parallel()
	dir := newState(t)
	a, b := openIn(t, dir), openIn(t, dir)
	age(t, a)
	svid, err := a.Mint(t.Context(), Request{ID: orders})
	if err != nil {
		t.Fatal(err)
	}
	other, err := b.Mint(t.Context(), Request{ID: orders})
	if err != nil {
		t.Fatal(err)
	}
	if !svid.Certificates[1].Equal(other.Certificates[1]) || due(svid.Certificates[1]) {
		t.Error("two processes sign with two intermediates")
	}
}
