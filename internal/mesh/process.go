// Package mesh runs a whole mesh as a user would, from the credence binary: the control plane and a proxy a workload, each a process of its own.
// The demo and the end-to-end tests stand on it.
package mesh

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"strings"
	"sync"
	"syscall"
	"time"
)

// Process is a child with its output kept.
type Process struct {
	Name string
	cmd  *exec.Cmd
	done chan struct{}
	err  error // of Wait; valid once done is closed

	mu    sync.Mutex
	lines []string
	watch []lineWatch
}

type lineWatch struct {
	match func(string) bool
	hit   chan string
}

// keptLines bounds what is remembered of a process.
const keptLines = 5000

// start runs a command. Every line that it prints is kept, and copied to log where that is not nil.
func start(name string, log io.Writer, path string, args ...string) (*Process, error) {
	p := &Process{Name: name, done: make(chan struct{}), cmd: exec.Command(path, args...)} //nolint:noctx // ended by Stop, gracefully first
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	p.cmd.Stdout, p.cmd.Stderr = w, w
	p.cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("%s: %w", name, err), r.Close(), w.Close())
	}
	if err := w.Close(); err != nil {
		return nil, err
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		p.read(r, log)
	}()
	go func() {
		p.err = p.cmd.Wait()
		// A grandchild may hold the pipe open: what the process itself said is there.
		select {
		case <-read:
		case <-time.After(time.Second):
		}
		close(p.done)
	}()
	return p, nil
}

func (p *Process) read(r io.Reader, log io.Writer) {
	sc := bufio.NewScanner(r)
	sc.Buffer(make([]byte, 64<<10), 4<<20)
	for sc.Scan() {
		line := sc.Text()
		if log != nil {
			fmt.Fprintf(log, "%s | %s\n", p.Name, line)
		}
		p.mu.Lock()
		if len(p.lines) < keptLines {
			p.lines = append(p.lines, line)
		}
		for i := 0; i < len(p.watch); i++ {
			if p.watch[i].match(line) {
				p.watch[i].hit <- line
				p.watch = append(p.watch[:i], p.watch[i+1:]...)
				i--
			}
		}
		p.mu.Unlock()
	}
}

// Line waits until the process has printed, or prints, a line that contains text.
func (p *Process) Line(ctx context.Context, text string) (string, error) {
	match := func(l string) bool { return strings.Contains(l, text) }
	hit := make(chan string, 1)
	p.mu.Lock()
	for _, l := range p.lines {
		if match(l) {
			p.mu.Unlock()
			return l, nil
		}
	}
	p.watch = append(p.watch, lineWatch{match, hit})
	p.mu.Unlock()
	select {
	case l := <-hit:
		return l, nil
	case <-p.done:
		return "", fmt.Errorf("%s ended (%v) before it said %q:\n%s", p.Name, p.err, text, p.Output()) //nolint:errorlint // nil where it ended well
	case <-ctx.Done():
		return "", fmt.Errorf("%s did not say %q: %w:\n%s", p.Name, text, ctx.Err(), p.Output())
	}
}

// Output is what the process has printed.
func (p *Process) Output() string {
	p.mu.Lock()
	defer p.mu.Unlock()
	var b bytes.Buffer
	for _, l := range p.lines {
		b.WriteString(l)
		b.WriteByte('\n')
	}
	return b.String()
}

// PID of the process.
func (p *Process) PID() int { return p.cmd.Process.Pid }

// Done is closed when the process has ended.
func (p *Process) Done() <-chan struct{} { return p.done }

// Stop asks the process to end, and ends its whole group when it has not done so within the grace.
func (p *Process) Stop(grace time.Duration) {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	select {
	case <-p.done:
	case <-time.After(grace):
	}
	p.Kill()
}

// Kill ends the process and its children at once, as a crash would.
func (p *Process) Kill() {
	_ = syscall.Kill(-p.cmd.Process.Pid, syscall.SIGKILL)
	<-p.done
}
