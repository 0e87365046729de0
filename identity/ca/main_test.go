package ca

import (
	"context"
	"crypto/sha256"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"

	"github.com/credence-mesh/credence/identity/state"
)

var (
	domain = spiffeid.RequireTrustDomainFromString("cluster.local")
	orders = spiffeid.RequireFromString("spiffe://cluster.local/ns/production/sa/orders")
)

// The test binary is also a process that opens an authority and is killed in the middle of it.
const (
	childDir  = "CREDENCE_TEST_STATE"
	childStep = "CREDENCE_TEST_KILL_AT"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childDir); dir != "" {
		child(dir)
		return
	}
	goleak.VerifyTestMain(m)
}

func child(path string) {
	at, _ := strconv.Atoi(os.Getenv(childStep))
	steps := 0
	dir, err := state.Open(path, state.Trace(func(string) {
		if steps++; steps == at {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}))
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	a, err := Open(context.Background(), dir, domain)
	if err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Printf("%x", sha256.Sum256(a.Root().Raw))
}

// process opens the authority in a process that is killed before its n-th change of the disk; 0 is never.
func process(t *testing.T, path string, n int) (out string, killed bool) {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), childDir+"="+path, childStep+"="+strconv.Itoa(n))
	b, err := cmd.Output()
	if err == nil {
		return string(b), false
	}
	status, ok := cmd.ProcessState.Sys().(syscall.WaitStatus)
	if !ok || status.Signal() != syscall.SIGKILL {
		t.Fatalf("kill at %d: %v: %s", n, err, b)
	}
	return "", true
}

func newState(t testing.TB) *state.Dir {
	t.Helper()
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func openIn(t testing.TB, dir *state.Dir) *Authority {
	t.Helper()
	a, err := Open(t.Context(), dir, domain)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func wantError(t *testing.T, err error, says string) {
	t.Helper()
	if err == nil || !strings.Contains(err.Error(), says) {
		t.Errorf("got %v, want %q", err, says)
	}
}
