package proxy

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/attest"
	"github.com/credence-mesh/credence/identity/state"
	"github.com/credence-mesh/credence/internal/envoy"
)

const (
	// DefaultTTL is how long the credential of a supervised proxy lives. It is renewed at half of that, so the control plane may be away
	// for three and a half days before a proxy needs a new join token.
	DefaultTTL = 7 * 24 * time.Hour
	// DefaultDrainTime is how long clients get to finish before Envoy ends.
	DefaultDrainTime = 20 * time.Second

	joinTime = 30 * time.Second
	lockTime = 3 * time.Second
	// maxSocketPath is what the kernel takes for a Unix socket, on the strictest system.
	maxSocketPath = 100
)

// Config says what proxy Run runs.
type Config struct {
	XDSAddr        string            // HOST:PORT of the control plane
	Workload       identity.Workload // who the proxy is
	Token          string            // a join token; needed only while StateDir has no valid credential
	TTL            time.Duration     // of the credential; 0: DefaultTTL
	StateDir       string            // where credential and bootstrap live; one running proxy a directory
	Envoy          string            // path of Envoy; empty: PATH, then .tools of a checkout
	Admin          string            // as Options.Admin; empty: the socket admin.sock in StateDir
	DrainTime      time.Duration     // 0: DefaultDrainTime
	MaxConnections int64             // as Options.MaxConnections
	LogLevel       string            // Envoy's; empty: "info"
	Args           []string          // further arguments for Envoy
	Stdout         io.Writer         // Envoy's standard output: access logs
	Log            *zap.Logger
}

// Run runs a proxy until ctx ends, then drains it. The code is Envoy's exit code. When the control plane is away, a proxy that has a valid
// credential starts and runs all the same; Envoy keeps what it has, and keeps asking.
func Run(ctx context.Context, c Config) (code int, err error) {
	binary, err := envoy.Locate(ctx, c.Envoy)
	if err != nil {
		return 1, err
	}
	path, err := filepath.Abs(c.StateDir)
	if err != nil {
		return 1, fmt.Errorf("state directory: %w", err)
	}
	dir, err := state.Open(path)
	if err != nil {
		return 1, err
	}
	unlock, err := lock(ctx, dir)
	if err != nil {
		return 1, err
	}
	defer unlock()
	credential, err := c.credential(ctx, dir)
	if err != nil {
		return 1, err
	}
	s, err := c.prepare(dir, binary, credential)
	if err != nil {
		return 1, err
	}
	return c.run(ctx, s, newKeeper(c, dir, credential))
}

func (c Config) run(ctx context.Context, s *supervisor, k *keeper) (code int, err error) {
	ctx, stop := context.WithCancel(ctx)
	g, ctx := errgroup.WithContext(ctx)
	g.Go(func() error {
		defer stop() // without Envoy there is nothing to renew for
		var err error
		code, err = s.run(ctx)
		return err
	})
	g.Go(func() error {
		k.run(ctx)
		return nil
	})
	err = g.Wait()
	return code, err
}

// lock makes sure that no second companion runs on the same directory: two would rotate each other's credential away.
func lock(ctx context.Context, dir *state.Dir) (func(), error) {
	ctx, cancel := context.WithTimeout(ctx, lockTime)
	defer cancel()
	unlock, err := dir.Lock(ctx)
	if err != nil {
		return nil, fmt.Errorf("is another credence proxy running on %s? %w", dir.Path(), err)
	}
	return unlock, nil
}

// credential is the stored one while it is valid; otherwise the token buys one.
func (c Config) credential(ctx context.Context, dir *state.Dir) (attest.Credential, error) {
	stored, err := ReadSDS(dir)
	switch {
	case err == nil && stored.Workload != c.Workload:
		return attest.Credential{}, fmt.Errorf("%s belongs to %s: give every proxy a state directory of its own", dir.Path(), stored.Workload)
	case err == nil && time.Now().Before(stored.NotAfter()):
		return stored, nil
	case err == nil && c.Token == "":
		return attest.Credential{}, fmt.Errorf("the credential in %s ended at %s: a new join token is needed (credence token create --workload %s)",
			dir.Path(), stored.NotAfter().Format(time.RFC3339), c.Workload)
	case err != nil && !errors.Is(err, ErrNoCredential) && c.Token == "":
		return attest.Credential{}, err
	case c.Token == "":
		return attest.Credential{}, fmt.Errorf("a join token is needed (credence token create --workload %s): %w", c.Workload, err)
	}
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	fresh, err := attest.Join(ctx, c.XDSAddr, c.Token, c.Workload, c.ttl())
	if err != nil {
		return attest.Credential{}, err
	}
	return fresh, WriteSDS(dir, fresh)
}

func (c Config) ttl() time.Duration {
	if c.TTL == 0 {
		return DefaultTTL
	}
	return c.TTL
}

// prepare writes the bootstrap and says how Envoy is run with it.
func (c Config) prepare(dir *state.Dir, binary envoy.Binary, credential attest.Credential) (*supervisor, error) {
	instance, err := instanceName(dir)
	if err != nil {
		return nil, err
	}
	bootstrap, err := Bootstrap(Options{
		XDSAddr: c.XDSAddr, Workload: c.Workload, Instance: instance, Credential: credential, SDSDir: dir.Path(),
		Admin: c.adminIn(dir), MaxConnections: c.MaxConnections,
	})
	if err != nil {
		return nil, err
	}
	if err := dir.Write("bootstrap.json", bootstrap); err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	drain := c.DrainTime
	if drain == 0 {
		drain = DefaultDrainTime
	}
	level := c.LogLevel
	if level == "" {
		level = "info"
	}
	adminFile := filepath.Join(dir.Path(), "admin-address")
	c.Log.Info("envoy", zap.String("path", binary.Path), zap.Stringer("version", binary.Version), zap.String("state", dir.Path()))
	return &supervisor{
		path: binary.Path, stdout: c.Stdout, admin: newAdmin(adminFile), drainIn: drain, log: c.Log,
		args: append([]string{
			"--config-path", filepath.Join(dir.Path(), "bootstrap.json"), "--admin-address-path", adminFile, "--disable-hot-restart",
			"--drain-time-s", strconv.Itoa(max(1, int(drain.Seconds()))), "--drain-strategy", "immediate",
			"--log-level", level, "--log-format", logFormat, "--log-format-escaped",
		}, slices.Concat(quiet(level, c.Args), c.Args)...),
	}, nil
}

// quiet leaves out the 70 lines at the level info in which Envoy lists what it was built with, unless the user says otherwise.
func quiet(level string, args []string) []string {
	const flag = "--component-log-level"
	if level != "info" || slices.ContainsFunc(args, func(a string) bool { return strings.HasPrefix(a, flag) }) {
		return nil
	}
	return []string{flag, "main:warning"}
}

// adminIn is a socket that only this user can open; where its path would be longer than the kernel takes, a free port on loopback.
func (c Config) adminIn(dir *state.Dir) string {
	if c.Admin != "" {
		return c.Admin
	}
	if socket := filepath.Join(dir.Path(), "admin.sock"); len(socket) <= maxSocketPath {
		return "unix:" + socket
	}
	return ""
}

// instanceName tells this proxy from the other replicas of its workload; it stays the same over restarts.
func instanceName(dir *state.Dir) (string, error) {
	const file = "instance"
	have, err := dir.Read(file)
	if err == nil && len(have) > 0 {
		return string(have), nil
	}
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return "", fmt.Errorf("instance name: %w", err)
	}
	name := NewInstance()
	if err := dir.Write(file, []byte(name)); err != nil {
		return "", fmt.Errorf("instance name: %w", err)
	}
	return name, nil
}

// NewInstance is a fresh instance name: the name of this host, for people, and a random part.
func NewInstance() string {
	host, err := os.Hostname()
	if err != nil || host == "" || strings.ContainsAny(host, "/~") {
		host = "proxy"
	}
	return host + "-" + strings.ToLower(rand.Text()[:8])
}
