// Command xds measures what it costs to serve configuration: one policy edit for a fleet of simulated proxies, each on its own connection
// over mutual TLS, by Credence and by go-control-plane's SnapshotCache with the same resources, in the same run.
//
//	go run ./bench/xds -n 1000 -r 10,100,1000
//
// The server runs in a process of its own, so that its CPU time (getrusage) has nothing of the simulated fleet in it.
package main

import (
	"context"
	"flag"
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"strings"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()
	if err := run(ctx, os.Args[1:]); err != nil {
		fmt.Fprintln(os.Stderr, "bench:", err)
		os.Exit(1)
	}
}

// plan is what to measure.
type plan struct {
	proxies, workloads, changes int
	resources                   []int
	designs                     []string
}

func run(ctx context.Context, args []string) error {
	fs := flag.NewFlagSet("bench", flag.ContinueOnError)
	p := plan{}
	var resources, designs, serve, dir string
	var held int
	fs.IntVar(&p.proxies, "n", 1000, "simulated proxies")
	fs.IntVar(&p.workloads, "workloads", 100, "workloads that the proxies belong to")
	fs.IntVar(&p.changes, "changes", 10, "edits of each kind; the median is reported")
	fs.StringVar(&resources, "r", "10,100,1000", "resources of each proxy")
	fs.StringVar(&designs, "designs", "credence,snapshotcache", "what to measure")
	fs.StringVar(&serve, "serve", "", "internal: be the server of this design")
	fs.StringVar(&dir, "dir", "", "internal: where the certificates are")
	fs.IntVar(&held, "held", 0, "internal: resources of each proxy")
	if err := fs.Parse(args); err != nil {
		return err
	}
	if serve != "" {
		return serveDesign(ctx, serve, dir, p.workloads, held)
	}
	for _, s := range strings.Split(resources, ",") {
		n, err := strconv.Atoi(s)
		if err != nil || n < 1 {
			return fmt.Errorf("-r: %q is not a number of resources", s)
		}
		p.resources = append(p.resources, n)
	}
	p.designs = strings.Split(designs, ",")
	return p.measure(ctx)
}
