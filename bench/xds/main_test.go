package main

import (
	"os"
	"testing"
)

// TestMain lets the test binary be the server process, as the program itself is.
func TestMain(m *testing.M) {
	if os.Getenv("BENCH_SERVE") != "" {
		main()
		return
	}
	os.Exit(m.Run())
}

// TestSmoke runs the whole measurement small: it fails unless every proxy of both designs gets every edit exactly once.
func TestSmoke(t *testing.T) {
	t.Parallel()
	if err := run(t.Context(), []string{"-n", "12", "-workloads", "3", "-r", "5", "-changes", "2"}); err != nil {
		t.Fatal(err)
	}
}
