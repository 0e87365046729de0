package mint

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/credence-mesh/credence/identity/ca"
	"github.com/credence-mesh/credence/identity/state"
)

func TestWrite(t *testing.T) {
	t.Parallel()
	td := spiffeid.RequireTrustDomainFromString("cluster.local")
	id := spiffeid.RequireFromString("spiffe://cluster.local/ns/production/sa/orders")
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := ca.Open(t.Context(), dir, td)
	if err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(t.TempDir(), "a", "b")
	for range 2 { // the second replaces the first
		svid, err := a.Mint(t.Context(), ca.Request{ID: id})
		if err != nil {
			t.Fatal(err)
		}
		if err := Write(out, svid, a.Bundle()); err != nil {
			t.Fatal(err)
		}
		got, err := x509svid.Load(filepath.Join(out, SVIDFile), filepath.Join(out, KeyFile))
		if err != nil || !got.Certificates[0].Equal(svid.Certificates[0]) {
			t.Fatalf("the files do not hold it: %v", err)
		}
		bundle, err := x509bundle.Load(td, filepath.Join(out, BundleFile))
		if err != nil {
			t.Fatal(err)
		}
		if who, _, err := x509svid.Verify(got.Certificates, bundle); err != nil || who != id {
			t.Errorf("got %s, %v", who, err)
		}
	}
	info, err := os.Stat(filepath.Join(out, KeyFile))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("the key has mode %v, %v", info.Mode(), err)
	}
	entries, err := os.ReadDir(out)
	if err != nil || len(entries) != 3 {
		t.Errorf("got %v, %v", entries, err)
	}
}

func TestWriteLeavesTheOldFilesWhenItCannotWrite(t *testing.T) {
	t.Parallel()
	out := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(out, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := Write(out, &x509svid.SVID{}, &x509bundle.Bundle{}); err == nil {
		t.Error("no error")
	}
}
