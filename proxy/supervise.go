package proxy

import (
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"net/http"
	"os"
	"slices"
	"strings"
	"syscall"
	"time"

	"go.uber.org/zap"

	"github.com/credence-mesh/credence/internal/envoy"
)

const (
	firstRestart = 200 * time.Millisecond
	lastRestart  = 30 * time.Second
	// An Envoy that lived this long has not been crashing: the next restart is quick again.
	settled = time.Minute
	// quitTime is how long Envoy may take to end after it was asked to.
	quitTime = 5 * time.Second
	// drainPoll is how often a draining Envoy is asked whether connections are left.
	drainPoll = 100 * time.Millisecond
	// readyPoll is how often a starting Envoy is asked whether it serves.
	readyPoll = 50 * time.Millisecond
)

// supervisor keeps one Envoy running.
type supervisor struct {
	path    string
	args    []string
	stdout  io.Writer
	admin   *admin
	drainIn time.Duration
	log     *zap.Logger
}

// run starts Envoy, starts it again when it crashes, and drains it when ctx ends. The code is what the last Envoy exited with.
func (s *supervisor) run(ctx context.Context) (int, error) {
	pause := firstRestart
	for once := false; ; once = true {
		began := time.Now()
		code, again, err := s.one(ctx, once)
		if err != nil || !again {
			return code, err
		}
		if time.Since(began) > settled {
			pause = firstRestart
		}
		wait := pause/2 + rand.N(pause/2+1)
		s.log.Warn("envoy crashed, it is started again", zap.Int("code", code), zap.Duration("in", wait))
		pause = min(2*pause, lastRestart)
		select {
		case <-time.After(wait):
		case <-ctx.Done():
			return code, nil
		}
	}
}

// one is the life of one Envoy. A first one that does not even accept its bootstrap is an error: starting it again would not help.
func (s *supervisor) one(ctx context.Context, once bool) (code int, again bool, err error) {
	if err := s.admin.forget(); err != nil {
		return 1, false, fmt.Errorf("envoy's admin address: %w", err)
	}
	lines := &logWriter{log: s.log.Named("envoy")}
	p, err := envoy.Start(envoy.Command{Path: s.path, Args: s.args, Env: environment(os.Environ()), Stdout: s.stdout, Stderr: lines})
	if err != nil {
		return 1, false, err
	}
	s.log.Info("envoy started", zap.Int("pid", p.PID()))
	announced := make(chan struct{})
	go func() {
		defer close(announced)
		s.announce(ctx, p)
	}()
	defer func() { <-announced }()
	select {
	case <-p.Done():
	case <-ctx.Done():
		s.drain(context.WithoutCancel(ctx), p)
	}
	code, err = p.Wait()
	lines.flush()
	switch {
	case err != nil:
		return code, false, fmt.Errorf("envoy: %w", err)
	case ctx.Err() != nil, code == 0:
		return code, false, nil
	case !once && !s.admin.opened():
		return code, false, fmt.Errorf("envoy ended with code %d before it was up; its last lines above say why", code)
	}
	return code, true, nil
}

// environment is what Envoy may see of ours: not our own settings, for one of them may be a join token, and Envoy's formatters can print
// any variable into a log or a header.
func environment(ours []string) []string {
	return slices.DeleteFunc(slices.Clone(ours), func(v string) bool { return strings.HasPrefix(v, "CREDENCE_") })
}

// announce says when Envoy has its first complete configuration and listens.
func (s *supervisor) announce(ctx context.Context, p *envoy.Process) {
	tick := time.NewTicker(readyPoll)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-p.Done():
			return
		case <-ctx.Done():
			return
		}
		if _, err := s.admin.do(ctx, http.MethodGet, "/ready"); err == nil {
			s.log.Info("envoy is ready")
			return
		}
	}
}

// drain lets what is under way finish: readiness fails, so that load balancers look elsewhere; responses ask clients to close and new
// connections find no listener once the drain time is over. Envoy ends when no connection is left, at the latest after the drain time.
func (s *supervisor) drain(ctx context.Context, p *envoy.Process) {
	s.log.Info("draining envoy", zap.Duration("at_most", s.drainIn))
	ctx, cancel := context.WithTimeout(ctx, s.drainIn)
	defer cancel()
	for _, path := range []string{"/healthcheck/fail", "/drain_listeners?graceful"} {
		if _, err := s.admin.do(ctx, http.MethodPost, path); err != nil {
			s.log.Warn("envoy cannot be drained", zap.Error(err))
			s.quit(p)
			return
		}
	}
	tick := time.NewTicker(drainPoll)
	defer tick.Stop()
	for {
		left, err := s.admin.connections(ctx)
		if err == nil && left == 0 {
			break
		}
		select {
		case <-tick.C:
			continue
		case <-p.Done():
		case <-ctx.Done():
			s.log.Info("the drain time is over", zap.Int("connections", left))
		}
		break
	}
	s.quit(p)
}

// quit ends Envoy, by force where it does not listen.
func (s *supervisor) quit(p *envoy.Process) {
	if err := p.Signal(syscall.SIGTERM); err != nil {
		s.log.Warn("envoy", zap.Error(err))
	}
	select {
	case <-p.Done():
	case <-time.After(quitTime):
		s.log.Warn("envoy does not end, it is killed")
		p.Kill()
	}
}
