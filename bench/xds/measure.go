package main

import (
	"bufio"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"time"
)

// settle is how long the server has for what follows the last acknowledgement, before its CPU time is read.
const settle = 300 * time.Millisecond

// child is the server process.
type child struct {
	cmd  *exec.Cmd
	in   io.WriteCloser
	out  *json.Decoder
	addr string
}

func spawn(ctx context.Context, design, dir string, workloads, resources int) (*child, error) {
	self, err := os.Executable()
	if err != nil {
		return nil, err
	}
	c := &child{cmd: exec.CommandContext(ctx, self, "-serve", design, "-dir", dir, "-workloads", strconv.Itoa(workloads), "-held", strconv.Itoa(resources))}
	c.cmd.Stderr = os.Stderr
	c.cmd.Env = append(os.Environ(), "BENCH_SERVE=1")
	if c.in, err = c.cmd.StdinPipe(); err != nil {
		return nil, err
	}
	out, err := c.cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	if err := c.cmd.Start(); err != nil {
		return nil, err
	}
	c.out = json.NewDecoder(bufio.NewReader(out))
	var a answer
	if err := c.out.Decode(&a); err != nil {
		return nil, fmt.Errorf("the server process says nothing: %w", err)
	}
	c.addr = a.Addr
	return c, nil
}

func (c *child) ask(command string) (answer, error) {
	var a answer
	if _, err := fmt.Fprintln(c.in, command); err != nil {
		return a, err
	}
	return a, c.out.Decode(&a)
}

func (c *child) stop() error {
	if err := c.in.Close(); err != nil {
		return err
	}
	return c.cmd.Wait()
}

// row is what was measured of one design with one number of resources.
type row struct {
	design             string
	resources          int
	handshakes, inStep time.Duration // wall time: connections only; connections and streams in step after a restart
	handshakeCPU       time.Duration
	inStepCPU          time.Duration
	memory, heap       float64 // KiB a proxy
	goroutines         float64
	all, one           edit
	firstBytes         int64
}

// edit is the cost of one edit, by median.
type edit struct {
	wall, cpu time.Duration
	bytes     int64
	touched   int
}

func (e edit) perProxy() time.Duration { return e.cpu / time.Duration(max(e.touched, 1)) }

func (p plan) measure(ctx context.Context) error {
	dir, err := os.MkdirTemp("", "credence-bench-")
	if err != nil {
		return err
	}
	defer func() { _ = os.RemoveAll(dir) }()
	a, err := newAuthority()
	if err != nil {
		return err
	}
	if err := a.write(dir); err != nil {
		return err
	}
	var rows []row
	for _, r := range p.resources {
		for _, d := range p.designs {
			one, err := p.measureDesign(ctx, a, dir, d, r)
			if err != nil {
				report(os.Stdout, p, rows)
				return fmt.Errorf("%s with %d resources: %w", d, r, err)
			}
			rows = append(rows, one)
			fmt.Fprintf(os.Stderr, "measured %s with %d resources\n", d, r)
		}
	}
	report(os.Stdout, p, rows)
	return nil
}

func (p plan) measureDesign(ctx context.Context, a *authority, dir, design string, resources int) (row, error) {
	out := row{design: design, resources: resources}
	clients, err := a.clients(p.workloads)
	if err != nil {
		return out, err
	}
	c, err := spawn(ctx, design, dir, p.workloads, resources)
	if err != nil {
		return out, err
	}
	before, err := c.ask("collect")
	if err != nil {
		return out, err
	}
	start := time.Now()
	f, err := connect(ctx, c.addr, p.proxies, clients)
	if err != nil {
		return out, err
	}
	out.handshakes = time.Since(start)
	shaken, err := c.ask("stats")
	if err != nil {
		return out, err
	}
	out.handshakeCPU = shaken.CPU - before.CPU
	if err := f.subscribe(ctx, p.workloads, nil); err != nil {
		return out, err
	}
	out.firstBytes = f.bytes.Load() / int64(p.proxies)
	<-time.After(settle)
	held, err := c.ask("collect")
	if err != nil {
		return out, err
	}
	out.memory = float64(held.RSS-before.RSS) / 1024 / float64(p.proxies)
	out.heap = (float64(held.Heap) - float64(before.Heap)) / 1024 / float64(p.proxies)
	out.goroutines = float64(held.Goroutines-before.Goroutines) / float64(p.proxies)
	if out.all, err = p.edits(ctx, c, f, "all", p.proxies); err != nil {
		return out, err
	}
	if out.one, err = p.edits(ctx, c, f, "one", (p.proxies+p.workloads-1)/p.workloads); err != nil {
		return out, err
	}
	known := make([]map[string]string, p.workloads)
	for w := range known {
		if known[w], err = versions(ctx, c.addr, p.workloads, w, clients[w]); err != nil {
			return out, err
		}
	}
	f.close()
	if err := c.stop(); err != nil {
		return out, err
	}
	return p.reconnect(ctx, out, dir, known, a)
}

// edits makes edits one after the other.
func (p plan) edits(ctx context.Context, c *child, f *fleet, command string, touched int) (edit, error) {
	var walls, cpus []time.Duration
	e := edit{touched: touched}
	for range p.changes {
		before, err := c.ask("stats")
		if err != nil {
			return e, err
		}
		acked, bytes, start := f.acked.Load(), f.bytes.Load(), time.Now()
		if _, err := c.ask(command); err != nil {
			return e, err
		}
		if err := f.await(ctx, acked+int64(touched)); err != nil {
			return e, err
		}
		walls = append(walls, time.Since(start))
		<-time.After(settle)
		after, err := c.ask("stats")
		if err != nil {
			return e, err
		}
		cpus = append(cpus, after.CPU-before.CPU)
		if n := f.acked.Load() - acked; n != int64(touched) {
			return e, fmt.Errorf("%d responses for an edit that touches %d proxies", n, touched)
		}
		e.bytes = (f.bytes.Load() - bytes) / int64(touched)
	}
	e.wall, e.cpu = median(walls), median(cpus)
	return e, nil
}

// reconnect is the fleet coming back, with what it holds, to a server that has started anew.
func (p plan) reconnect(ctx context.Context, out row, dir string, known []map[string]string, a *authority) (row, error) {
	clients, err := a.clients(p.workloads)
	if err != nil {
		return out, err
	}
	c, err := spawn(ctx, out.design, dir, p.workloads, out.resources)
	if err != nil {
		return out, err
	}
	before, err := c.ask("collect")
	if err != nil {
		return out, err
	}
	start := time.Now()
	f, err := connect(ctx, c.addr, p.proxies, clients)
	if err != nil {
		return out, err
	}
	if err := f.subscribe(ctx, p.workloads, func(w int) map[string]string { return known[w] }); err != nil {
		return out, err
	}
	out.inStep = time.Since(start)
	after, err := c.ask("stats")
	if err != nil {
		return out, err
	}
	out.inStepCPU = after.CPU - before.CPU
	f.close()
	return out, c.stop()
}

func median(list []time.Duration) time.Duration {
	slices.Sort(list)
	return list[len(list)/2]
}
