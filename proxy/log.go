package proxy

import (
	"bytes"
	"strings"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// logFormat makes Envoy print level, logger and message in a form that logWriter reads; messages are escaped, so each is one line.
const logFormat = "%l|%n|%v"

// maxLine bounds a line that Envoy never ends.
const maxLine = 64 << 10

var levels = map[string]zapcore.Level{
	"trace": zapcore.DebugLevel, "debug": zapcore.DebugLevel, "info": zapcore.InfoLevel, "warning": zapcore.WarnLevel,
	"error": zapcore.ErrorLevel, "critical": zapcore.ErrorLevel,
}

// logWriter turns what Envoy prints into log entries. One goroutine writes to it.
type logWriter struct {
	log  *zap.Logger
	part []byte // a line that has not ended yet
}

// Write is an io.Writer's; it never fails, for Envoy would block.
func (w *logWriter) Write(p []byte) (int, error) {
	w.part = append(w.part, p...)
	for {
		line, rest, ended := bytes.Cut(w.part, []byte("\n"))
		if !ended {
			break
		}
		w.entry(string(line))
		w.part = rest
	}
	if len(w.part) > maxLine {
		w.flush()
	}
	return len(p), nil
}

func (w *logWriter) flush() {
	if len(w.part) > 0 {
		w.entry(string(w.part))
	}
	w.part = nil
}

func (w *logWriter) entry(line string) {
	fields := strings.SplitN(line, "|", 3)
	level, known := levels[fields[0]]
	if len(fields) < 3 || !known {
		w.log.Warn(line) // not from Envoy's logger: a crash, or the dynamic linker
		return
	}
	if e := w.log.Check(level, fields[2]); e != nil {
		e.Write(zap.String("component", fields[1]))
	}
}
