package limit

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
	"time"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/credence-mesh/credence/policy"
)

const seedLike = `
domain: d
descriptors:
- key: api_tier
  value: free
  rate_limit: {unit: minute, requests_per_unit: 2}
  descriptors:
  - key: path
    value: /search
    rate_limit: {unit: minute, requests_per_unit: 1}
- key: api_tier
  value: enterprise
  rate_limit: {unlimited: true}
- key: shadowed
  shadow_mode: true
  rate_limit: {unit: hour, requests_per_unit: 0}
`

// stopped is a clock that stands 12 seconds into a minute.
func stopped() *Clock {
	return newClock(func() time.Time { return time.Unix(60*1_000_000+12, 0) }, func() time.Duration { return 0 })
}

func newService(t testing.TB, store Store, objects ...policy.Resource) (*Service, *prometheus.Registry) {
	t.Helper()
	registry := prometheus.NewRegistry()
	s, err := NewService(store, stopped(), anybody, registry)
	if err != nil {
		t.Fatal(err)
	}
	if p := s.Update(setOf(objects...)); len(p) != 0 {
		t.Fatalf("problems %v", p)
	}
	return s, registry
}

func descriptor(pairs ...string) *ratelimitv3.RateLimitDescriptor {
	d := &ratelimitv3.RateLimitDescriptor{}
	for i := 0; i < len(pairs); i += 2 {
		d.Entries = append(d.Entries, &ratelimitv3.RateLimitDescriptor_Entry{Key: pairs[i], Value: pairs[i+1]})
	}
	return d
}

func ask(t testing.TB, s rlsv3.RateLimitServiceServer, domain string, ds ...*ratelimitv3.RateLimitDescriptor) *rlsv3.RateLimitResponse {
	t.Helper()
	resp, err := s.ShouldRateLimit(t.Context(), &rlsv3.RateLimitRequest{Domain: domain, Descriptors: ds})
	if err != nil {
		t.Fatal(err)
	}
	return resp
}

func header(resp *rlsv3.RateLimitResponse, name string) string {
	for _, h := range resp.GetResponseHeadersToAdd() {
		if h.GetKey() == name {
			return h.GetValue()
		}
	}
	return ""
}

// series are the values of a metric by its labels' values.
func series(t testing.TB, r *prometheus.Registry, name string) map[string]float64 {
	t.Helper()
	families, err := r.Gather()
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]float64{}
	for _, f := range families {
		if f.GetName() != name {
			continue
		}
		for _, m := range f.GetMetric() {
			var labels []string
			for _, l := range m.GetLabel() {
				labels = append(labels, l.GetValue())
			}
			out[strings.Join(labels, " ")] = m.GetCounter().GetValue() + m.GetGauge().GetValue()
		}
	}
	return out
}

func TestLimitsAndHeaders(t *testing.T) {
	t.Parallel()
	s, registry := newService(t, NewMemory(0), rateLimit("d", seedLike))
	free := descriptor("api_tier", "free")
	for i, want := range []struct {
		code             rlsv3.RateLimitResponse_Code
		remaining, retry string
	}{{rlsv3.RateLimitResponse_OK, "1", ""}, {rlsv3.RateLimitResponse_OK, "0", ""}, {rlsv3.RateLimitResponse_OVER_LIMIT, "0", "48"}} {
		resp := ask(t, s, "d", free)
		if resp.GetOverallCode() != want.code || header(resp, HeaderLimit) != "2" || header(resp, HeaderRemaining) != want.remaining ||
			header(resp, HeaderReset) != "48" || header(resp, HeaderRetryAfter) != want.retry {
			t.Errorf("request %d: %v", i, resp)
		}
		if got := resp.GetStatuses()[0].GetDurationUntilReset().GetSeconds(); got != 48 {
			t.Errorf("request %d: reset in %d", i, got)
		}
	}
	if resp := ask(t, s, "d", descriptor("api_tier", "enterprise")); resp.GetOverallCode() != rlsv3.RateLimitResponse_OK || resp.GetStatuses()[0].GetLimitRemaining() != math.MaxUint32 {
		t.Errorf("enterprise: %v", resp)
	}
	if resp := ask(t, s, "d", descriptor("shadowed", "x")); resp.GetOverallCode() != rlsv3.RateLimitResponse_OK || header(resp, HeaderRemaining) != "0" {
		t.Errorf("shadow: %v", resp)
	}
	got := series(t, registry, "credence_ratelimit_limit_total")
	for name, want := range map[string]float64{
		"d api_tier_enterprise unlimited": 1, "d api_tier_free ok": 2, "d api_tier_free over": 1, "d shadowed shadow": 1,
	} {
		if got[name] != want {
			t.Errorf("%s: %v, want %v", name, got[name], want)
		}
	}
}

func TestLimitAppliesOnlyWhereTheEntriesEnd(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, NewMemory(0), rateLimit("d", seedLike))
	for range 5 {
		resp := ask(t, s, "d", descriptor("api_tier", "free", "path", "/other"))
		if resp.GetOverallCode() != rlsv3.RateLimitResponse_OK || resp.GetStatuses()[0].GetCurrentLimit() != nil || len(resp.GetResponseHeadersToAdd()) != 0 {
			t.Fatalf("%v", resp)
		}
	}
}

// D50: customers of one tier share a limit and no quota.
func TestCustomersDoNotShareAQuota(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, NewMemory(0), rateLimit("d", seedLike))
	of := func(customer string) rlsv3.RateLimitResponse_Code {
		return ask(t, s, "d", descriptor("api_tier", "free", CustomerKey, customer)).GetOverallCode()
	}
	for range 50 {
		of("flooder")
	}
	if of("flooder") != rlsv3.RateLimitResponse_OVER_LIMIT || of("quiet") != rlsv3.RateLimitResponse_OK {
		t.Error("one customer spent another's quota")
	}
	if of("") != rlsv3.RateLimitResponse_OK {
		t.Error("a customer without a name shares another's quota")
	}
	nested := ask(t, s, "d", descriptor("api_tier", "free", CustomerKey, "x", "path", "/search"))
	if header(nested, HeaderLimit) != "1" {
		t.Errorf("the reserved entry takes part in matching: %v", nested)
	}
}

func TestValuesCannotForgeABucket(t *testing.T) {
	t.Parallel()
	a, b := descriptor("a", "x\x01b"), descriptor("a", "x", "b", "")
	if bucketKey("d", Minute, a.GetEntries(), nil, nil) == bucketKey("d", Minute, b.GetEntries(), nil, nil) {
		t.Error("two descriptors share a bucket")
	}
	c, d := descriptor("a", "", "bc", "d"), descriptor("a", "b", "c", "d")
	if bucketKey("d", Minute, c.GetEntries(), nil, nil) == bucketKey("d", Minute, d.GetEntries(), nil, nil) {
		t.Error("two descriptors share a bucket")
	}
}

// D55: whatever is added, nothing wraps around, and a changed limit holds at once.
func TestAddends(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, NewMemory(0), rateLimit("d", seedLike))
	with := func(n uint64, negative bool) *ratelimitv3.RateLimitDescriptor {
		d := descriptor("api_tier", "free")
		d.HitsAddend, d.IsNegativeHits = wrapperspb.UInt64(n), negative
		return d
	}
	for _, c := range []struct {
		name string
		d    *ratelimitv3.RateLimitDescriptor
		over bool
	}{
		{"asking counts nothing", with(0, false), false}, {"asking again", with(0, false), false},
		{"all of it", with(2, false), false}, {"asking at the limit", with(0, false), false},
		{"giving back", with(100, true), false}, {"one more", descriptor("api_tier", "free"), true},
		{"huge", with(math.MaxUint64, false), true}, {"huge again", with(math.MaxUint64, false), true}, {"after it", with(0, false), true},
	} {
		if got := ask(t, s, "d", c.d).GetOverallCode() == rlsv3.RateLimitResponse_OVER_LIMIT; got != c.over {
			t.Errorf("%s: over limit %v", c.name, got)
		}
	}
	s.Update(setOf(rateLimit("d", strings.Replace(seedLike, "requests_per_unit: 2", "requests_per_unit: 4294967295", 1))))
	ask(t, s, "d", descriptor("api_tier", "free", "credence.other", "x"))
	if got := ask(t, s, "d", descriptor("api_tier", "free", "credence.other", "x")); header(got, HeaderLimit) != "4294967295" {
		t.Errorf("the new limit is not in force: %v", got)
	}
}

func TestErrors(t *testing.T) {
	t.Parallel()
	fresh, err := NewService(NewMemory(0), stopped(), anybody, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	good, _ := newService(t, NewMemory(0), rateLimit("d", seedLike))
	broken, _ := newService(t, brokenStore{}, rateLimit("d", seedLike))
	void, _ := newService(t, NewMemory(0))
	void.Update(setOf(rateLimit("d", "domain: d\ndescriptors: 5\n")))
	free := descriptor("api_tier", "free")
	for _, c := range []struct {
		name    string
		service *Service
		req     *rlsv3.RateLimitRequest
		code    codes.Code
	}{
		{"before the first update", fresh, &rlsv3.RateLimitRequest{Domain: "d", Descriptors: []*ratelimitv3.RateLimitDescriptor{free}}, codes.Unavailable},
		{"no domain", good, &rlsv3.RateLimitRequest{Descriptors: []*ratelimitv3.RateLimitDescriptor{free}}, codes.InvalidArgument},
		{"no descriptor", good, &rlsv3.RateLimitRequest{Domain: "d"}, codes.InvalidArgument},
		{"store down", broken, &rlsv3.RateLimitRequest{Domain: "d", Descriptors: []*ratelimitv3.RateLimitDescriptor{free}}, codes.Unavailable},
		{"void", void, &rlsv3.RateLimitRequest{Domain: "d", Descriptors: []*ratelimitv3.RateLimitDescriptor{free}}, codes.Unavailable},
		{"unknown domain", good, &rlsv3.RateLimitRequest{Domain: "e", Descriptors: []*ratelimitv3.RateLimitDescriptor{free}}, codes.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if _, err := c.service.ShouldRateLimit(t.Context(), c.req); status.Code(err) != c.code {
				t.Errorf("%v, want %s", err, c.code)
			}
		})
	}
}

func TestLastGoodConfigurationStands(t *testing.T) {
	t.Parallel()
	s, registry := newService(t, NewMemory(0), rateLimit("d", seedLike))
	if p := s.Update(setOf(rateLimit("d", "domain: d\nnonsense: 1\n"))); len(p) != 1 || p[0].Code != "RATELIMIT_UNKNOWN_KEY" {
		t.Fatalf("problems %v", p)
	}
	if resp := ask(t, s, "d", descriptor("api_tier", "free")); header(resp, HeaderLimit) != "2" {
		t.Errorf("the last good configuration does not stand: %v", resp)
	}
	if n := series(t, registry, "credence_ratelimit_configs"); n["good"] != 1 || n["void"] != 0 {
		t.Errorf("%v", n)
	}
	s.Update(setOf())
	if resp := ask(t, s, "d", descriptor("api_tier", "free")); len(resp.GetResponseHeadersToAdd()) != 0 || len(s.Domains()) != 0 {
		t.Errorf("a removed configuration stays: %v", resp)
	}
}

type brokenStore struct{}

func (brokenStore) Add(context.Context, int64, []Hit, []uint64) error { return errors.New("down") }

func BenchmarkShouldRateLimit(b *testing.B) {
	s, _ := newService(b, NewMemory(0), rateLimit("d", seedLike))
	req := &rlsv3.RateLimitRequest{Domain: "d", Descriptors: []*ratelimitv3.RateLimitDescriptor{
		descriptor(CustomerKey, "tenant-1", "api_tier", "free"), descriptor(CustomerKey, "tenant-1", "api_tier", "free", "path", "/search"),
	}}
	b.ReportAllocs()
	for b.Loop() {
		if _, err := s.ShouldRateLimit(b.Context(), req); err != nil {
			b.Fatal(err)
		}
	}
}
