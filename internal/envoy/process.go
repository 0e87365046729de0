package envoy

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"runtime"
	"time"
)

// Command says how to run Envoy.
type Command struct {
	Path   string
	Args   []string
	Env    []string  // as of os/exec: nil hands on the environment of this process
	Stdout io.Writer // access logs to /dev/stdout; an *os.File is handed to Envoy as it is
	Stderr io.Writer // Envoy's own log; may be the same as Stdout
}

// Process is a running Envoy. It is killed by the kernel when this process dies, on systems that can do so.
type Process struct {
	process *os.Process
	done    chan struct{}
	state   *os.ProcessState
	err     error
}

// Start runs Envoy. Linux sends the death signal when the *thread* that started a child ends, not the process, so the child is started
// and waited for on an operating-system thread of its own that lives exactly as long as Envoy.
func Start(c Command) (*Process, error) {
	p := &Process{done: make(chan struct{})}
	started := make(chan error, 1)
	go p.run(c, started)
	if err := <-started; err != nil {
		return nil, fmt.Errorf("start %s: %w", c.Path, err)
	}
	return p, nil
}

func (p *Process) run(c Command, started chan<- error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	defer close(p.done)
	cmd := exec.Command(c.Path, c.Args...) //nolint:noctx // it ends by Signal and Kill, never by a context
	cmd.Env, cmd.Stdout, cmd.Stderr = c.Env, c.Stdout, c.Stderr
	cmd.SysProcAttr = dieWithParent()
	cmd.WaitDelay = 2 * time.Second // a grandchild that kept the pipe open must not hold Wait for ever
	if err := cmd.Start(); err != nil {
		started <- err
		return
	}
	p.process = cmd.Process
	started <- nil
	p.err = cmd.Wait()
	p.state = cmd.ProcessState
}

// PID is the process id.
func (p *Process) PID() int { return p.process.Pid }

// Done is closed when Envoy has ended and was reaped.
func (p *Process) Done() <-chan struct{} { return p.done }

// Wait blocks until Envoy has ended. The code is its exit code, or 128 plus the signal that ended it, as shells count.
func (p *Process) Wait() (code int, err error) {
	<-p.done
	if p.state == nil {
		return 1, p.err
	}
	return exitCode(p.state), nil
}

// Signal asks Envoy something: SIGTERM ends it at once, without draining. It is no error when Envoy has already ended.
func (p *Process) Signal(s os.Signal) error {
	select {
	case <-p.done:
		return nil
	default:
		if err := p.process.Signal(s); err != nil && !errors.Is(err, os.ErrProcessDone) {
			return fmt.Errorf("signal envoy: %w", err)
		}
		return nil
	}
}

// Kill ends Envoy and waits until it is gone.
func (p *Process) Kill() {
	_ = p.Signal(os.Kill)
	<-p.done
}
