package mesh

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// Options say what mesh is run.
type Options struct {
	Binary   string    // the credence binary
	Dir      string    // where state and proxies live; the caller removes it
	Config   string    // the directory of resources
	Settings string    // credence.yaml; empty: none
	Envoy    string    // the Envoy binary; empty: credence proxy finds it
	Log      io.Writer // gets every line of every process; nil: none
}

// Mesh is a control plane and its proxies.
type Mesh struct {
	opts  Options
	XDS   string // host:port
	Admin string // host:port

	mu      sync.Mutex
	serve   *Process
	proxies map[string]*Process
}

// Start runs the control plane and waits until it is ready.
func Start(ctx context.Context, o Options) (*Mesh, error) {
	ports, err := FreePorts(2)
	if err != nil {
		return nil, err
	}
	m := &Mesh{opts: o, XDS: fmt.Sprintf("127.0.0.1:%d", ports[0]), Admin: fmt.Sprintf("127.0.0.1:%d", ports[1]), proxies: map[string]*Process{}}
	return m, m.StartServer(ctx)
}

// StartServer runs the control plane on the same addresses and state as before.
func (m *Mesh) StartServer(ctx context.Context) error {
	args := []string{"serve", "--config", m.opts.Config, "--state", m.State(), "--xds-addr", m.XDS, "--admin-addr", m.Admin}
	if m.opts.Settings != "" {
		args = append(args, "--file", m.opts.Settings)
	}
	p, err := start("serve", m.opts.Log, m.opts.Binary, args...)
	if err != nil {
		return err
	}
	m.mu.Lock()
	m.serve = p
	m.mu.Unlock()
	_, err = p.Line(ctx, "credence is ready")
	return err
}

// Server is the process of the control plane.
func (m *Mesh) Server() *Process {
	m.mu.Lock()
	defer m.mu.Unlock()
	return m.serve
}

// State is the state directory of the control plane.
func (m *Mesh) State() string { return filepath.Join(m.opts.Dir, "state") }

// Run runs a credence command to its end and gives what it printed on standard output.
func (m *Mesh) Run(ctx context.Context, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, m.opts.Binary, args...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Run(); err != nil {
		return out.String(), fmt.Errorf("credence %s: %w: %s", strings.Join(args[:min(2, len(args))], " "), err, strings.TrimSpace(errs.String()))
	}
	return out.String(), nil
}

// Token makes a join token for a workload "namespace/name".
func (m *Mesh) Token(ctx context.Context, workload string) (string, error) {
	out, err := m.Run(ctx, "token", "create", "--state", m.State(), "--workload", workload)
	return strings.TrimSpace(out), err
}

// StartProxy joins a workload and runs an Envoy for it; it returns when Envoy is ready.
func (m *Mesh) StartProxy(ctx context.Context, workload string, extra ...string) (*Process, error) {
	token, err := m.Token(ctx, workload)
	if err != nil {
		return nil, err
	}
	dir := filepath.Join(m.opts.Dir, "proxies", strings.ReplaceAll(workload, "/", "_"))
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	args := append([]string{"proxy", "--xds-addr", m.XDS, "--workload", workload, "--token", token, "--state", dir}, extra...)
	if m.opts.Envoy != "" {
		args = append(args, "--envoy", m.opts.Envoy)
	}
	p, err := start(workload, m.opts.Log, m.opts.Binary, args...)
	if err != nil {
		return nil, err
	}
	m.mu.Lock()
	m.proxies[workload] = p
	m.mu.Unlock()
	_, err = p.Line(ctx, "envoy is ready")
	return p, err
}

// Get asks the admin API and decodes its JSON answer.
func (m *Mesh) Get(ctx context.Context, path string, into any) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+m.Admin+path, nil)
	if err != nil {
		return err
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return err
	}
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s: %s", path, resp.Status, bytes.TrimSpace(body))
	}
	return json.Unmarshal(body, into)
}

// Stop ends everything: the proxies first, then the control plane.
func (m *Mesh) Stop() {
	m.mu.Lock()
	all := make([]*Process, 0, len(m.proxies)+1)
	for _, p := range m.proxies {
		all = append(all, p)
	}
	serve := m.serve
	m.mu.Unlock()
	var wg sync.WaitGroup
	for _, p := range all {
		wg.Go(func() { p.Stop(5 * time.Second) })
	}
	wg.Wait()
	if serve != nil {
		serve.Stop(5 * time.Second)
	}
}

// Until asks again and again until ok says yes, without a fixed sleep longer than the pause between two questions.
func Until(ctx context.Context, what string, ok func() (bool, error)) error {
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	var last error
	for {
		good, err := ok()
		if good {
			return nil
		}
		if err != nil {
			last = err
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return errors.Join(fmt.Errorf("waiting for %s: %w", what, ctx.Err()), last)
		}
	}
}

// FreePorts finds ports on 127.0.0.1 that nobody listens on.
func FreePorts(n int) ([]int, error) {
	ports := make([]int, n)
	for i := range ports {
		l, err := new(net.ListenConfig).Listen(context.Background(), "tcp", "127.0.0.1:0")
		if err != nil {
			return nil, err
		}
		defer l.Close()
		ports[i] = l.Addr().(*net.TCPAddr).Port
	}
	return ports, nil
}
