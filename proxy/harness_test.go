package proxy

import (
	"context"
	"crypto/x509"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3" // named in the listener below
	_ "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"github.com/envoyproxy/go-control-plane/pkg/cache/types"
	cachev3 "github.com/envoyproxy/go-control-plane/pkg/cache/v3"
	typev3 "github.com/envoyproxy/go-control-plane/pkg/resource/v3"
	serverv3 "github.com/envoyproxy/go-control-plane/pkg/server/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/goleak"
	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/attest"
	"github.com/credence-mesh/credence/identity/attest/attestv1"
	"github.com/credence-mesh/credence/identity/ca"
	"github.com/credence-mesh/credence/identity/state"
	"github.com/credence-mesh/credence/internal/envoytest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	domain = spiffeid.RequireTrustDomainFromString("cluster.local")
	shop   = identity.Workload{Namespace: "production", Name: "no"} // a name that careless YAML turns into false
)

// plane is a control plane: the real attestation service, and an ADS that gives every proxy one listener before an echo backend.
type plane struct {
	t         *testing.T
	addr      string
	authority *ca.Authority
	tokens    *attest.Tokens
	cache     cachev3.SnapshotCache
	front     string // where the proxy's listener is
	seen      chan identity.Proven
	stop      func()
}

type anyNode struct{}

func (anyNode) ID(*corev3.Node) string { return "all" }

func newPlane(t *testing.T) *plane {
	t.Helper()
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	p := &plane{t: t, addr: envoytest.FreeAddr(t), front: envoytest.FreeAddr(t), seen: make(chan identity.Proven, 64)}
	if p.authority, err = ca.Open(t.Context(), dir, domain); err != nil {
		t.Fatal(err)
	}
	if p.tokens, err = attest.OpenTokens(dir); err != nil {
		t.Fatal(err)
	}
	p.cache = cachev3.NewSnapshotCache(true, anyNode{}, nil)
	snapshot, err := cachev3.NewSnapshot("1", map[typev3.Type][]types.Resource{
		typev3.ListenerType: {p.listener()},
		typev3.ClusterType:  {p.backend(envoytest.Backend(t, "shop"))},
	})
	if err != nil {
		t.Fatal(err)
	}
	if err := p.cache.SetSnapshot(t.Context(), "all", snapshot); err != nil {
		t.Fatal(err)
	}
	return p
}

// serve runs the control plane under an identity until Stop.
func (p *plane) serve(as identity.ID) {
	p.t.Helper()
	source, err := ca.NewSource(p.t.Context(), p.authority, ca.Request{ID: as, DNS: []string{"localhost"}})
	if err != nil {
		p.t.Fatal(err)
	}
	trust := attest.Trust{Domain: domain, Mesh: p.authority, Channel: func() []*x509.Certificate { return []*x509.Certificate{p.authority.ChannelRoot()} }}
	s := grpc.NewServer(grpc.Creds(attest.Credentials(source, trust)), grpc.UnaryInterceptor(trust.Unary), grpc.StreamInterceptor(trust.Stream),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: 5 * time.Second, PermitWithoutStream: true}))
	attestv1.RegisterAttestationServer(s, attest.NewServer(attest.ServerConfig{Issuer: p.authority, Tokens: p.tokens,
		Workload: func(w identity.Workload) (identity.ID, bool) {
			id, err := identity.ForServiceAccount(domain, w.Namespace, w.Name)
			return id, err == nil
		}}))
	ctx, cancel := context.WithCancel(context.Background())
	discoveryv3.RegisterAggregatedDiscoveryServiceServer(s, serverv3.NewServer(ctx, p.cache, serverv3.CallbackFuncs{
		DeltaStreamOpenFunc: func(ctx context.Context, _ int64, _ string) error {
			proven, err := attest.FromContext(ctx)
			p.seen <- proven
			return err
		},
	}))
	l, err := new(net.ListenConfig).Listen(ctx, "tcp", p.addr)
	if err != nil {
		p.t.Fatal(err)
	}
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Serve(l) }()
	p.stop = func() { cancel(); s.Stop(); <-done }
	p.t.Cleanup(func() { p.stop() })
}

func (p *plane) token() string {
	p.t.Helper()
	token, err := attest.CreateToken(p.t.Context(), p.tokens, p.authority.Root(), shop, 0)
	if err != nil {
		p.t.Fatal(err)
	}
	return token
}

// connected waits for an ADS stream and tells who opened it.
func (p *plane) connected() identity.Proven {
	p.t.Helper()
	select {
	case proven := <-p.seen:
		return proven
	case <-time.After(envoytest.Patience):
		p.t.Fatal("no proxy connected")
		return identity.Proven{}
	}
}

func (p *plane) listener() *listenerv3.Listener {
	host, port := split(p.t, p.front)
	l := &listenerv3.Listener{}
	unmarshal(p.t, `{"name": "in", "address": {"socket_address": {"address": "`+host+`", "port_value": `+port+`}}, "filter_chains": [{"filters": [{"name": "hcm", "typed_config": {
		"@type": "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager", "stat_prefix": "in",
		"route_config": {"virtual_hosts": [{"name": "all", "domains": ["*"], "routes": [{"match": {"prefix": "/"}, "route": {"cluster": "backend", "timeout": "60s"}}]}]},
		"http_filters": [{"name": "router", "typed_config": {"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router"}}]}}]}]}`, l)
	return l
}

func (p *plane) backend(addr string) *clusterv3.Cluster {
	host, port := split(p.t, addr)
	c := &clusterv3.Cluster{}
	unmarshal(p.t, `{"name": "backend", "type": "STATIC", "load_assignment": {"cluster_name": "backend", "endpoints": [{"lb_endpoints": [
		{"endpoint": {"address": {"socket_address": {"address": "`+host+`", "port_value": `+port+`}}}}]}]}}`, c)
	return c
}

func split(t *testing.T, addr string) (host, port string) {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	return host, port
}

func unmarshal(t *testing.T, text string, into proto.Message) {
	t.Helper()
	if err := protojson.Unmarshal([]byte(text), into); err != nil {
		t.Fatal(err)
	}
}

// get asks the proxy; the path may carry what package echo understands. The body is closed.
func (p *plane) get(ctx context.Context, path string) (int, error) {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://"+p.front+path, nil)
	if err != nil {
		return 0, err
	}
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	res, err := client.Do(req)
	if err != nil {
		return 0, err
	}
	return res.StatusCode, res.Body.Close()
}

// running is a proxy that Run runs.
type running struct {
	t    *testing.T
	dir  string
	logs *observer.ObservedLogs
	stop context.CancelFunc
	done chan struct{}
	code int
	err  error
}

// start runs a proxy in a state directory. The test's change comes last.
func (p *plane) start(dir, token string, change func(*Config)) *running {
	p.t.Helper()
	core, logs := observer.New(zap.DebugLevel)
	ctx, cancel := context.WithCancel(context.Background())
	r := &running{t: p.t, dir: dir, logs: logs, stop: cancel, done: make(chan struct{})}
	c := Config{
		XDSAddr: p.addr, Workload: shop, Token: token, StateDir: dir, Envoy: envoytest.Path(p.t), DrainTime: 20 * time.Second,
		Args: []string{"--concurrency", "1"}, Stdout: os.Stdout, Log: zap.New(core),
	}
	if change != nil {
		change(&c)
	}
	go func() {
		defer close(r.done)
		r.code, r.err = Run(ctx, c)
	}()
	p.t.Cleanup(func() {
		r.stop()
		<-r.done
		if p.t.Failed() {
			for _, e := range logs.All() {
				p.t.Logf("%s %s %s %s %v", e.Time.Format(time.StampMilli), e.Level, e.LoggerName, e.Message, e.ContextMap())
			}
		}
	})
	return r
}

// said waits until the proxy has logged a message n times and returns the fields of the last.
func (r *running) said(message string, n int) map[string]any {
	r.t.Helper()
	var fields map[string]any
	envoytest.Eventually(r.t, strconv.Itoa(n)+" times "+message, func() error {
		entries := r.logs.FilterMessage(message).All()
		if len(entries) < n {
			select {
			case <-r.done:
				return envoytest.Gone{Code: r.code, Err: r.err}
			default:
				return errNotYet
			}
		}
		fields = entries[len(entries)-1].ContextMap()
		return nil
	})
	return fields
}
