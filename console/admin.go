// Package console is the admin API: health, metrics, what each proxy has, and what is wrong. It is for operators on the machine itself: it
// listens on a loopback address or a Unix socket, and answers nobody who came by another name.
package console

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"net/http/pprof"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/promhttp"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/snapshot"
)

// Facts is what the admin API tells; the caller wires it to the running parts.
type Facts interface {
	Status() Status
	// Dump is the resources of a workload's proxies, secrets left out. ErrUnknown where there is no such workload.
	Dump(ctx context.Context, w identity.Workload) (snapshot.Dump, error)
	// Ready is nil once the first complete configuration is published.
	Ready() error
}

// Levels are the log levels of the components.
type Levels interface {
	Levels() map[string]string
	Set(component, level string) error
}

// ErrUnknown says that there is no such workload.
var ErrUnknown = errors.New("no such workload")

// Handler is the whole admin API.
func Handler(f Facts, l Levels, metrics prometheus.Gatherer) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /healthz", func(w http.ResponseWriter, _ *http.Request) { answer(w, http.StatusOK, "ok") })
	mux.HandleFunc("GET /readyz", func(w http.ResponseWriter, _ *http.Request) {
		if err := f.Ready(); err != nil {
			answer(w, http.StatusServiceUnavailable, err.Error())
			return
		}
		answer(w, http.StatusOK, "ready")
	})
	mux.Handle("GET /metrics", promhttp.HandlerFor(metrics, promhttp.HandlerOpts{}))
	mux.HandleFunc("GET /api/v1/status", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, f.Status()) })
	mux.HandleFunc("GET /api/v1/config-dump", func(w http.ResponseWriter, r *http.Request) { dump(w, r, f) })
	mux.HandleFunc("GET /api/v1/log-levels", func(w http.ResponseWriter, _ *http.Request) { writeJSON(w, l.Levels()) })
	mux.HandleFunc("PUT /api/v1/log-levels", func(w http.ResponseWriter, r *http.Request) { setLevel(w, r, l) })
	mux.HandleFunc("GET /debug/pprof/", pprof.Index)
	mux.HandleFunc("GET /debug/pprof/profile", pprof.Profile)
	mux.HandleFunc("GET /debug/pprof/symbol", pprof.Symbol)
	mux.HandleFunc("GET /debug/pprof/trace", pprof.Trace)
	return local(mux)
}

// local refuses requests that name a host other than this machine: a web page that resolves its own name to a loopback address (DNS
// rebinding) would otherwise read all this through a visitor's browser.
func local(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		host, _, err := net.SplitHostPort(r.Host)
		if err != nil {
			host = strings.Trim(r.Host, "[]")
		}
		ip := net.ParseIP(host)
		if host != "localhost" && ip == nil {
			answer(w, http.StatusMisdirectedRequest, "the admin API answers to localhost and to addresses only")
			return
		}
		if r.Header.Get("Sec-Fetch-Site") == "cross-site" {
			answer(w, http.StatusForbidden, "no requests of other sites")
			return
		}
		next.ServeHTTP(w, r)
	})
}

func answer(w http.ResponseWriter, status int, text string) {
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	w.WriteHeader(status)
	fmt.Fprintln(w, text)
}

func writeJSON(w http.ResponseWriter, v any) {
	b, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		answer(w, http.StatusInternalServerError, err.Error())
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(append(b, '\n')) // the client has gone: nobody to tell
}

func dump(w http.ResponseWriter, r *http.Request, f Facts) {
	ns, name, ok := strings.Cut(r.URL.Query().Get("workload"), "/")
	if !ok {
		answer(w, http.StatusBadRequest, "which workload? ask for ?workload=NAMESPACE/NAME")
		return
	}
	out, err := f.Dump(r.Context(), identity.Workload{Namespace: ns, Name: name})
	switch {
	case errors.Is(err, ErrUnknown):
		answer(w, http.StatusNotFound, fmt.Sprintf("no workload %s/%s: credence status lists those that are known", ns, name))
	case err != nil:
		answer(w, http.StatusInternalServerError, err.Error())
	default:
		writeJSON(w, out)
	}
}

func setLevel(w http.ResponseWriter, r *http.Request, l Levels) {
	if err := l.Set(r.URL.Query().Get("component"), r.URL.Query().Get("level")); err != nil {
		answer(w, http.StatusBadRequest, err.Error())
		return
	}
	writeJSON(w, l.Levels())
}

// Listen opens the address of the admin API: host:port on a loopback address, or unix:PATH. Other addresses are refused: the API knows no
// users, and tells the configuration of the whole mesh.
func Listen(addr string) (net.Listener, error) {
	if path, ok := strings.CutPrefix(addr, "unix:"); ok {
		return net.Listen("unix", path) //nolint:noctx // opened once, at start
	}
	host, _, err := net.SplitHostPort(addr)
	if err != nil {
		return nil, fmt.Errorf("admin address %q: want HOST:PORT or unix:PATH", addr)
	}
	if ip := net.ParseIP(host); host != "localhost" && (ip == nil || !ip.IsLoopback()) {
		return nil, fmt.Errorf("admin address %q is not a loopback address: the admin API has no users; reach it through an SSH tunnel or a port-forward", addr)
	}
	return net.Listen("tcp", addr) //nolint:noctx // opened once, at start
}
