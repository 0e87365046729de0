package limit

import (
	"strconv"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
)

// Names of the headers that every answer to a client carries. Envoy adds them to the response, also to its own 429.
const (
	HeaderLimit      = "X-RateLimit-Limit"     // requests a window, a plain number
	HeaderRemaining  = "X-RateLimit-Remaining" // requests left in the window
	HeaderReset      = "X-RateLimit-Reset"     // seconds until the window ends
	HeaderRetryAfter = "Retry-After"           // the same seconds, on a refusal only (RFC 9110, 10.2.3)
)

// headers tell the client about the limit that it is closest to, or that refused it.
func headers(s *rlsv3.RateLimitResponse_DescriptorStatus, now int64) []*corev3.HeaderValue {
	if s == nil {
		return nil
	}
	reset := strconv.FormatInt(untilReset(Unit(s.GetCurrentLimit().GetUnit()), now), 10)
	out := []*corev3.HeaderValue{
		{Key: HeaderLimit, Value: strconv.FormatUint(uint64(s.GetCurrentLimit().GetRequestsPerUnit()), 10)},
		{Key: HeaderRemaining, Value: strconv.FormatUint(uint64(s.GetLimitRemaining()), 10)},
		{Key: HeaderReset, Value: reset},
	}
	if s.GetCode() == rlsv3.RateLimitResponse_OVER_LIMIT {
		out = append(out, &corev3.HeaderValue{Key: HeaderRetryAfter, Value: reset})
	}
	return out
}
