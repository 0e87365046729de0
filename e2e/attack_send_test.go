package e2e

import (
	"bufio"
	"bytes"
	"crypto/tls"
	"io"
	"net"
	"net/http"
	"strconv"
	"testing"
	"time"

	"golang.org/x/net/http2"
	"golang.org/x/net/http2/hpack"
)

func (x *arena) connect(t *testing.T, d door, alpn string, patience time.Duration) net.Conn {
	t.Helper()
	conn, err := new(net.Dialer).DialContext(x.ctx, "tcp", d.addr)
	if err != nil {
		t.Fatal(err)
	}
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	if d.tls == nil {
		return conn
	}
	c := d.tls.Clone()
	c.NextProtos = []string{alpn}
	return tls.Client(conn, c)
}

// send writes bytes as they are and gives the status of every answer until the connection ends.
func (x *arena) send(t *testing.T, d door, raw string, patience time.Duration) []int {
	t.Helper()
	conn := x.connect(t, d, "http/1.1", patience)
	defer conn.Close()
	_, _ = io.WriteString(conn, raw) // what is refused early may not be read to its end
	var got []int
	r := bufio.NewReader(conn)
	for {
		answer, err := http.ReadResponse(r, nil) //nolint:bodyclose // read to its end below; the connection is closed
		if err != nil {
			return got
		}
		got = append(got, answer.StatusCode)
		if answer.StatusCode == http.StatusSwitchingProtocols {
			return got
		}
		if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.Close {
			return got
		}
	}
}

// frames writes HTTP/2 as it is told to.
type frames struct {
	*http2.Framer
	stream uint32
	wrote  error
}

// sendFrames gives the status of the answers on the streams, and 0 for one that was reset.
func (x *arena) sendFrames(t *testing.T, d door, attack func(*frames), patience time.Duration) []int {
	t.Helper()
	conn := x.connect(t, d, "h2", patience)
	defer conn.Close()
	if _, err := io.WriteString(conn, http2.ClientPreface); err != nil {
		t.Fatal(err)
	}
	f := &frames{Framer: http2.NewFramer(conn, conn), stream: 1}
	f.AllowIllegalWrites = true
	f.ReadMetaHeaders = hpack.NewDecoder(4096, nil)
	if err := f.WriteSettings(); err != nil {
		t.Fatal(err)
	}
	attack(f)
	var got []int
	for {
		frame, err := f.ReadFrame()
		if err != nil {
			return got
		}
		switch frame := frame.(type) {
		case *http2.SettingsFrame:
			if !frame.IsAck() {
				_ = f.WriteSettingsAck() // the other side may have closed
			}
		case *http2.MetaHeadersFrame:
			n, _ := strconv.Atoi(frame.PseudoValue("status"))
			got = append(got, n)
			if frame.StreamEnded() || n == http.StatusOK {
				return got
			}
		case *http2.RSTStreamFrame:
			return append(got, 0)
		case *http2.DataFrame:
			if frame.StreamEnded() {
				return got
			}
		case *http2.GoAwayFrame:
			if len(got) == 0 {
				return []int{0}
			}
			return got
		}
	}
}

// request writes the headers of a stream, name and value in turn, as they are.
func (f *frames) request(end bool, fields ...string) {
	var block bytes.Buffer
	e := hpack.NewEncoder(&block)
	for i := 0; i+1 < len(fields); i += 2 {
		if err := e.WriteField(hpack.HeaderField{Name: fields[i], Value: fields[i+1]}); err != nil {
			f.wrote = err
		}
	}
	f.wrote = f.WriteHeaders(http2.HeadersFrameParam{StreamID: f.stream, BlockFragment: block.Bytes(), EndHeaders: true, EndStream: end})
}

// usual is the pseudo-headers of a GET.
func usual(path string, more ...string) []string {
	return append([]string{":method", "GET", ":scheme", "http", ":authority", "app.test", ":path", path}, more...)
}
