package filter

import (
	"context"
	"math"
	"net"
	"net/http"
	"slices"
	"strings"
	"sync"
	"testing"

	ratelimitconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/ratelimit/v3"
	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ratelimit/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/internal/issuer"
	"github.com/credence-mesh/credence/internal/policytest"
	"github.com/credence-mesh/credence/xds/ir"
)

// limiter remembers the descriptors of the last request.
type limiter struct {
	mu   sync.Mutex
	last []string
}

func (l *limiter) ShouldRateLimit(_ context.Context, q *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, d := range q.GetDescriptors() {
		var entries []string
		for _, e := range d.GetEntries() {
			entries = append(entries, e.GetKey()+"="+e.GetValue())
		}
		l.last = append(l.last, strings.Join(entries, " "))
	}
	return &rlsv3.RateLimitResponse{OverallCode: rlsv3.RateLimitResponse_OK}, nil
}

func (l *limiter) take() []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	out := l.last
	l.last = nil
	slices.Sort(out)
	return out
}

// serveGRPC runs a gRPC server until the test ends; it returns host:port.
func serveGRPC(t *testing.T, register func(grpc.ServiceRegistrar)) string {
	t.Helper()
	l, err := new(net.ListenConfig).Listen(t.Context(), "tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := grpc.NewServer()
	register(srv)
	var wg sync.WaitGroup
	wg.Go(func() {
		if err := srv.Serve(l); err != nil {
			t.Errorf("gRPC: %v", err)
		}
	})
	t.Cleanup(func() { srv.Stop(); wg.Wait() })
	return l.Addr().String()
}

// seedTree is the limits of seeds/ratelimit/configmap.yaml, and one more of each other key.
func seedTree() []Limit {
	search := func(n float64) []Limit {
		return []Limit{{Key: "path", Value: "/api/v1/search", Limited: true, PerSecond: n / 60}}
	}
	return []Limit{
		{Key: "api_tier", Value: "enterprise", Limited: true, PerSecond: 100, Children: search(1000)},
		{Key: "api_tier", Value: "free", Limited: true, PerSecond: 1, Children: append(search(10), Limit{Key: "endpoint", Value: "bulk's", Limited: true})},
		{Key: "generic_key", Value: "default", Limited: true, PerSecond: 5000},
		{Key: "path", Value: "/files/*", Limited: true},
		{Key: "path", Value: "/" + strings.Repeat("long", 100), Limited: true}, // beyond what Envoy takes for a regular expression
		{Key: "method", Value: "POST", Limited: true},
		{Key: "region", Children: []Limit{{Key: "remote_address", Limited: true}}},
	}
}

func TestDescriptors(t *testing.T) {
	t.Parallel()
	l := &limiter{}
	services := serveGRPC(t, func(s grpc.ServiceRegistrar) { rlsv3.RegisterRateLimitServiceServer(s, l) })
	a := envoytest.NewIssuer(t, "https://a.example/")
	set := policytest.Set(t, gatewayWorkload+`
kind: RequestAuthentication
metadata: {name: ra, namespace: production}
spec:
  jwtRules: [{issuer: https://a.example/, jwksUri: https://a.example/jwks}]
`)
	limits, err := RateLimits(seedTree())
	if err != nil {
		t.Fatal(err)
	}
	p := start(t, rig{
		services: services, http: &ir.HTTP{Name: "in", Guard: guard(t, set, "production", "gw", map[string]envoytest.Issuer{"https://a.example/": a})},
		front: []*hcmv3.HttpFilter{{Name: "ratelimit", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: pack(t, &ratelimitv3.RateLimit{
			Domain: "d", RateLimitService: patientService(), RateLimits: limits, FailureModeDeny: true,
		})}}},
	})
	const (
		tenant  = " credence.customer=t1 credence.issuer=https://a.example/ credence.kind=tenant"
		subject = " credence.customer=alice credence.issuer=https://a.example/ credence.kind=subject"
		address = " credence.customer=127.0.0.1 credence.issuer= credence.kind=address"
	)
	for _, tc := range []struct {
		name   string
		claims issuer.Claims // nil: no token
		method string
		path   string
		want   []string
	}{
		{"tier and tenant from claims", issuer.Claims{"sub": "alice", "tenant_id": "t1", "tier": "enterprise"}, "", "/x",
			[]string{"api_tier=enterprise" + tenant, "generic_key=default", "region= remote_address=127.0.0.1" + tenant}},
		{"path without its query", issuer.Claims{"sub": "alice", "tenant_id": "t1", "tier": "enterprise"}, "", "/api/v1/search?q=1",
			[]string{"api_tier=enterprise path=/api/v1/search" + tenant, "api_tier=enterprise" + tenant, "generic_key=default", "region= remote_address=127.0.0.1" + tenant}},
		{"a path that only begins so", issuer.Claims{"sub": "alice"}, "", "/api/v1/searching",
			[]string{"api_tier=free" + subject, "generic_key=default", "region= remote_address=127.0.0.1" + subject}},
		{"wildcard, method, other claims", issuer.Claims{"sub": "alice", "tier": "free", "endpoint": "bulk's", "region": "eu"}, "POST", "/files/a",
			[]string{"api_tier=free endpoint=bulk's" + subject, "api_tier=free" + subject, "generic_key=default",
				"method=POST" + subject, "path=/files/a" + subject, "region=eu remote_address=127.0.0.1" + subject}},
		{"a long path", nil, "", "/" + strings.Repeat("long", 100) + "?x",
			[]string{"api_tier=free" + address, "generic_key=default", "path=/" + strings.Repeat("long", 100) + address, "region= remote_address=127.0.0.1" + address}},
		{"no token: the strictest tier, by address (D48)", nil, "", "/x",
			[]string{"api_tier=free" + address, "generic_key=default", "region= remote_address=127.0.0.1" + address}},
		{"unknown tier (D48)", issuer.Claims{"sub": "alice", "tier": "platinum"}, "", "/x",
			[]string{"api_tier=free" + subject, "generic_key=default", "region= remote_address=127.0.0.1" + subject}},
		{"claims of other types", issuer.Claims{"sub": "alice", "tier": 7, "tenant_id": []string{"t1"}, "region": true}, "", "/x",
			[]string{"api_tier=free" + subject, "generic_key=default", "region= remote_address=127.0.0.1" + subject}},
		{"an empty tenant is none", issuer.Claims{"sub": "alice", "tenant_id": ""}, "", "/x",
			[]string{"api_tier=free" + subject, "generic_key=default", "region= remote_address=127.0.0.1" + subject}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := request{method: tc.method, path: tc.path, headers: http.Header{"X-Api-Tier": {"enterprise"}, "Api_tier": {"enterprise"}}} // D49: never believed
			if tc.claims != nil {
				r.token = a.Sign(t, tc.claims)
			}
			if got, _ := p.send(t, r); got != 200 {
				t.Fatalf("got %d", got)
			}
			slices.Sort(tc.want)
			if got := l.take(); !slices.Equal(got, tc.want) {
				t.Errorf("got:\n%s\nwant:\n%s", strings.Join(got, "\n"), strings.Join(tc.want, "\n"))
			}
		})
	}
}

func TestStrictest(t *testing.T) {
	t.Parallel()
	for _, tc := range []struct {
		name  string
		nodes []Limit
		want  string
	}{
		{"the smallest", []Limit{{Value: "a", Limited: true, PerSecond: 2}, {Value: "b", Limited: true, PerSecond: 1}}, "b"},
		{"none at all is smaller", []Limit{{Value: "a", Limited: true, PerSecond: 2}, {Value: "b", Limited: true}}, "b"},
		{"what is unlimited is not", []Limit{{Value: "a", Limited: true, PerSecond: math.Inf(1)}, {Value: "b", Limited: true, PerSecond: 9}}, "b"},
		{"nor what has no limit of its own", []Limit{{Value: "a"}, {Value: "b", Limited: true, PerSecond: 9}}, "b"},
		{"a pattern is no value", []Limit{{Value: "a*", Limited: true}, {Value: "b", Limited: true, PerSecond: 9}}, "b"},
		{"the first of equals", []Limit{{Value: "a", Limited: true}, {Value: "b", Limited: true}}, "a"},
	} {
		if got := (way{nodes: tc.nodes}).strictest(); got != tc.want {
			t.Errorf("%s: %q, want %q", tc.name, got, tc.want)
		}
	}
}

func FuzzQuote(f *testing.F) {
	for _, s := range []string{"free", "it's", `a\`, "\n", "é", "' || true || '"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		q := quote(s)
		body := q[1 : len(q)-1]
		for i := 0; i < len(body); i++ {
			if body[i] == '\\' {
				i++ // what follows is escaped
			} else if body[i] == '\'' || body[i] < ' ' {
				t.Fatalf("%q ends or breaks the literal %s", s, q)
			}
		}
	})
}

// patientService gives the limiter all the time that it needs: what a busy machine makes of a time limit is not what is tested.
func patientService() *ratelimitconfigv3.RateLimitServiceConfig {
	s := RateLimitService()
	s.GrpcService.Timeout = durationpb.New(envoytest.Patience)
	return s
}
