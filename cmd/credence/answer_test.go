package main

import (
	"context"
	"io"
	"net"
	"net/http"
	"strings"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
)

// answer SOCKET PATH TEXT waits until the admin API on a Unix socket answers a path with 200 and a text in it.
func answer(ts *testscript.TestScript, _ bool, args []string) {
	socket := ts.MkAbs(args[0])
	c := http.Client{Timeout: 5 * time.Second, Transport: &http.Transport{
		DisableKeepAlives: true,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
			return new(net.Dialer).DialContext(ctx, "unix", socket)
		},
	}}
	var last string
	tick := time.NewTicker(20 * time.Millisecond)
	defer tick.Stop()
	for end := time.Now().Add(30 * time.Second); time.Now().Before(end); <-tick.C {
		resp, err := c.Get("http://localhost" + args[1])
		if err != nil {
			last = err.Error()
			continue
		}
		body, err := io.ReadAll(resp.Body)
		_ = resp.Body.Close()
		if last = string(body); err == nil && resp.StatusCode == http.StatusOK && strings.Contains(last, args[2]) {
			return
		}
	}
	ts.Fatalf("%s did not say %q: %s", args[1], args[2], last)
}
