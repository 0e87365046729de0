// Package logs makes the loggers of the process: one a component, each with a level that can be changed while it runs.
package logs

import (
	"fmt"
	"maps"
	"os"
	"slices"
	"strings"
	"sync"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/term"
)

// Loggers hands out a logger for each component. It is safe for concurrent use.
type Loggers struct {
	sink    zapcore.WriteSyncer
	encoder zapcore.Encoder

	mu     sync.Mutex
	base   zapcore.Level
	levels map[string]zap.AtomicLevel
}

// New writes to file: lines for people where it is a terminal, JSON otherwise.
func New(file *os.File, base zapcore.Level) *Loggers {
	cfg := zap.NewProductionEncoderConfig()
	cfg.EncodeTime = zapcore.RFC3339TimeEncoder
	cfg.TimeKey = "time"
	enc := zapcore.NewJSONEncoder(cfg)
	if term.IsTerminal(int(file.Fd())) {
		cfg.EncodeLevel = zapcore.CapitalColorLevelEncoder
		cfg.EncodeTime = zapcore.TimeEncoderOfLayout("15:04:05.000")
		enc = zapcore.NewConsoleEncoder(cfg)
	}
	return &Loggers{sink: zapcore.Lock(file), encoder: enc, base: base, levels: map[string]zap.AtomicLevel{}}
}

// For is the logger of a component.
func (l *Loggers) For(component string) *zap.Logger {
	return zap.New(zapcore.NewCore(l.encoder, l.sink, l.level(component))).Named(component)
}

func (l *Loggers) level(component string) zap.AtomicLevel {
	l.mu.Lock()
	defer l.mu.Unlock()
	lvl, ok := l.levels[component]
	if !ok {
		lvl = zap.NewAtomicLevelAt(l.base)
		l.levels[component] = lvl
	}
	return lvl
}

// Set changes the level of one component, or of all of them where component is empty. An unknown component is an error that names those that exist.
func (l *Loggers) Set(component, level string) error {
	lvl, err := zapcore.ParseLevel(level)
	if err != nil {
		return fmt.Errorf("log level %q: use debug, info, warn or error", level)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if component == "" {
		l.base = lvl
		for _, a := range l.levels {
			a.SetLevel(lvl)
		}
		return nil
	}
	a, ok := l.levels[component]
	if !ok {
		return fmt.Errorf("no component %q: use one of %s", component, strings.Join(slices.Sorted(maps.Keys(l.levels)), ", "))
	}
	a.SetLevel(lvl)
	return nil
}

// Levels is the level of each component.
func (l *Loggers) Levels() map[string]string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := make(map[string]string, len(l.levels))
	for c, a := range l.levels {
		out[c] = a.String()
	}
	return out
}
