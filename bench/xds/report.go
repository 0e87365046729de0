package main

import (
	"fmt"
	"io"
	"time"
)

// report prints the table, and of each design the ratio to the first one.
func report(w io.Writer, p plan, rows []row) {
	say := func(format string, args ...any) { _, _ = fmt.Fprintf(w, format, args...) }
	say("%d delta proxies of %d workloads, a TLS connection each; the median of %d edits\n\n", p.proxies, p.workloads, p.changes)
	say("| design | resources | CPU a touched proxy (all touched) | ratio | change to last ACK | bytes a proxy | edit of one workload: CPU in all | change to last ACK | memory a proxy | heap | goroutines |\n")
	say("|---|---|---|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		say("| %s | %d | %s | %s | %s | %d | %s | %s | %.0f KiB | %.0f KiB | %.1f |\n", r.design, r.resources, micro(r.all.perProxy()),
			ratio(rows, r, func(r row) float64 { return float64(r.all.cpu) }), milli(r.all.wall), r.all.bytes, milli(r.one.cpu), milli(r.one.wall), r.memory, r.heap, r.goroutines)
	}
	say("\n| design | resources | handshakes alone | server CPU | all in step after a restart | server CPU | in step / handshakes (CPU) | bytes of a first response |\n|---|---|---|---|---|---|---|---|\n")
	for _, r := range rows {
		say("| %s | %d | %s | %s | %s | %s | %.2f | %d |\n", r.design, r.resources, milli(r.handshakes), milli(r.handshakeCPU), milli(r.inStep), milli(r.inStepCPU),
			float64(r.inStepCPU)/float64(r.handshakeCPU), r.firstBytes)
	}
}

// ratio is how many times as much a design takes as the first design with as many resources.
func ratio(rows []row, r row, of func(row) float64) string {
	for _, first := range rows {
		if first.resources == r.resources {
			return fmt.Sprintf("%.2f", of(r)/of(first))
		}
	}
	return ""
}

func micro(d time.Duration) string { return fmt.Sprintf("%.1f µs", float64(d)/1e3) }

func milli(d time.Duration) string { return fmt.Sprintf("%.1f ms", float64(d)/1e6) }
