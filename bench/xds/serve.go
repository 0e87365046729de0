package main

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"runtime"
	"runtime/debug"
	"strings"
	"syscall"
	"time"
)

// design is a server under measurement.
type design interface {
	serve(ctx context.Context, l net.Listener) error
	// editAll edits a policy that every workload has, editOne one of a single workload.
	editAll() error
	editOne() error
}

// answer is what the server says about itself after a command.
type answer struct {
	Addr       string        `json:"addr,omitempty"`
	CPU        time.Duration `json:"cpu"` // user and system, of the process
	RSS        int64         `json:"rss"` // bytes
	Heap       uint64        `json:"heap"`
	Stack      uint64        `json:"stack"`
	Goroutines int           `json:"goroutines"`
}

// serveDesign is the server process: commands come on stdin, answers go to stdout.
func serveDesign(ctx context.Context, name, dir string, workloads, resources int) error {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var d design
	var err error
	switch name {
	case "credence":
		d, err = newCredence(ctx, dir, workloads, resources)
	case "snapshotcache":
		d, err = newSnapshotCache(ctx, dir, workloads, resources)
	default:
		return fmt.Errorf("no design %q", name)
	}
	if err != nil {
		return err
	}
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", "127.0.0.1:0")
	if err != nil {
		return err
	}
	failed := make(chan error, 1)
	go func() { failed <- d.serve(ctx, l) }()
	out := json.NewEncoder(os.Stdout)
	if err := out.Encode(answer{Addr: l.Addr().String()}); err != nil {
		return err
	}
	in := bufio.NewScanner(os.Stdin)
	for in.Scan() {
		if err := obey(d, in.Text()); err != nil {
			return err
		}
		a, err := about()
		if err != nil {
			return err
		}
		if err := out.Encode(a); err != nil {
			return err
		}
	}
	cancel()
	return <-failed
}

func obey(d design, command string) error {
	switch command {
	case "all":
		return d.editAll()
	case "one":
		return d.editOne()
	case "collect":
		debug.FreeOSMemory()
	}
	return nil
}

func about() (answer, error) {
	var use syscall.Rusage
	if err := syscall.Getrusage(syscall.RUSAGE_SELF, &use); err != nil {
		return answer{}, err
	}
	a := answer{CPU: time.Duration(use.Utime.Nano() + use.Stime.Nano()), Goroutines: runtime.NumGoroutine()}
	var m runtime.MemStats
	runtime.ReadMemStats(&m)
	a.Heap, a.Stack = m.HeapAlloc, m.StackInuse
	b, err := os.ReadFile("/proc/self/status")
	if errors.Is(err, fs.ErrNotExist) {
		return a, nil // not Linux: no RSS
	}
	if err != nil {
		return a, err
	}
	for line := range strings.Lines(string(b)) {
		if strings.HasPrefix(line, "VmRSS:") {
			if _, err := fmt.Sscanf(line, "VmRSS: %d kB", &a.RSS); err != nil {
				return a, err
			}
		}
	}
	a.RSS <<= 10
	return a, nil
}
