package server

import (
	"context"
	"net"
	"sync"

	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
)

// conns are the open connections. There are never more than a bound, and one can be dropped although its peer does not read.
type conns struct {
	slots chan struct{}
	mu    sync.Mutex
	open  map[string]net.Conn // by remote address
}

func newConns(bound int) *conns {
	return &conns{slots: make(chan struct{}, bound), open: map[string]net.Conn{}}
}

func (c *conns) listen(l net.Listener) net.Listener {
	return &listener{Listener: l, conns: c, done: make(chan struct{})}
}

// drop closes the connection of a remote address.
func (c *conns) drop(addr string) {
	c.mu.Lock()
	conn := c.open[addr]
	c.mu.Unlock()
	if conn != nil {
		_ = conn.Close() // the peer is given up; there is nobody to tell
	}
}

// listener accepts while there is room.
type listener struct {
	net.Listener
	conns *conns
	once  sync.Once
	done  chan struct{}
}

// Accept waits for room, then for a connection.
func (l *listener) Accept() (net.Conn, error) {
	select {
	case l.conns.slots <- struct{}{}:
	case <-l.done:
		return nil, net.ErrClosed
	}
	c, err := l.Listener.Accept()
	if err != nil {
		<-l.conns.slots
		return nil, err
	}
	t := &tracked{Conn: c, conns: l.conns, addr: c.RemoteAddr().String()}
	l.conns.mu.Lock()
	l.conns.open[t.addr] = c
	l.conns.mu.Unlock()
	return t, nil
}

// Close stops accepting.
func (l *listener) Close() error {
	l.once.Do(func() { close(l.done) })
	return l.Listener.Close()
}

// tracked is a connection that gives its room back.
type tracked struct {
	net.Conn
	conns *conns
	addr  string
	once  sync.Once
}

// Close closes the connection.
func (t *tracked) Close() error {
	t.once.Do(func() {
		t.conns.mu.Lock()
		if t.conns.open[t.addr] == t.Conn {
			delete(t.conns.open, t.addr)
		}
		t.conns.mu.Unlock()
		<-t.conns.slots
	})
	return t.Conn.Close()
}

// admitted are transport credentials of which only so many handshakes compute at once. A handshake that waits for its peer holds no slot,
// so that slow peers do not keep others out.
type admitted struct {
	credentials.TransportCredentials
	slots chan struct{}
}

func admit(c credentials.TransportCredentials, n int) credentials.TransportCredentials {
	return &admitted{TransportCredentials: c, slots: make(chan struct{}, n)}
}

// ServerHandshake proves who the client is.
func (a *admitted) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	g := &gated{Conn: raw, slots: a.slots}
	a.slots <- struct{}{}
	conn, info, err := a.TransportCredentials.ServerHandshake(g)
	<-a.slots
	g.slots = nil
	return conn, info, err
}

// Clone makes a copy, as gRPC wants.
func (a *admitted) Clone() credentials.TransportCredentials {
	return &admitted{TransportCredentials: a.TransportCredentials.Clone(), slots: a.slots}
}

// gated gives its slot back while it waits for the network.
type gated struct {
	net.Conn
	slots chan struct{} // nil once the handshake is over
}

// Read gives the slot back while it waits.
func (g *gated) Read(b []byte) (int, error) {
	if g.slots == nil {
		return g.Conn.Read(b)
	}
	<-g.slots
	n, err := g.Conn.Read(b)
	g.slots <- struct{}{}
	return n, err
}

// Write gives the slot back while it waits.
func (g *gated) Write(b []byte) (int, error) {
	if g.slots == nil {
		return g.Conn.Write(b)
	}
	<-g.slots
	n, err := g.Conn.Write(b)
	g.slots <- struct{}{}
	return n, err
}

// remote is the address of the peer of a call.
func remote(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok {
		return p.Addr.String()
	}
	return ""
}
