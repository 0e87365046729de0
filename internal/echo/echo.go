// Package echo is a small backend: it answers every request with what it got. Tests and the demo put it behind Envoy to see what really
// arrives. It speaks HTTP/1.1, HTTP/2 in clear text, WebSocket and the standard gRPC health service.
package echo

import (
	"context"
	"encoding/json"
	"errors"
	"io"
	"net"
	"net/http"
	"strconv"
	"strings"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthv1 "google.golang.org/grpc/health/grpc_health_v1"
)

// Seen is one request as the backend saw it.
type Seen struct {
	Backend string      `json:"backend"` // the name of the backend that answered
	Method  string      `json:"method"`
	Path    string      `json:"path"` // as it came over the wire, with its query
	Host    string      `json:"host"`
	Proto   string      `json:"proto"`
	Headers http.Header `json:"headers"` // canonical names
	Body    string      `json:"body"`
}

// Handler answers with a Seen as JSON. The query says more where a test needs it: delay (a Go duration) holds the answer back, status
// sets its code.
func Handler(name string) http.Handler {
	rpc := grpc.NewServer()
	healthv1.RegisterHealthServer(rpc, health.NewServer())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch {
		case strings.HasPrefix(r.Header.Get("Content-Type"), "application/grpc"):
			rpc.ServeHTTP(w, r)
		case strings.EqualFold(r.Header.Get("Upgrade"), "websocket"):
			serveWebSocket(w, r)
		default:
			answer(w, r, name)
		}
	})
}

func answer(w http.ResponseWriter, r *http.Request, name string) {
	body, err := io.ReadAll(r.Body)
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	if err := hold(r.Context(), r.URL.Query().Get("delay")); err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	out, err := json.Marshal(Seen{
		Backend: name, Method: r.Method, Path: r.RequestURI, Host: r.Host, Proto: r.Proto, Headers: r.Header, Body: string(body),
	})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	w.WriteHeader(status(r.URL.Query().Get("status")))
	_, _ = w.Write(append(out, '\n')) // the client has gone: nobody to tell
}

func hold(ctx context.Context, delay string) error {
	if delay == "" {
		return nil
	}
	d, err := time.ParseDuration(delay)
	if err != nil {
		return err
	}
	select {
	case <-time.After(d):
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

func status(s string) int {
	code, err := strconv.Atoi(s)
	if err != nil || http.StatusText(code) == "" {
		return http.StatusOK
	}
	return code
}

// Server is a running backend.
type Server struct {
	Addr   string // host:port that it listens on
	server *http.Server
	done   chan error
}

// Listen starts a backend at an address such as "127.0.0.1:0".
func Listen(ctx context.Context, addr, name string) (*Server, error) {
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	var protocols http.Protocols
	protocols.SetHTTP1(true)
	protocols.SetUnencryptedHTTP2(true)
	s := &Server{
		Addr: l.Addr().String(), done: make(chan error, 1),
		server: &http.Server{Handler: Handler(name), Protocols: &protocols, ReadHeaderTimeout: 10 * time.Second},
	}
	go func() { s.done <- s.server.Serve(l) }()
	return s, nil
}

// Close ends the backend and waits for it.
func (s *Server) Close() error {
	err := s.server.Close()
	if e := <-s.done; !errors.Is(e, http.ErrServerClosed) {
		err = errors.Join(err, e)
	}
	return err
}
