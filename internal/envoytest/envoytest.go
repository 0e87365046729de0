// Package envoytest runs real Envoys in tests: it finds the binary, starts it on free ports, waits until it serves, shows its log when a
// test fails, and ends it. Beside Envoy it has what such tests need around it: backends, a token issuer, a certificate authority, load.
package envoytest

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"sigs.k8s.io/yaml"

	"github.com/credence-mesh/credence/internal/envoy"
)

// Patience is how long a test waits for a fact before it fails. It is long because CI machines are slow; no passing test waits for it.
const Patience = 60 * time.Second

var located = sync.OnceValues(func() (envoy.Binary, error) {
	return envoy.Locate(context.Background(), os.Getenv("ENVOY_PATH"))
})

// Path is the Envoy to run: ENVOY_PATH, else an `envoy` on PATH of a supported version, else what `make envoy` fetched. Without one the
// test fails: a security test that was silently skipped is worth nothing.
func Path(t testing.TB) string {
	t.Helper()
	b, err := located()
	if err != nil {
		t.Fatalf("this test runs a real Envoy; run `make envoy` first: %v", err)
	}
	return b.Path
}

// JSON renders a bootstrap message for Start and Validate.
func JSON(t testing.TB, m proto.Message) []byte {
	t.Helper()
	b, err := protojson.Marshal(m)
	if err != nil {
		t.Fatalf("bootstrap: %v", err)
	}
	return b
}

// Check asks Envoy (`--mode validate`) about a bootstrap in YAML or JSON and returns its complaint.
func Check(t testing.TB, bootstrap []byte) error {
	t.Helper()
	file := filepath.Join(t.TempDir(), "envoy.yaml")
	if err := os.WriteFile(file, bootstrap, 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), Patience)
	defer cancel()
	out, err := exec.CommandContext(ctx, Path(t), "--mode", "validate", "--config-path", file, "--log-level", "error",
		"--disable-hot-restart", "--concurrency", "1").CombinedOutput()
	if err != nil {
		return fmt.Errorf("envoy --mode validate: %w\n%s", err, out)
	}
	return nil
}

// Validate fails the test unless Envoy accepts the bootstrap.
func Validate(t testing.TB, bootstrap []byte) {
	t.Helper()
	if err := Check(t, bootstrap); err != nil {
		t.Fatal(err)
	}
}

// Options say how to start an Envoy. The zero value suits most tests.
type Options struct {
	Args     []string // further arguments
	LogLevel string   // default "info"
	NoWait   bool     // return before Envoy is ready: for one that waits for a control plane; call WaitReady later
}

// Envoy is a running Envoy.
type Envoy struct {
	Admin   string // host:port of the admin interface
	process *envoy.Process
	log     *buffer
}

// Start runs an Envoy with a bootstrap in YAML or JSON until the test ends. Whatever admin address the bootstrap names is replaced by a free
// one on loopback. Its own log is printed when the test fails.
func Start(t testing.TB, bootstrap []byte, o Options) *Envoy {
	t.Helper()
	dir := t.TempDir()
	config, admin := filepath.Join(dir, "envoy.json"), filepath.Join(dir, "admin")
	if err := os.WriteFile(config, withAdmin(t, bootstrap), 0o600); err != nil {
		t.Fatal(err)
	}
	level := o.LogLevel
	if level == "" {
		level = "info"
	}
	e := &Envoy{log: &buffer{}}
	var err error
	e.process, err = envoy.Start(envoy.Command{
		Path: Path(t), Stdout: e.log, Stderr: e.log,
		Args: append([]string{"--config-path", config, "--admin-address-path", admin, "--disable-hot-restart", "--concurrency", "1",
			"--log-level", level}, o.Args...),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		e.process.Kill()
		if t.Failed() {
			t.Logf("envoy %s said:\n%s", e.Admin, e.log.tail(200))
		}
	})
	Eventually(t, "Envoy opens its admin interface", func() error {
		b, err := os.ReadFile(admin)
		e.Admin = strings.TrimSpace(string(b))
		if err == nil && e.Admin == "" {
			return fmt.Errorf("%s is empty", admin)
		}
		return e.alive(err)
	})
	if !o.NoWait {
		e.WaitReady(t)
	}
	return e
}

func withAdmin(t testing.TB, bootstrap []byte) []byte {
	t.Helper()
	var config map[string]any
	if err := yaml.Unmarshal(bootstrap, &config); err != nil {
		t.Fatalf("bootstrap: %v", err)
	}
	config["admin"] = map[string]any{"address": map[string]any{"socket_address": map[string]any{"address": "127.0.0.1", "port_value": 0}}}
	b, err := json.Marshal(config)
	if err != nil {
		t.Fatalf("bootstrap: %v", err)
	}
	return b
}

// Gone is the error of a process that ended: Eventually does not wait for more.
type Gone struct {
	Code int
	Err  error // may be nil
}

// Error names the code.
func (g Gone) Error() string { return fmt.Sprintf("it ended with code %d: %v", g.Code, g.Err) }

// alive is err, or that Envoy has ended.
func (e *Envoy) alive(err error) error {
	select {
	case <-e.process.Done():
		code, err := e.process.Wait()
		return Gone{code, err}
	default:
		return err
	}
}

// WaitReady waits until Envoy has its first complete configuration and listens.
func (e *Envoy) WaitReady(t testing.TB) {
	t.Helper()
	Eventually(t, "Envoy is ready", func() error {
		_, err := e.admin(t.Context(), "GET", "/ready")
		return e.alive(err)
	})
}

// Stop ends Envoy at once, as a crash would.
func (e *Envoy) Stop() { e.process.Kill() }

// Log is what Envoy has printed so far.
func (e *Envoy) Log() string { return e.log.String() }

// buffer collects what Envoy prints, from its goroutine.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

// Write is an io.Writer's.
func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

// String is all that was written.
func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func (b *buffer) tail(lines int) string {
	all := strings.Split(b.String(), "\n")
	return strings.Join(all[max(0, len(all)-lines):], "\n")
}
