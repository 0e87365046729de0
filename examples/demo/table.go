package demo

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// row is one thing that is tried: a real request, or several.
type row struct {
	what string
	want string
	try  func(*world) (string, error)
}

// table prints rows as they are done.
type table struct {
	out   io.Writer
	color bool
	wide  int
	bad   int
	count int
}

func newTable(out io.Writer, color bool, rows []row) *table {
	t := &table{out: out, color: color, wide: len("what was tried")}
	for _, r := range rows {
		t.wide = max(t.wide, len(r.what))
	}
	fmt.Fprintf(out, "\n%-*s  %-22s  %-22s\n%s\n", t.wide, "what was tried", "expected", "seen", strings.Repeat("─", t.wide+54))
	return t
}

func (t *table) add(r row, got string, err error, took time.Duration) {
	t.count++
	verdict, code := "ok", "32"
	if err != nil {
		got = "error: " + err.Error()
	}
	if got != r.want {
		t.bad++
		verdict, code = "WRONG", "31"
	}
	if t.color {
		verdict = "\x1b[" + code + "m" + verdict + "\x1b[0m"
	}
	note := ""
	if took > 2*time.Second {
		note = fmt.Sprintf("  (%.0f s)", took.Seconds())
	}
	fmt.Fprintf(t.out, "%-*s  %-22s  %-22s  %s%s\n", t.wide, r.what, r.want, got, verdict, note)
}
