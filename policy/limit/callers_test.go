package limit

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"testing"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/credence-mesh/credence/identity"
)

var gateway, intruder = identity.Workload{Namespace: "a", Name: "gateway"}, identity.Workload{Namespace: "b", Name: "intruder"}

type callerKey struct{}

// as is a call of a workload's proxy; of no workload: one that showed an X.509-SVID.
func as(ctx context.Context, w identity.Workload) context.Context {
	return context.WithValue(ctx, callerKey{}, w)
}

// domains are those that each workload's configuration asks for.
type domains map[identity.Workload][]string

func (d domains) callers() identity.Callers {
	return identity.Callers{
		Authenticate: func(ctx context.Context) (identity.Proven, error) {
			w, ok := ctx.Value(callerKey{}).(identity.Workload)
			if !ok {
				return identity.Proven{}, errors.New("no certificate")
			}
			return identity.Proven{Workload: w}, nil
		},
		May: func(_ context.Context, w identity.Workload, domain string) bool {
			for _, have := range d[w] {
				if have == domain {
					return true
				}
			}
			return false
		},
	}
}

func newServiceFor(t *testing.T, store Store, callers identity.Callers, text string) *Service {
	t.Helper()
	s, err := NewService(store, stopped(), callers, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if p := s.Update(setOf(rateLimit("d", text))); len(p) != 0 {
		t.Fatal(p)
	}
	return s
}

func TestOnlyThoseWhoseConfigurationAsksAreAnswered(t *testing.T) {
	t.Parallel()
	store := NewMemory(0)
	s := newServiceFor(t, store, domains{gateway: {"d"}, intruder: {"other"}, {}: {"d"}}.callers(), seedLike)
	zero := newServiceFor(t, store, identity.Callers{}, seedLike)
	for _, c := range []struct {
		name    string
		service *Service
		ctx     context.Context
		want    codes.Code
	}{
		{"no certificate", s, t.Context(), codes.PermissionDenied},
		{"an X.509-SVID", s, as(t.Context(), identity.Workload{}), codes.PermissionDenied},
		{"a workload of another domain", s, as(t.Context(), intruder), codes.PermissionDenied},
		{"a service for nobody", zero, as(t.Context(), gateway), codes.PermissionDenied},
		{"the workload of this domain", s, as(t.Context(), gateway), codes.OK},
	} {
		t.Run(c.name, func(t *testing.T) {
			drain := descriptor("api_tier", "free", CustomerKey, c.name)
			drain.HitsAddend = wrapperspb.UInt64(4_000_000_000)
			held := store.Len()
			_, err := c.service.ShouldRateLimit(c.ctx, &rlsv3.RateLimitRequest{Domain: "d", Descriptors: []*ratelimitv3.RateLimitDescriptor{drain}})
			if status.Code(err) != c.want {
				t.Errorf("%v, want %s", err, c.want)
			}
			if c.want != codes.OK && store.Len() != held {
				t.Error("a refused call was counted")
			}
		})
	}
}

func TestLimitOfTheRequestIsIgnored(t *testing.T) {
	t.Parallel()
	store := NewMemory(0)
	s := newServiceFor(t, store, anybody, seedLike)
	bring := func(pairs ...string) *ratelimitv3.RateLimitDescriptor {
		d := descriptor(pairs...)
		d.Limit = &ratelimitv3.RateLimitDescriptor_RateLimitOverride{RequestsPerUnit: 1_000_000, Unit: typev3.RateLimitUnit_YEAR}
		return d
	}
	if resp := ask(t, s, "d", bring("x", "y")); len(resp.GetResponseHeadersToAdd()) != 0 || store.Len() != 0 {
		t.Errorf("a limit that no configuration has: %v, %d counters", resp, store.Len())
	}
	for i, want := range []rlsv3.RateLimitResponse_Code{rlsv3.RateLimitResponse_OK, rlsv3.RateLimitResponse_OK, rlsv3.RateLimitResponse_OVER_LIMIT} {
		if resp := ask(t, s, "d", bring("api_tier", "free")); resp.GetOverallCode() != want || header(resp, HeaderLimit) != "2" {
			t.Errorf("request %d: %v", i, resp)
		}
	}
}

func TestAddendIsBounded(t *testing.T) {
	t.Parallel()
	const large = "domain: d\ndescriptors:\n- key: k\n  rate_limit: {unit: day, requests_per_unit: 5000}\n"
	s := newServiceFor(t, NewMemory(0), anybody, large)
	own := descriptor("k", "own")
	own.HitsAddend = wrapperspb.UInt64(4_000_000_000)
	if got := header(ask(t, s, "d", own), HeaderRemaining); got != "4000" {
		t.Errorf("addend of a descriptor: %s remain", got)
	}
	resp, err := s.ShouldRateLimit(t.Context(), &rlsv3.RateLimitRequest{Domain: "d", HitsAddend: 4_000_000_000, Descriptors: []*ratelimitv3.RateLimitDescriptor{descriptor("k", "request")}})
	if err != nil || header(resp, HeaderRemaining) != "4000" {
		t.Errorf("addend of the request: %v, %v", resp, err)
	}
}

// The whole way: one workload floods the store from its own domain, and newcomers of another workload still have all of their quota.
func TestFloodByOneCallerLeavesOthersTheirQuota(t *testing.T) {
	t.Parallel()
	const text = "domain: %s\ndescriptors:\n- key: k\n  rate_limit: {unit: year, requests_per_unit: 1}\n"
	store := NewMemory(1 << 12)
	s, err := NewService(store, stopped(), domains{gateway: {"d"}, intruder: {"e"}}.callers(), prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	if p := s.Update(setOf(rateLimit("d", fmt.Sprintf(text, "d")), rateLimit("e", fmt.Sprintf(text, "e")))); len(p) != 0 {
		t.Fatal(p)
	}
	call := func(w identity.Workload, domain, value string) rlsv3.RateLimitResponse_Code {
		resp, err := s.ShouldRateLimit(as(t.Context(), w), &rlsv3.RateLimitRequest{Domain: domain, HitsAddend: 1000,
			Descriptors: []*ratelimitv3.RateLimitDescriptor{descriptor("k", value)}})
		if err != nil {
			t.Fatal(err)
		}
		return resp.GetOverallCode()
	}
	for i := range 50_000 {
		call(intruder, "e", strconv.Itoa(i))
	}
	if n := store.Len(); n > 1<<10+shards { // a quarter, and one shared counter a shard
		t.Errorf("one caller holds %d counters", n)
	}
	for i := range 500 {
		resp, err := s.ShouldRateLimit(as(t.Context(), gateway), &rlsv3.RateLimitRequest{Domain: "d",
			Descriptors: []*ratelimitv3.RateLimitDescriptor{descriptor("k", strconv.Itoa(i))}})
		if err != nil || resp.GetOverallCode() != rlsv3.RateLimitResponse_OK {
			t.Fatalf("newcomer %d of another workload: %v, %v", i, resp, err)
		}
	}
}

// A flood of one owner displaces no counter of another, also where those are far from their limit. The other has so few that none of its own
// can be in the way, however keys fall into shards.
func TestFloodDisplacesNobodyElse(t *testing.T) {
	t.Parallel()
	m := NewMemory(1 << 12)
	for i := range 100 {
		hit(t, m, 600, Hit{Owner: "a", Key: "a" + strconv.Itoa(i), Seconds: 60, Add: 1, Limit: 100})
	}
	for i := range 100_000 {
		hit(t, m, 600, Hit{Owner: "b", Key: strconv.Itoa(i), Seconds: 60, Add: 100, Limit: 100})
	}
	for i := range 100 {
		if n := hit(t, m, 600, Hit{Owner: "a", Key: "a" + strconv.Itoa(i), Seconds: 60, Add: 1, Limit: 100}); n != 2 {
			t.Fatalf("counter %d of another owner stands at %d", i, n)
		}
	}
}
