package logs

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"go.uber.org/zap/zapcore"
)

func TestLevelsChangeWhileRunning(t *testing.T) {
	t.Parallel()
	path := filepath.Join(t.TempDir(), "log")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := New(f, zapcore.InfoLevel)
	xds, ca := l.For("xds"), l.For("ca")
	xds.Debug("one")
	if err := l.Set("xds", "debug"); err != nil {
		t.Fatal(err)
	}
	xds.Debug("two")
	ca.Debug("three")
	if err := l.Set("", "error"); err != nil {
		t.Fatal(err)
	}
	xds.Info("four")
	got, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for word, want := range map[string]bool{"one": false, "two": true, "three": false, "four": false} {
		if strings.Contains(string(got), word) != want {
			t.Errorf("line %q written: %v, want %v\n%s", word, !want, want, got)
		}
	}
}

func TestSetNamesWhatExists(t *testing.T) {
	t.Parallel()
	l := New(os.Stderr, zapcore.InfoLevel)
	l.For("xds")
	l.For("ca")
	err := l.Set("xsd", "debug")
	if err == nil || !strings.Contains(err.Error(), "ca, xds") {
		t.Errorf("error %v does not name the components", err)
	}
	if err := l.Set("xds", "loud"); err == nil || !strings.Contains(err.Error(), "debug, info") {
		t.Errorf("error %v does not name the levels", err)
	}
}
