package jwks

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/internal/policytest"
	"github.com/credence-mesh/credence/policy"
)

// scripted is a source that a test speaks through.
type scripted chan *policy.Set

func (s scripted) Run(ctx context.Context, put func(*policy.Set, []policy.Problem)) error {
	for {
		select {
		case <-ctx.Done():
			return ctx.Err()
		case set := <-s:
			put(set, nil)
		}
	}
}

// seen is what the stage put last.
type seen struct {
	mu       sync.Mutex
	set      *policy.Set
	problems []policy.Problem
	puts     int
}

func (s *seen) put(set *policy.Set, problems []policy.Problem) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.set, s.problems = set, problems
	s.puts++
}

func (s *seen) document(uri string) (string, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.set == nil {
		return "", false
	}
	k, ok := policy.Get[*policy.JWKS](s.set, "", uri)
	if !ok {
		return "", false
	}
	return k.Document, true
}

func (s *seen) codes() []string {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []string
	for _, p := range s.problems {
		out = append(out, p.Severity.String()+" "+p.Code)
	}
	return out
}

// run starts a stage that ends with the test, or with the returned function.
func run(t *testing.T, o Options) (scripted, *seen, func()) {
	t.Helper()
	s, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	return runStage(t, s)
}

func runStage(t *testing.T, s *Stage) (scripted, *seen, func()) {
	t.Helper()
	in, out := make(scripted), &seen{}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- s.Run(ctx, in, out.put) }()
	stop := sync.OnceFunc(func() {
		cancel()
		if err := <-done; !errors.Is(err, context.Canceled) {
			t.Errorf("Run: %v", err)
		}
	})
	t.Cleanup(stop)
	return in, out, stop
}

// policies is RequestAuthentications, one a URI. An empty URI asks for discovery at issuer.
func policies(t *testing.T, uris ...string) *policy.Set {
	t.Helper()
	var b strings.Builder
	for i, u := range uris {
		fmt.Fprintf(&b, "kind: RequestAuthentication\nmetadata: {name: ra-%d, namespace: n}\nspec: {jwtRules: [{issuer: 'https://%d.example', jwksUri: '%s'}]}\n---\n", i, i, u)
	}
	return policytest.Set(t, b.String())
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	envoytest.Eventually(t, what, func() error {
		if ok() {
			return nil
		}
		return errors.New("not yet")
	})
}

// A13, and "an unreachable issuer never delays start-up or others".
func TestIssuersThatMisbehave(t *testing.T) {
	t.Parallel()
	good := envoytest.NewIssuer(t, "good")
	release := make(chan struct{})
	hang := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) {
		select {
		case <-release:
		case <-r.Context().Done():
		}
	}))
	t.Cleanup(hang.Close)
	t.Cleanup(func() { close(release) })
	answers := func(h http.HandlerFunc) string {
		s := httptest.NewServer(h)
		t.Cleanup(s.Close)
		return s.URL
	}
	huge := answers(func(w http.ResponseWriter, _ *http.Request) {
		chunk := []byte(strings.Repeat(" ", 1<<20))
		for range 3 {
			if _, err := w.Write(chunk); err != nil {
				return // the client had enough
			}
		}
	})
	uris := []string{"https://hang", "https://html", "https://500", "https://huge", "https://gone", "https://good"}
	in, out, _ := run(t, Options{Dir: t.TempDir(), Registry: prometheus.NewRegistry(), Sources: []Source{
		{URI: uris[0], URL: hang.URL},
		{URI: uris[1], URL: answers(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte("<html>")) })},
		{URI: uris[2], URL: answers(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusInternalServerError) })},
		{URI: uris[3], URL: huge},
		{URI: uris[4], URL: "http://" + envoytest.FreeAddr(t)},
		{URI: uris[5], URL: good.URL},
	}})
	in <- policies(t, uris...)
	eventually(t, "the good issuer's keys", func() bool { d, _ := out.document(uris[5]); return d != "" })
	eventually(t, "four problems", func() bool {
		return slices.Equal(out.codes(), []string{"error JWKS_UNREACHABLE", "error JWKS_UNREACHABLE", "error JWKS_UNREACHABLE", "error JWKS_UNREACHABLE"})
	})
	for _, u := range uris[:5] {
		if d, ok := out.document(u); !ok || d != "" {
			t.Errorf("%s: %q, %v; want an empty key set", u, d, ok)
		}
	}
}

// A14.
func TestAddressesThatPoliciesMayNotName(t *testing.T) {
	t.Parallel()
	i := envoytest.NewIssuer(t, "internal")
	byName := strings.Replace(i.URL, "127.0.0.1", "localhost", 1) // a name is checked by what it resolves to, when it is dialled
	in, out, _ := run(t, Options{})
	in <- policies(t, i.URL, byName, "http://169.254.169.254/jwks", "http://[::ffff:10.0.0.1]/jwks")
	eventually(t, "all refused", func() bool {
		return slices.Equal(out.codes(), []string{"error JWKS_ADDRESS_REFUSED", "error JWKS_ADDRESS_REFUSED", "error JWKS_ADDRESS_REFUSED", "error JWKS_ADDRESS_REFUSED"})
	})
	for addr, want := range map[string]bool{
		"8.8.8.8": true, "2606:4700::1111": true, "127.0.0.1": false, "::1": false, "10.1.2.3": false, "172.16.0.1": false, "192.168.1.1": false,
		"169.254.169.254": false, "100.100.100.200": false, "0.0.0.0": false, "255.255.255.255": false, "224.0.0.1": false, "fe80::1": false,
		"fd00:ec2::254": false, "::ffff:127.0.0.1": false, "64:ff9b::7f00:1": false, "2002:7f00:1::": false, "::": false, "::7f00:1": false,
	} {
		if got := Public(netip.MustParseAddr(addr)); got != want {
			t.Errorf("Public(%s) = %v", addr, got)
		}
	}
}

func TestRedirects(t *testing.T) {
	t.Parallel()
	good := envoytest.NewIssuer(t, "good")
	var loop *httptest.Server
	loop = httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) { http.Redirect(w, r, loop.URL, http.StatusFound) }))
	t.Cleanup(loop.Close)
	once := httptest.NewServer(http.RedirectHandler(good.URL, http.StatusFound))
	t.Cleanup(once.Close)
	down := httptest.NewTLSServer(http.RedirectHandler(good.URL, http.StatusFound)) // from https to http
	t.Cleanup(down.Close)
	ca := filepath.Join(t.TempDir(), "ca.pem")
	if err := os.WriteFile(ca, pemOf(down), 0o600); err != nil {
		t.Fatal(err)
	}
	in, out, _ := run(t, Options{Sources: []Source{{URI: "https://loop", URL: loop.URL}, {URI: "https://once", URL: once.URL}, {URI: "https://down", URL: down.URL, CAFile: ca}}})
	in <- policies(t, "https://loop", "https://once", "https://down")
	eventually(t, "keys behind one redirect", func() bool { d, _ := out.document("https://once"); return d != "" })
	eventually(t, "two problems", func() bool { return len(out.codes()) == 2 })
}

// A15, and what outlives a failure and a restart.
func TestLastGoodStays(t *testing.T) {
	t.Parallel()
	i := envoytest.NewIssuer(t, "good")
	var broken atomic.Bool
	var notModified atomic.Int64
	srv := httptest.NewTLSServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case broken.Load():
			w.WriteHeader(http.StatusBadGateway)
		case r.Header.Get("If-None-Match") == `"v1"`:
			notModified.Add(1)
			w.WriteHeader(http.StatusNotModified)
		default:
			w.Header().Set("ETag", `"v1"`)
			i.ServeHTTP(w, r)
		}
	}))
	t.Cleanup(srv.Close)
	dir := t.TempDir()
	ca := filepath.Join(dir, "ca.pem")
	if err := os.WriteFile(ca, pemOf(srv), 0o600); err != nil {
		t.Fatal(err)
	}
	const uri = "https://idp/jwks"
	o := Options{Dir: filepath.Join(dir, "jwks"), Sources: []Source{{URI: uri, URL: srv.URL, CAFile: ca}}}
	in, out, stop := run(t, o)
	in <- policies(t, uri)
	eventually(t, "keys", func() bool { d, _ := out.document(uri); return d != "" })
	want, _ := out.document(uri)
	stop()

	broken.Store(true)
	in, out, stop = run(t, o)
	in <- policies(t, uri)
	eventually(t, "the first set", func() bool { _, ok := out.document(uri); return ok })
	if got, _ := out.document(uri); got != want {
		t.Fatalf("after a restart: %q", got)
	}
	eventually(t, "a warning", func() bool { return slices.Equal(out.codes(), []string{"warning JWKS_UNREACHABLE"}) })
	if got, _ := out.document(uri); got != want {
		t.Error("the last good keys went away with a failure")
	}
	stop()

	t.Run("conditional requests", func(t *testing.T) {
		broken.Store(false)
		s, err := New(o)
		if err != nil {
			t.Fatal(err)
		}
		p := place{uri: uri, timeout: time.Minute, source: s.mapped[uri]}
		k := s.attempt(t.Context(), p, known{})
		if k = s.attempt(t.Context(), p, k); k.err != nil || notModified.Load() != 1 || k.document != want {
			t.Errorf("err %v, %d answers 304", k.err, notModified.Load())
		}
	})
	t.Run("a damaged file is none", func(t *testing.T) {
		s := store{dir: o.Dir}
		if err := os.WriteFile(s.file(uri), []byte(`{"uri":"https://idp/jwks","document":"{}"`), 0o600); err != nil {
			t.Fatal(err)
		}
		if got := s.load(uri); got.document != "" {
			t.Errorf("got %q", got.document)
		}
	})
}

func TestFileIsWatched(t *testing.T) {
	t.Parallel()
	a, b := envoytest.NewIssuer(t, "a"), envoytest.NewIssuer(t, "a")
	file := filepath.Join(t.TempDir(), "keys.json")
	write := func(i envoytest.Issuer) {
		t.Helper()
		doc, err := i.JWKS()
		if err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, doc, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write(a)
	in, out, _ := run(t, Options{Sources: []Source{{URI: "https://idp/jwks", File: file}}})
	in <- policies(t, "https://idp/jwks")
	eventually(t, "the first set", func() bool { _, ok := out.document("https://idp/jwks"); return ok })
	first, _ := out.document("https://idp/jwks")
	if first == "" {
		t.Fatal("the first set has no keys, although they were on disk")
	}
	write(b)
	eventually(t, "the new keys", func() bool { d, _ := out.document("https://idp/jwks"); return d != "" && d != first })
	in <- policies(t)
	eventually(t, "no keys are wanted", func() bool { _, ok := out.document("https://idp/jwks"); return !ok })
}

func TestDiscovery(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct{ name, document, want string }{
		{"right", `{"issuer":"https://0.example","jwks_uri":"https://keys.example"}`, "https://keys.example"},
		{"another issuer", `{"issuer":"https://evil.example","jwks_uri":"https://keys.example"}`, ""},
		{"no jwks_uri", `{"issuer":"https://0.example"}`, ""},
		{"a file", `{"issuer":"https://0.example","jwks_uri":"file:///etc/passwd"}`, ""},
		{"no JSON", `x`, ""},
	} {
		t.Run(tc.name, func(t *testing.T) {
			t.Parallel()
			srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _, _ = w.Write([]byte(tc.document)) }))
			t.Cleanup(srv.Close)
			w := &web{guarded: srv.Client()}
			got, err := w.discover(t.Context(), place{uri: srv.URL, issuer: "https://0.example"})
			if got != tc.want || (err == nil) != (tc.want != "") {
				t.Errorf("got %q, %v", got, err)
			}
		})
	}
}

// outage is an issuer that answers once and then never again.
type outage struct {
	document string
	calls    []time.Time
}

func (o *outage) get(context.Context, place, string) ([]byte, string, error) {
	o.calls = append(o.calls, time.Now())
	if len(o.calls) == 1 {
		return []byte(o.document), "", nil
	}
	return nil, "", errors.New("out of order")
}

func TestStaleKeysEnd(t *testing.T) {
	t.Parallel()
	doc, err := envoytest.NewIssuer(t, "a").JWKS()
	if err != nil {
		t.Fatal(err)
	}
	synctest.Test(t, func(t *testing.T) {
		s, err := New(Options{})
		if err != nil {
			t.Fatal(err)
		}
		o := &outage{document: string(doc)}
		s.fetch = o
		in, out, stop := runStage(t, s)
		begin := time.Now()
		in <- policies(t, "https://idp/jwks")
		<-time.After(MaxStale - time.Minute) // virtual time
		if d, _ := out.document("https://idp/jwks"); d == "" {
			t.Error("the keys ended early")
		}
		<-time.After(5 * time.Minute)
		if d, ok := out.document("https://idp/jwks"); d != "" || !ok {
			t.Error("keys that could not be fetched for 72 h are still in force")
		}
		if got := out.codes(); !slices.Equal(got, []string{"error JWKS_UNREACHABLE"}) {
			t.Errorf("problems: %v", got)
		}
		stop()
		if first := o.calls[1].Sub(begin); first < refresh*3/4 || first > refresh*5/4 {
			t.Errorf("refreshed after %s", first)
		}
		for i := 2; i < len(o.calls); i++ {
			if d := o.calls[i].Sub(o.calls[i-1]); d < retryFirst*3/4 || d > retryMax*5/4 {
				t.Fatalf("attempt %d came after %s", i, d)
			}
		}
	})
}
