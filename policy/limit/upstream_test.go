package limit

import (
	"bytes"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"testing"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/credence-mesh/credence/internal/envoytest"
)

var record = flag.Bool("record", false, "write what the envoyproxy/ratelimit at RATELIMIT_PATH answers to testdata/upstream.json")

// Units are long, so that no window ends while the test runs, but for the requests that are asked once.
const upstreamConfig = `
domain: %s
descriptors:
- key: api_tier
  value: free
  rate_limit: {unit: day, requests_per_unit: 3}
  descriptors:
  - key: path
    value: "/search"
    rate_limit: {unit: week, requests_per_unit: 1}
- key: api_tier
  value: enterprise
  rate_limit: {unlimited: true}
- key: user
  rate_limit: {unit: YEAR, requests_per_unit: 2}
- key: user
  value: vip
  rate_limit: {unit: month, requests_per_unit: 5}
- key: file
  value: a*
  rate_limit: {unit: day, requests_per_unit: 1}
- key: file
  value: ab*
  rate_limit: {unit: day, requests_per_unit: 9}
- key: shared
  value: s*
  share_threshold: true
  rate_limit: {unit: day, requests_per_unit: 2}
- key: nest
  value: n*
  share_threshold: true
  descriptors:
  - key: leaf
    rate_limit: {unit: day, requests_per_unit: 1}
- key: shadow
  shadow_mode: true
  rate_limit: {unit: day, requests_per_unit: 1}
- key: quota
  quota_mode: true
  rate_limit: {unit: day, requests_per_unit: 1}
- key: zero
  rate_limit: {unit: day, requests_per_unit: 0}
- key: bank
  rate_limit: {unit: day, requests_per_unit: 4, name: bank}
- key: vault
  rate_limit: {unit: day, requests_per_unit: 8, name: vault, replaces: [{name: bank}]}
- key: open
  rate_limit: {unlimited: true, replaces: [{name: bank}]}
- key: top
  descriptors:
  - key: mid
    descriptors:
    - key: low
      value: x
      rate_limit: {unit: day, requests_per_unit: 1}
    - key: low
      rate_limit: {unit: day, requests_per_unit: 7}
- key: detail
  detailed_metric: true
  value_to_metric: true
  rate_limit: {unit: day, requests_per_unit: 3}
`

type upstreamCase struct {
	Name   string
	Domain string // empty: the configured one
	Hits   uint32
	Times  int
	Ask    []*ratelimitv3.RateLimitDescriptor
}

func withHits(d *ratelimitv3.RateLimitDescriptor, n uint64) *ratelimitv3.RateLimitDescriptor {
	d.HitsAddend = wrapperspb.UInt64(n)
	return d
}

// upstreamCases leave out the one thing in which we differ on purpose: a limit that the request brings along.
func upstreamCases() []upstreamCase {
	one := func(name string, times int, ds ...*ratelimitv3.RateLimitDescriptor) upstreamCase {
		return upstreamCase{Name: name, Times: times, Ask: ds}
	}
	d := descriptor
	return []upstreamCase{
		one("tier", 5, d("api_tier", "free")), one("nested", 3, d("api_tier", "free", "path", "/search")), one("deeper than the configuration", 2, d("api_tier", "free", "path", "/other")),
		one("deeper than a leaf", 2, d("api_tier", "free", "path", "/search", "more", "x")), one("unlimited", 2, d("api_tier", "enterprise")), one("unknown value", 2, d("api_tier", "gold")),
		one("unknown key", 1, d("nothing", "x")), {Name: "unknown domain", Domain: "elsewhere", Times: 1, Ask: []*ratelimitv3.RateLimitDescriptor{d("user", "a")}},
		one("a bucket a value: a", 3, d("user", "a")), one("a bucket a value: b", 1, d("user", "b")), one("exact before default", 1, d("user", "vip")), one("empty value", 3, d("user", "")),
		one("first wildcard wins", 2, d("file", "abc")), one("wildcard, own bucket", 1, d("file", "abd")), one("wildcard, no match", 1, d("file", "b")),
		one("shared wildcard 1", 2, d("shared", "s1")), one("shared wildcard 2", 1, d("shared", "s2")), one("nested shared 1", 1, d("nest", "n1", "leaf", "x")), one("nested shared 2", 1, d("nest", "n2", "leaf", "x")),
		one("shadow", 3, d("shadow", "x")), one("quota", 3, d("quota", "x")), one("zero", 1, d("zero", "x")),
		one("two, one replaced", 6, d("bank", "x"), d("vault", "x")), one("not replaced", 5, d("bank", "x")), one("replaced by unlimited", 1, d("open", "x"), d("bank", "x")),
		one("three levels, value", 2, d("top", "1", "mid", "2", "low", "x")), one("three levels, default", 1, d("top", "1", "mid", "2", "low", "y")), one("middle of the tree", 1, d("top", "1", "mid", "2")),
		one("strictest of two", 2, d("user", "strict"), d("api_tier", "free")), one("over and ok", 1, d("user", "a"), d("user", "c")), one("shadow and over", 1, d("shadow", "x"), d("zero", "y")),
		{Name: "addend", Hits: 2, Times: 3, Ask: []*ratelimitv3.RateLimitDescriptor{d("user", "addend"), d("bank", "addend")}},
		one("own addend of zero", 3, withHits(d("user", "zero"), 0)), one("own addend", 2, withHits(d("user", "own"), 2)), one("large addend", 2, withHits(d("user", "large"), 4_000_000_000)),
		one("detailed", 4, d("detail", "x")), {Name: "no descriptors", Times: 1}, one("no entries", 1, &ratelimitv3.RateLimitDescriptor{}),
	}
}

// answered is what two services must agree on: everything but how long a window still runs.
type answered struct {
	Code     string
	Statuses []string
	Headers  []string
}

func run(t *testing.T, domain string, do func(*rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error)) map[string][]answered {
	t.Helper()
	out := map[string][]answered{}
	for _, c := range upstreamCases() {
		req := &rlsv3.RateLimitRequest{Domain: domain, Descriptors: c.Ask, HitsAddend: c.Hits}
		if c.Domain != "" {
			req.Domain = c.Domain
		}
		for range c.Times {
			resp, err := do(req)
			a := answered{Code: "error"}
			if err == nil {
				a = summary(resp)
			}
			out[c.Name] = append(out[c.Name], a)
		}
	}
	return out
}

func summary(resp *rlsv3.RateLimitResponse) answered {
	a := answered{Code: resp.GetOverallCode().String()}
	for _, s := range resp.GetStatuses() {
		l := s.GetCurrentLimit()
		a.Statuses = append(a.Statuses, fmt.Sprintf("%s remaining %d of %d a %s %q, says when %v", s.GetCode(), s.GetLimitRemaining(), l.GetRequestsPerUnit(), l.GetUnit(), l.GetName(), s.GetDurationUntilReset() != nil))
	}
	for _, h := range resp.GetResponseHeadersToAdd() {
		switch h.GetKey() {
		case HeaderReset:
			a.Headers = append(a.Headers, h.GetKey())
		case HeaderRetryAfter: // ours alone
		default:
			a.Headers = append(a.Headers, h.GetKey()+": "+h.GetValue())
		}
	}
	return a
}

// TestSameAnswersAsUpstream compares with envoyproxy/ratelimit itself where RATELIMIT_PATH names it, else with what it answered before.
func TestSameAnswersAsUpstream(t *testing.T) {
	const file = "testdata/upstream.json"
	want := map[string][]answered{}
	if path := os.Getenv("RATELIMIT_PATH"); path != "" {
		client := startUpstream(t, path)
		want = run(t, "d", func(r *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
			return client.ShouldRateLimit(t.Context(), r)
		})
		if *record {
			b, err := json.MarshalIndent(want, "", " ")
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(file, append(b, '\n'), 0o644); err != nil {
				t.Fatal(err)
			}
		}
	} else if b, err := os.ReadFile(file); err != nil {
		t.Fatal(err)
	} else if err := json.Unmarshal(b, &want); err != nil {
		t.Fatal(err)
	}
	s, err := NewService(NewMemory(0), stopped(), anybody, newRegistry())
	if err != nil {
		t.Fatal(err)
	}
	s.Update(setOf(rateLimit("d", fmt.Sprintf(upstreamConfig, "d"))))
	got := run(t, "d", func(r *rlsv3.RateLimitRequest) (*rlsv3.RateLimitResponse, error) {
		return s.ShouldRateLimit(t.Context(), r)
	})
	if len(want) != len(got) {
		t.Errorf("%d cases are recorded, %d are asked", len(want), len(got))
	}
	for name, answers := range got {
		for i := range answers {
			g, w := fmt.Sprintf("%+v", answers[i]), "nothing"
			if i < len(want[name]) {
				w = fmt.Sprintf("%+v", want[name][i])
			}
			if g != w {
				t.Errorf("%s, request %d:\n  ours     %s\n  upstream %s", name, i+1, g, w)
			}
		}
	}
}

// startUpstream runs envoyproxy/ratelimit over a Redis of a few lines.
func startUpstream(t *testing.T, path string) rlsv3.RateLimitServiceClient {
	t.Helper()
	dir := t.TempDir()
	if err := os.MkdirAll(filepath.Join(dir, "config"), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "config", "d.yaml"), fmt.Appendf(nil, upstreamConfig, "d"), 0o644); err != nil {
		t.Fatal(err)
	}
	port, log := envoytest.FreePort(t), &bytes.Buffer{}
	cmd := exec.CommandContext(t.Context(), path)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.Env = append(os.Environ(), "RUNTIME_ROOT="+dir, "RUNTIME_WATCH_ROOT=false", "RUNTIME_SUBDIRECTORY=", "USE_STATSD=false", "DISABLE_STATS=true", "LOG_LEVEL=info",
		"HOST=127.0.0.1", "GRPC_HOST=127.0.0.1", "DEBUG_HOST=127.0.0.1", "GRPC_PORT="+strconv.Itoa(port), "PORT="+strconv.Itoa(envoytest.FreePort(t)), "DEBUG_PORT="+strconv.Itoa(envoytest.FreePort(t)),
		"REDIS_SOCKET_TYPE=tcp", "REDIS_URL="+startRedis(t), "LIMIT_RESPONSE_HEADERS_ENABLED=true", "LIMIT_LIMIT_HEADER="+HeaderLimit, "LIMIT_REMAINING_HEADER="+HeaderRemaining, "LIMIT_RESET_HEADER="+HeaderReset)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		if t.Failed() {
			t.Log(log.String())
		}
	})
	conn, err := grpc.NewClient(net.JoinHostPort("127.0.0.1", strconv.Itoa(port)), grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithConnectParams(grpc.ConnectParams{MinConnectTimeout: time.Second}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	client := rlsv3.NewRateLimitServiceClient(conn)
	envoytest.Eventually(t, "envoyproxy/ratelimit answers", func() error {
		_, err := client.ShouldRateLimit(t.Context(), &rlsv3.RateLimitRequest{Domain: "d", Descriptors: []*ratelimitv3.RateLimitDescriptor{descriptor("ready", "?")}})
		return err
	})
	return client
}
