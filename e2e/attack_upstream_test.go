package e2e

import (
	"bufio"
	"io"
	"net"
	"net/textproto"
	"net/url"
	"path"
	"strconv"
	"strings"
	"sync"
	"testing"
)

// victim is a backend that believes everything: it keeps the exact bytes of what reaches it.
type victim struct {
	addr string
	mu   sync.Mutex
	got  []reached
}

// reached is one request as it came.
type reached struct {
	head   string // all bytes up to and with the empty line
	method string
	target string
	header textproto.MIMEHeader // by canonical name, underscores made dashes
}

func startVictim(t *testing.T) *victim {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	v := &victim{addr: l.Addr().String()}
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go v.serve(conn)
		}
	}()
	return v
}

func (v *victim) serve(conn net.Conn) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	for {
		head, err := readHead(r)
		if err != nil {
			return
		}
		q := parseHead(head)
		v.mu.Lock()
		v.got = append(v.got, q)
		v.mu.Unlock()
		if strings.EqualFold(q.header.Get("Upgrade"), "websocket") {
			_, _ = io.WriteString(conn, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n")
			return
		}
		if skipBody(r, q.header) != nil {
			return
		}
		answer := "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
		if q.method == "HEAD" {
			answer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n"
		}
		if _, err := io.WriteString(conn, answer); err != nil {
			return
		}
	}
}

func readHead(r *bufio.Reader) (string, error) {
	var head strings.Builder
	for {
		line, err := r.ReadString('\n')
		head.WriteString(line)
		if err != nil || line == "\r\n" || line == "\n" {
			return head.String(), err
		}
	}
}

func parseHead(head string) reached {
	q := reached{head: head, header: textproto.MIMEHeader{}}
	line, rest, _ := strings.Cut(head, "\r\n")
	q.method, line, _ = strings.Cut(line, " ")
	q.target = strings.TrimSuffix(line, " HTTP/1.1")
	for field := range strings.SplitSeq(rest, "\r\n") {
		if name, value, ok := strings.Cut(field, ":"); ok {
			q.header.Add(strings.ReplaceAll(name, "_", "-"), strings.TrimSpace(value))
		}
	}
	return q
}

func skipBody(r *bufio.Reader, h textproto.MIMEHeader) error {
	if strings.EqualFold(h.Get("Transfer-Encoding"), "chunked") {
		for {
			line, err := r.ReadString('\n')
			if err != nil {
				return err
			}
			n, err := strconv.ParseInt(strings.TrimSpace(line), 16, 32)
			if err != nil {
				return err
			}
			if _, err := r.Discard(int(n) + 2); err != nil || n == 0 {
				return err
			}
		}
	}
	n, _ := strconv.Atoi(h.Get("Content-Length"))
	_, err := r.Discard(n)
	return err
}

// take gives what came since the last call.
func (v *victim) take() []reached {
	v.mu.Lock()
	defer v.mu.Unlock()
	out := v.got
	v.got = nil
	return out
}

// readings is every path that some server could take a request target for: decoded once or twice, without parameters, with backslashes for
// slashes, merged, resolved, cut at a zero byte, in any order, up to four steps.
func readings(target string) map[string]bool {
	target, _, _ = strings.Cut(target, "?")
	if u, err := url.Parse(target); err == nil && u.Host != "" {
		target = u.EscapedPath()
	}
	all := map[string]bool{target: true}
	last := []string{target}
	for range 4 {
		var next []string
		for _, p := range last {
			for _, read := range []func(string) string{decodeLax, dropParams, backslashes, mergeAll, path.Clean, cutAtNUL} {
				if q := read(p); !all[q] {
					all[q] = true
					next = append(next, q)
				}
			}
		}
		last = next
	}
	return all
}

// decodeLax decodes what it can, %uXXXX and overlong UTF-8 too, and leaves the rest.
func decodeLax(s string) string {
	var b strings.Builder
	for i := 0; i < len(s); i++ {
		if s[i] == '%' && i+5 < len(s) && (s[i+1] == 'u' || s[i+1] == 'U') {
			if n, err := strconv.ParseUint(s[i+2:i+6], 16, 16); err == nil && n < 0x80 {
				b.WriteByte(byte(n))
				i += 5
				continue
			}
		}
		if s[i] == '%' && i+2 < len(s) {
			if n, err := strconv.ParseUint(s[i+1:i+3], 16, 8); err == nil {
				b.WriteByte(byte(n))
				i += 2
				continue
			}
		}
		b.WriteByte(s[i])
	}
	r := strings.NewReplacer("\xc0\xae", ".", "\xc0\xaf", "/", "\xe0\x80\xaf", "/", "\xe0\x80\xae", ".", "\xc1\x9c", `\`)
	return r.Replace(b.String())
}

func dropParams(s string) string {
	segments := strings.Split(s, "/")
	for i, x := range segments {
		segments[i], _, _ = strings.Cut(x, ";")
	}
	return strings.Join(segments, "/")
}

func backslashes(s string) string { return strings.ReplaceAll(s, `\`, "/") }

func mergeAll(s string) string {
	for strings.Contains(s, "//") {
		s = strings.ReplaceAll(s, "//", "/")
	}
	return s
}

func cutAtNUL(s string) string {
	s, _, _ = strings.Cut(s, "\x00")
	return s
}
