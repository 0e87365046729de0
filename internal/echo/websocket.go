package echo

import (
	"bufio"
	"crypto/rand"
	"crypto/sha1" //nolint:gosec // RFC 6455 asks for it; nothing rests on its strength
	"encoding/base64"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
)

// maxFrame is the longest frame that is read; a test needs no more.
const maxFrame = 1 << 20

const opClose = 8

// serveWebSocket sends every frame back until the client closes (RFC 6455, without extensions).
func serveWebSocket(w http.ResponseWriter, r *http.Request) {
	hijacker, ok := w.(http.Hijacker)
	if !ok {
		http.Error(w, "no upgrade over this protocol", http.StatusHTTPVersionNotSupported)
		return
	}
	conn, rw, err := hijacker.Hijack()
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	defer func() { _ = conn.Close() }()
	_, err = fmt.Fprintf(rw, "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: %s\r\n\r\n",
		accept(r.Header.Get("Sec-WebSocket-Key")))
	for err == nil {
		if err = rw.Flush(); err != nil {
			return
		}
		var op byte
		var payload []byte
		if op, payload, err = readFrame(rw.Reader); err == nil && op != opClose {
			err = writeFrame(rw.Writer, op, payload, nil)
		}
		if op == opClose {
			return
		}
	}
}

func accept(key string) string {
	sum := sha1.Sum([]byte(key + "258EAFA5-E914-47DA-95CA-C5AB0DC85B11")) //nolint:gosec // as above
	return base64.StdEncoding.EncodeToString(sum[:])
}

func readFrame(r *bufio.Reader) (op byte, payload []byte, err error) {
	var head [2]byte
	if _, err = io.ReadFull(r, head[:]); err != nil {
		return 0, nil, err
	}
	n, err := frameLength(r, head[1]&0x7f)
	if err != nil {
		return 0, nil, err
	}
	var mask [4]byte
	if masked := head[1]&0x80 != 0; masked {
		if _, err = io.ReadFull(r, mask[:]); err != nil {
			return 0, nil, err
		}
	}
	payload = make([]byte, n)
	if _, err = io.ReadFull(r, payload); err != nil {
		return 0, nil, err
	}
	for i := range payload {
		payload[i] ^= mask[i%4]
	}
	return head[0] & 0x0f, payload, nil
}

func frameLength(r io.Reader, short byte) (uint64, error) {
	n := uint64(short)
	switch short {
	case 126:
		var ext [2]byte
		if _, err := io.ReadFull(r, ext[:]); err != nil {
			return 0, err
		}
		n = uint64(binary.BigEndian.Uint16(ext[:]))
	case 127:
		var ext [8]byte
		if _, err := io.ReadFull(r, ext[:]); err != nil {
			return 0, err
		}
		n = binary.BigEndian.Uint64(ext[:])
	}
	if n > maxFrame {
		return 0, errors.New("websocket frame too long")
	}
	return n, nil
}

// writeFrame sends one final frame; mask is nil from a server, four bytes from a client.
func writeFrame(w io.Writer, op byte, payload, mask []byte) error {
	frame := []byte{0x80 | op, 0}
	switch n := len(payload); {
	case n < 126:
		frame[1] = byte(n)
	case n < 1<<16:
		frame[1] = 126
		frame = binary.BigEndian.AppendUint16(frame, uint16(n))
	default:
		frame[1] = 127
		frame = binary.BigEndian.AppendUint64(frame, uint64(n))
	}
	if mask != nil {
		frame[1] |= 0x80
		frame = append(frame, mask...)
	}
	for i, b := range payload {
		if mask != nil {
			b ^= mask[i%4]
		}
		frame = append(frame, b)
	}
	_, err := w.Write(frame)
	return err
}

// WebSocket is the client's end of a WebSocket.
type WebSocket struct {
	conn net.Conn
	r    *bufio.Reader
}

// Refused is the answer of a server that does not upgrade.
type Refused struct{ Status int }

// Error names the status.
func (r Refused) Error() string { return fmt.Sprintf("no websocket: status %d", r.Status) }

// Upgrade turns conn into a WebSocket by r, whose URL, Host and further headers are the caller's. The error is a Refused where the server
// answers otherwise. The caller still owns conn.
func Upgrade(conn net.Conn, r *http.Request) (*WebSocket, error) {
	key := rand.Text()
	r.Header.Set("Connection", "Upgrade")
	r.Header.Set("Upgrade", "websocket")
	r.Header.Set("Sec-WebSocket-Version", "13")
	r.Header.Set("Sec-WebSocket-Key", key)
	if err := r.Write(conn); err != nil {
		return nil, err
	}
	br := bufio.NewReader(conn)
	res, err := http.ReadResponse(br, r)
	if err != nil {
		return nil, err
	}
	_ = res.Body.Close() // it only closes the body; conn stays open
	if res.StatusCode != http.StatusSwitchingProtocols {
		return nil, Refused{Status: res.StatusCode}
	}
	if res.Header.Get("Sec-WebSocket-Accept") != accept(key) {
		return nil, errors.New("the answer is not to this upgrade request")
	}
	return &WebSocket{conn: conn, r: br}, nil
}

// Echo sends a text message and returns what comes back.
func (ws *WebSocket) Echo(text string) (string, error) {
	mask := make([]byte, 4)
	if _, err := rand.Read(mask); err != nil {
		return "", err
	}
	if err := writeFrame(ws.conn, 1, []byte(text), mask); err != nil {
		return "", err
	}
	_, payload, err := readFrame(ws.r)
	return string(payload), err
}
