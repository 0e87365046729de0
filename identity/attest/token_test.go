package attest

import (
	"crypto/sha256"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/state"
)

func TestTokenNamesTheRootAndIsKeptAsAHash(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	text := p.token(t, orders)
	tok, err := parseToken(text)
	if err != nil || tok.root != sha256.Sum256(p.ca.Root().Raw) {
		t.Errorf("the token does not name the root: %v", err)
	}
	secret := text[strings.LastIndex(text, ".")+1:]
	err = filepath.WalkDir(p.dir.Path(), func(path string, e os.DirEntry, err error) error {
		if err != nil || e.IsDir() {
			return err
		}
		b, err := os.ReadFile(path)
		if strings.Contains(path+string(b), secret) {
			t.Errorf("%s shows the secret", path)
		}
		return err
	})
	if err != nil {
		t.Error(err)
	}
}

func TestCreateTokenRefuses(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	for _, c := range []struct {
		name string
		w    identity.Workload
		ttl  time.Duration
	}{
		{"nobody", identity.Workload{}, 0},
		{"no name", identity.Workload{Namespace: "a"}, 0},
		{"slashes", identity.Workload{Namespace: "a/b", Name: "c"}, 0},
		{"negative", orders, -time.Second},
		{"forever", orders, MaxTokenTTL + 1},
	} {
		if text, err := CreateToken(t.Context(), p.tokens, p.ca.Root(), c.w, c.ttl); err == nil {
			t.Errorf("%s: %s", c.name, text)
		}
	}
}

func TestTokensExpireAndAreCleanedUp(t *testing.T) {
	p := newPlane(t)
	synctest.Test(t, func(t *testing.T) {
		used, left := p.token(t, orders), p.token(t, spy)
		if err := p.tokens.Consume(used, orders); err != nil {
			t.Fatal(err)
		}
		list, err := p.tokens.List()
		if err != nil || len(list) != 2 || list[0].Used == list[1].Used {
			t.Errorf("got %+v, %v", list, err)
		}
		<-time.After(DefaultTokenTTL - time.Second)
		if err := p.tokens.Check(left, spy); err != nil {
			t.Error(err)
		}
		<-time.After(time.Second)
		if err := p.tokens.Consume(left, spy); !errors.Is(err, ErrTokenExpired) {
			t.Errorf("got %v", err)
		}
		<-time.After(time.Second)
		if err := p.tokens.Clean(t.Context()); err != nil {
			t.Fatal(err)
		}
		if names, _ := p.dir.List(tokenFolder); len(names) != 0 {
			t.Errorf("left: %v", names)
		}
		for _, text := range []string{used, left} {
			if err := p.tokens.Consume(text, orders); !errors.Is(err, ErrTokenUnknown) {
				t.Errorf("got %v", err)
			}
		}
	})
}

// Two servers on one state directory, many attempts each: a token lets one in.
func TestATokenIsUsedOnce(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	text := p.token(t, orders)
	beside, err := OpenTokens(p.dir)
	if err != nil {
		t.Fatal(err)
	}
	var all sync.WaitGroup
	results := make([]error, 32)
	for i := range results {
		all.Go(func() { results[i] = []*Tokens{p.tokens, beside}[i%2].Consume(text, orders) })
	}
	all.Wait()
	won := 0
	for _, err := range results {
		switch {
		case err == nil:
			won++
		case !errors.Is(err, ErrTokenUsed):
			t.Error(err)
		}
	}
	if won != 1 {
		t.Errorf("%d used it", won)
	}
}

const (
	childDir   = "CREDENCE_TEST_STATE"
	childToken = "CREDENCE_TEST_TOKEN"
	childStep  = "CREDENCE_TEST_KILL_AT"
)

// TestConsumeInAnotherProcess is not a test: it is the process that TestKillWhileConsuming kills.
func TestConsumeInAnotherProcess(t *testing.T) {
	path := os.Getenv(childDir)
	if path == "" {
		t.Skip("only run by TestKillWhileConsuming")
	}
	steps := 0
	dir, err := state.Open(path, state.Trace(func(string) {
		if steps++; fmt.Sprint(steps) == os.Getenv(childStep) {
			_ = syscall.Kill(os.Getpid(), syscall.SIGKILL)
			select {}
		}
	}))
	if err != nil {
		t.Fatal(err)
	}
	if err := (&Tokens{dir: dir}).Consume(os.Getenv(childToken), orders); err != nil {
		t.Fatal(err)
	}
	fmt.Println("consumed")
}

func TestKillWhileConsuming(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	for n := 1; ; n++ {
		text := p.token(t, orders)
		cmd := exec.CommandContext(t.Context(), os.Args[0], "-test.run=^TestConsumeInAnotherProcess$")
		cmd.Env = append(os.Environ(), childDir+"="+p.dir.Path(), childToken+"="+text, fmt.Sprintf("%s=%d", childStep, n))
		out, _ := cmd.Output()
		said := strings.Contains(string(out), "consumed")
		again := p.tokens.Consume(text, orders) == nil
		if said && again {
			t.Fatalf("killed at step %d: used twice", n)
		}
		if p.tokens.Consume(text, orders) == nil {
			t.Fatalf("killed at step %d: used again and again", n)
		}
		if said {
			if n < 3 {
				t.Errorf("only %d steps were seen", n)
			}
			return
		}
	}
}

func TestLimiter(t *testing.T) {
	t.Parallel()
	synctest.Test(t, func(t *testing.T) {
		l := newLimiter(2, 3)
		a, b := &net.TCPAddr{IP: net.IPv4(10, 0, 0, 1)}, &net.TCPAddr{IP: net.IPv4(10, 0, 0, 2)}
		count := func(addr net.Addr) (n int) {
			for l.allow(addr) {
				n++
			}
			return n
		}
		if n := count(a); n != 3 {
			t.Errorf("burst of %d", n)
		}
		if n := count(b); n != 3 {
			t.Errorf("one address takes from another: %d", n)
		}
		<-time.After(time.Second)
		if n := count(a); n != 2 {
			t.Errorf("%d after a second", n)
		}
		near, far := &net.TCPAddr{IP: net.ParseIP("2001:db8::1")}, &net.TCPAddr{IP: net.ParseIP("2001:db8::ffff:2")}
		if count(near) != 3 || count(far) != 0 {
			t.Error("a host with a /64 has many buckets")
		}
		for i := range 2 * maxBuckets {
			l.allow(&net.TCPAddr{IP: net.IPv4(11, byte(i>>16), byte(i>>8), byte(i))})
		}
		if len(l.buckets) > maxBuckets+1 {
			t.Errorf("%d buckets", len(l.buckets))
		}
	})
}

// What parses is written as it was read, so that one token has one spelling.
func FuzzParseToken(f *testing.F) {
	f.Add(token{}.encode())
	f.Add(tokenPrefix)
	f.Add(tokenPrefix + "AAAA.AAAA")
	f.Add("credence-v2." + strings.Repeat("A", 43) + "." + strings.Repeat("A", 43))
	f.Add(tokenPrefix + strings.Repeat("A", 43) + "." + strings.Repeat("A", 42) + "B")
	f.Fuzz(func(t *testing.T, text string) {
		tok, err := parseToken(text)
		if err == nil && tok.encode() != text {
			t.Errorf("%q and %q are one token", text, tok.encode())
		}
		if err != nil && !errors.Is(err, ErrTokenMalformed) {
			t.Error(err)
		}
	})
}

func FuzzParseCredential(f *testing.F) {
	f.Add([]byte("-----BEGIN CERTIFICATE-----\n-----END CERTIFICATE-----\n"), []byte(""), []byte(""))
	a, _ := newAuthority(f, domain)
	private := newTestKey(f)
	chain, err := a.IssueChannel(f.Context(), orders, known[orders], private.Public(), 0)
	if err != nil {
		f.Fatal(err)
	}
	c := Credential{Chain: chain, Key: private, Bundle: a.Bundle()}
	key, err := c.KeyPEM()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(c.ChainPEM(), key, c.BundlePEM())
	f.Add(c.BundlePEM(), key, c.ChainPEM())
	f.Fuzz(func(t *testing.T, chain, key, bundle []byte) {
		c, err := ParseCredential(chain, key, bundle)
		if err == nil && (c.ID.IsZero() || c.Workload == (identity.Workload{}) || c.Bundle.Empty()) {
			t.Errorf("got %+v", c)
		}
	})
}
