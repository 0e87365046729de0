package envoy_test

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/credence-mesh/credence/internal/envoy"
	"github.com/credence-mesh/credence/internal/envoytest"
)

const minimal = `{"admin": {"address": {"socket_address": {"address": "127.0.0.1", "port_value": 0}}}}`

// companion is the variable by which a test runs itself as a companion that starts an Envoy.
const companion = "ENVOY_TEST_COMPANION"

func TestMain(m *testing.M) {
	if path := os.Getenv(companion); path != "" {
		p, err := envoy.Start(envoy.Command{Path: path, Args: []string{"--config-yaml", minimal, "--concurrency", "1", "--use-dynamic-base-id"}, Stderr: os.Stderr})
		if err != nil {
			fmt.Println(err)
			os.Exit(1)
		}
		fmt.Println(p.PID())
		<-p.Done()
		os.Exit(0)
	}
	os.Exit(m.Run())
}

// With hot restart on (as here) Envoy itself asks to be ended when its parent thread ends. Threads of Go end at any time, so Envoy must
// outlive many of them, and must not outlive the companion.
func TestEnvoyEndsWithItsCompanionAndNotBefore(t *testing.T) {
	t.Parallel()
	if runtime.GOOS != "linux" {
		t.Skip("only Linux tells a child that its parent has died")
	}
	cmd := exec.CommandContext(t.Context(), os.Args[0])
	cmd.Env = append(os.Environ(), companion+"="+envoytest.Path(t))
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	var pid int
	if _, err := fmt.Sscan(line, &pid); err != nil {
		t.Fatalf("%q: %v", line, err)
	}
	if err := cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait() // it was killed
	envoytest.Eventually(t, "Envoy is gone", func() error {
		if runs(pid) {
			return fmt.Errorf("process %d still runs", pid)
		}
		return nil
	})
}

// runs is false for a process that is gone, or that ended and that init has not reaped.
func runs(pid int) bool {
	stat, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	return err == nil && !strings.Contains(string(stat), ") Z ")
}

func TestEnvoySurvivesTheThreadThatAskedForIt(t *testing.T) {
	t.Parallel()
	started := make(chan *envoy.Process)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine
		p, err := envoy.Start(envoy.Command{Path: envoytest.Path(t),
			Args: []string{"--config-yaml", minimal, "--concurrency", "1", "--use-dynamic-base-id"}})
		if err != nil {
			t.Error(err)
		}
		started <- p
	}()
	p := <-started
	if p == nil {
		return
	}
	defer p.Kill()
	select {
	case <-p.Done():
		code, err := p.Wait()
		t.Errorf("Envoy ended with its parent's thread: %d, %v", code, err)
	case <-time.After(time.Second):
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code, err := p.Wait(); code != 0 || err != nil {
		t.Errorf("Envoy ended with %d, %v", code, err)
	}
	if err := p.Signal(syscall.SIGTERM); err != nil {
		t.Errorf("a signal to an Envoy that has ended: %v", err)
	}
}

func TestParseVersion(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		printed   string
		want      envoy.Version
		supported bool
	}{
		"release":      {"\n/x/envoy  version: 9e55809/1.40.0/Clean/RELEASE/BoringSSL\n", envoy.Version{1, 40, 0}, true},
		"oldest":       {"envoy  version: abc/1.37.4/Modified/RELEASE/OpenSSL", envoy.Version{1, 37, 4}, true},
		"too old":      {"envoy  version: abc/1.36.9/Clean/RELEASE/BoringSSL", envoy.Version{1, 36, 9}, false},
		"too new":      {"envoy  version: abc/1.41.0-dev/Clean/RELEASE/BoringSSL", envoy.Version{1, 41, 0}, false},
		"not an Envoy": {"bash 5.2", envoy.Version{}, false},
		"empty":        {"", envoy.Version{}, false},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			got, err := envoy.ParseVersion(c.printed)
			if got != c.want || got.Supported() != c.supported || (err == nil) != (c.want != envoy.Version{}) {
				t.Errorf("got %s (supported: %v), %v", got, got.Supported(), err)
			}
		})
	}
}

func FuzzParseVersion(f *testing.F) {
	f.Add("envoy  version: abc/1.40.0/Clean/RELEASE/BoringSSL")
	f.Fuzz(func(t *testing.T, printed string) {
		v, err := envoy.ParseVersion(printed)
		if err == nil && !strings.Contains(printed, fmt.Sprintf("%d", v.Minor)) {
			t.Errorf("%q became %s", printed, v)
		}
	})
}

func TestLocateRefusesAWrongName(t *testing.T) {
	t.Parallel()
	for _, path := range []string{filepath.Join(t.TempDir(), "absent"), os.Args[0]} {
		if b, err := envoy.Locate(t.Context(), path); err == nil {
			t.Errorf("%s was taken for an Envoy: %+v", path, b)
		}
	}
}
