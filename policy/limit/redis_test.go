package limit

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strconv"
	"strings"
	"sync"
	"testing"

	"github.com/prometheus/client_golang/prometheus"
)

func newRegistry() *prometheus.Registry { return prometheus.NewRegistry() }

// startRedis serves as much of Redis as envoyproxy/ratelimit asks for, and returns its address.
func startRedis(t *testing.T) string {
	t.Helper()
	l, err := (&net.ListenConfig{}).Listen(context.Background(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	var mu sync.Mutex
	var wg sync.WaitGroup
	counts, conns := map[string]uint64{}, map[net.Conn]bool{}
	wg.Go(func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			mu.Lock()
			conns[c] = true
			mu.Unlock()
			wg.Go(func() {
				defer func() { _ = c.Close() }()
				for r := bufio.NewReader(c); ; {
					args, err := readCommand(r)
					if err != nil {
						return
					}
					mu.Lock()
					reply := "+OK\r\n"
					switch strings.ToUpper(args[0]) {
					case "PING":
						reply = "+PONG\r\n"
					case "INCRBY":
						n, _ := strconv.ParseUint(args[2], 10, 64)
						counts[args[1]] += n
						reply = fmt.Sprintf(":%d\r\n", counts[args[1]])
					case "EXPIRE":
						reply = ":1\r\n"
					}
					mu.Unlock()
					if _, err := io.WriteString(c, reply); err != nil {
						return
					}
				}
			})
		}
	})
	t.Cleanup(func() {
		_ = l.Close()
		mu.Lock()
		for c := range conns {
			_ = c.Close()
		}
		mu.Unlock()
		wg.Wait()
	})
	return l.Addr().String()
}

func readCommand(r *bufio.Reader) ([]string, error) {
	n, err := readNumber(r)
	if err != nil || n < 1 {
		return nil, fmt.Errorf("command: %d %w", n, err)
	}
	args := make([]string, n)
	for i := range args {
		size, err := readNumber(r)
		if err != nil {
			return nil, err
		}
		b := make([]byte, size+2)
		if _, err := io.ReadFull(r, b); err != nil {
			return nil, err
		}
		args[i] = string(b[:size])
	}
	return args, nil
}

func readNumber(r *bufio.Reader) (int, error) {
	line, err := r.ReadString('\n')
	if err != nil || len(line) < 4 {
		return 0, fmt.Errorf("line %q: %w", line, io.ErrUnexpectedEOF)
	}
	return strconv.Atoi(strings.TrimSpace(line[1:]))
}
