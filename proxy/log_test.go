package proxy

import (
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestLogWriter(t *testing.T) {
	t.Parallel()
	core, logs := observer.New(zap.DebugLevel)
	w := &logWriter{log: zap.New(core)}
	for _, part := range []string{"info|main|starting", " up\nwarn", "ing|config|a|b\n", "critical|main|dead\ntrace|x|y\nno format at all\n\n", "cut off"} {
		if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
			t.Fatal(n, err)
		}
	}
	w.flush()
	var got []string
	for _, e := range logs.All() {
		c, _ := e.ContextMap()["component"].(string)
		got = append(got, e.Level.String()+" "+c+" "+e.Message)
	}
	want := "info main starting up\nwarn config a|b\nerror main dead\ndebug x y\nwarn  no format at all\nwarn  \nwarn  cut off"
	if s := strings.Join(got, "\n"); s != want {
		t.Errorf("got:\n%s\nwant:\n%s", s, want)
	}
}

func FuzzLogWriter(f *testing.F) {
	f.Add("info|main|hello\n", 3)
	f.Add("||||\n\n|", 1)
	f.Fuzz(func(t *testing.T, text string, cut int) {
		core, logs := observer.New(zap.DebugLevel)
		w := &logWriter{log: zap.New(core)}
		cut = min(max(cut, 0), len(text))
		for _, part := range []string{text[:cut], text[cut:]} {
			if n, err := w.Write([]byte(part)); n != len(part) || err != nil {
				t.Fatal(n, err)
			}
		}
		w.flush()
		if lines := strings.Count(strings.TrimSuffix(text, "\n"), "\n") + 1; text != "" && len(text) < maxLine && logs.Len() != lines {
			t.Errorf("%d lines became %d entries", lines, logs.Len())
		}
	})
}
