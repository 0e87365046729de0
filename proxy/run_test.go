package proxy

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/attest"
	"github.com/credence-mesh/credence/identity/state"
	"github.com/credence-mesh/credence/internal/envoytest"
)

var errNotYet = errors.New("not yet")

func TestRunServesAndDrains(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.serve(identity.ServerID(domain))
	r := p.start(filepath.Join(t.TempDir(), "proxy"), p.token(), nil)
	r.said("envoy is ready", 1)
	if got := p.connected().Workload; got != shop {
		t.Errorf("the control plane saw %s", got)
	}
	if code, err := p.get(t.Context(), "/"); code != 200 || err != nil {
		t.Fatalf("a request got %d, %v", code, err)
	}

	// A request that is under way when the proxy is stopped is answered; the proxy ends well before its drain time.
	type answer struct {
		code int
		err  error
	}
	slow := make(chan answer, 1)
	go func() {
		code, err := p.get(context.Background(), "/?delay=1500ms")
		slow <- answer{code, err}
	}()
	a := newAdmin(filepath.Join(r.dir, "admin-address"))
	envoytest.Eventually(t, "the slow request is under way", func() error {
		n, err := a.connections(t.Context())
		if err == nil && n == 0 {
			err = errNotYet
		}
		return err
	})
	began := time.Now()
	r.stop()
	if got := <-slow; got.code != 200 || got.err != nil {
		t.Errorf("the request under way got %d, %v", got.code, got.err)
	}
	<-r.done
	if r.err != nil || r.code != 0 {
		t.Errorf("the proxy ended with %d, %v", r.code, r.err)
	}
	if took := time.Since(began); took > 15*time.Second {
		t.Errorf("it took %s though the last connection was gone", took)
	}
}

func TestEnvoySeesNoToken(t *testing.T) {
	t.Parallel()
	got := environment([]string{"PATH=/bin", "CREDENCE_TOKEN=hush", "CREDENCE_WORKLOAD=a/b", "HOME=/"})
	if want := []string{"PATH=/bin", "HOME=/"}; !slices.Equal(got, want) {
		t.Errorf("Envoy gets %q, want %q", got, want)
	}
}

func TestRunStartsEnvoyAgainAfterACrash(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.serve(identity.ServerID(domain))
	r := p.start(filepath.Join(t.TempDir(), "proxy"), p.token(), nil)
	r.said("envoy is ready", 1)
	pid, ok := r.said("envoy started", 1)["pid"].(int64)
	if !ok {
		t.Fatal("no pid")
	}
	if err := syscall.Kill(int(pid), syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	r.said("envoy is ready", 2)
	if code, err := p.get(t.Context(), "/"); code != 200 || err != nil {
		t.Errorf("a request got %d, %v", code, err)
	}
}

func TestRunWithoutControlPlane(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.serve(identity.ServerID(domain))
	dir := filepath.Join(t.TempDir(), "proxy")
	r := p.start(dir, p.token(), nil)
	r.said("envoy is ready", 1)
	r.stop()
	<-r.done
	p.stop()

	// No token, no control plane: it starts, waits without serving, and is in step as soon as the control plane is back.
	r = p.start(dir, "", nil)
	r.said("envoy started", 1)
	envoytest.Eventually(t, "envoy asks in vain", func() error {
		if r.logs.FilterMessageSnippet("DeltaAggregatedResources gRPC config stream").Len() == 0 {
			return errNotYet
		}
		return nil
	})
	if code, err := p.get(t.Context(), "/"); err == nil {
		t.Errorf("a proxy without configuration answered %d", code)
	}
	p.serve(identity.ServerID(domain))
	r.said("envoy is ready", 1)
	if code, err := p.get(t.Context(), "/"); code != 200 || err != nil {
		t.Errorf("a request got %d, %v", code, err)
	}
}

func TestRunRenewsWithoutRestart(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.serve(identity.ServerID(domain))
	r := p.start(filepath.Join(t.TempDir(), "proxy"), p.token(), func(c *Config) { c.TTL = 20 * time.Second })
	r.said("envoy is ready", 1)
	first := p.connected()
	r.said("the channel credential was renewed", 1)
	dir, err := state.Open(r.dir)
	if err != nil {
		t.Fatal(err)
	}
	stored, err := ReadSDS(dir)
	if err != nil {
		t.Fatal(err)
	}
	renewed := stored.Chain[0].SerialNumber.Text(16)
	p.stop()
	p.serve(identity.ServerID(domain))
	envoytest.Eventually(t, "the same Envoy reconnects with its new credential", func() error {
		if again := p.connected(); again.Serial != first.Serial {
			return nil
		}
		return errNotYet
	})
	if renewed == first.Serial {
		t.Error("what is stored is the old credential")
	}
	if n := r.logs.FilterMessage("envoy started").Len(); n != 1 {
		t.Errorf("Envoy was started %d times", n)
	}
}

func TestRunRefuses(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.serve(identity.ServerID(domain))
	spent := p.token()
	used := filepath.Join(t.TempDir(), "used")
	r := p.start(used, spent, nil)
	r.said("envoy is ready", 1)
	for name, c := range map[string]struct {
		dir, token string
		change     func(*Config)
		want       string
	}{
		"no token":                      {dir: "new", want: "join token is needed"},
		"a spent token":                 {dir: "new2", token: spent, want: "used before"},
		"a second proxy on a directory": {dir: used, want: "another credence proxy"},
		"an Envoy that is none":         {dir: "new3", token: "x", change: func(c *Config) { c.Envoy = "/bin/true" }, want: "not an Envoy version"},
		"an argument that Envoy does not know": {dir: "new4", token: p.token(), change: func(c *Config) { c.Args = []string{"--no-such-flag"} },
			want: "before it was up"},
		"an admin interface for all": {dir: "new5", token: p.token(), change: func(c *Config) { c.Admin = "0.0.0.0:9901" }, want: "not on loopback"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if !filepath.IsAbs(c.dir) {
				c.dir = filepath.Join(t.TempDir(), c.dir)
			}
			r := p.start(c.dir, c.token, c.change)
			<-r.done
			if r.err == nil || r.code == 0 || !strings.Contains(r.err.Error(), c.want) {
				t.Errorf("it ended with %d, %v; want %q", r.code, r.err, c.want)
			}
		})
	}
}

func TestEnvoyRefusesAnImpostor(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.serve(identity.ServerID(domain))
	path := filepath.Join(t.TempDir(), "envoy.yaml")
	if _, err := CreateBootstrap(t.Context(), path, Bare{XDSAddr: p.addr, Workload: shop, Token: p.token()}); err != nil {
		t.Fatal(err)
	}
	p.stop()
	intruder, err := identity.ForServiceAccount(domain, "production", "intruder")
	if err != nil {
		t.Fatal(err)
	}
	p.serve(intruder) // a valid certificate of the mesh, but not the control plane's
	e := envoytest.Start(t, read(t, path), envoytest.Options{NoWait: true})
	e.WaitStat(t, "cluster.credence_xds.ssl.fail_verify_san", 1)
	if n := e.Stat(t, "cluster.credence_xds.upstream_rq_total"); len(p.seen) != 0 {
		t.Errorf("Envoy spoke to the impostor: %d requests", n)
	}
}

func TestBareBootstrap(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.serve(identity.ServerID(domain))
	path := filepath.Join(t.TempDir(), "envoy.yaml")
	until, err := CreateBootstrap(t.Context(), path, Bare{XDSAddr: p.addr, Workload: shop, Token: p.token()})
	if err != nil {
		t.Fatal(err)
	}
	if left := time.Until(until); left < 80*24*time.Hour {
		t.Errorf("the credential ends in %s", left)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v: the file holds a private key", info.Mode(), err)
	}
	first := read(t, path)
	envoytest.Validate(t, first)
	e := envoytest.Start(t, first, envoytest.Options{})
	if id := e.Get(t, "/server_info"); !strings.Contains(id, `"production/no~`) {
		t.Errorf("the node is not production/no: %s", id)
	}
	before := p.connected()
	e.Stop()

	if _, err := RenewBootstrap(t.Context(), path); err != nil {
		t.Fatal(err)
	}
	second := read(t, path)
	if slices.Equal(first, second) {
		t.Error("the renewed bootstrap is the old one")
	}
	envoytest.Start(t, second, envoytest.Options{})
	if after := p.connected(); after.Serial == before.Serial || after.Workload != shop {
		t.Errorf("after renewal it came as %+v, before as %+v", after, before)
	}
}

func TestBareBootstrapSparesTheToken(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	p.serve(identity.ServerID(domain))
	token := p.token()
	bare := Bare{XDSAddr: p.addr, Workload: shop, Token: token}
	if _, err := CreateBootstrap(t.Context(), filepath.Join(t.TempDir(), "no", "such", "directory"), bare); err == nil {
		t.Fatal("a bootstrap was written into nowhere")
	}
	good := filepath.Join(t.TempDir(), "envoy.yaml")
	if _, err := CreateBootstrap(t.Context(), good, bare); err != nil {
		t.Errorf("the token was lost: %v", err)
	}
	if _, err := CreateBootstrap(t.Context(), good, bare); err == nil || !strings.Contains(err.Error(), attest.ErrTokenUsed.Error()) {
		t.Errorf("a second use of the token: %v", err)
	}
	if left, err := filepath.Glob(filepath.Join(filepath.Dir(good), ".credence-*")); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	b, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return b
}
