package limit

import (
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"github.com/prometheus/client_golang/prometheus"
)

// metrics are documented in docs/limits.md. No label ever carries a value of a request.
type metrics struct {
	requests *prometheus.CounterVec
	limits   *prometheus.CounterVec
	errors   *prometheus.CounterVec
	loaded   *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		requests: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "credence_ratelimit_requests_total", Help: "Rate limit decisions by domain and overall result.",
		}, []string{"domain", "result"}),
		limits: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "credence_ratelimit_limit_total", Help: "Applications of each configured limit, by result: ok, over, shadow, unlimited.",
		}, []string{"domain", "limit", "result"}),
		errors: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "credence_ratelimit_errors_total", Help: "Rate limit requests that were answered with an error, by gRPC code.",
		}, []string{"code"}),
		loaded: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "credence_ratelimit_configs", Help: "Rate limit configurations by state: good, void.",
		}, []string{"state"}),
	}
	for _, c := range []prometheus.Collector{m.requests, m.limits, m.errors, m.loaded} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) configs(all, good int) {
	m.loaded.WithLabelValues("good").Set(float64(good))
	m.loaded.WithLabelValues("void").Set(float64(all - good))
}

func (m *metrics) decided(domain string, d *decision, resp *rlsv3.RateLimitResponse) {
	if !d.known {
		domain = "unknown" // a name that nobody configured is not ours to remember
	}
	result := "ok"
	if resp.GetOverallCode() == rlsv3.RateLimitResponse_OVER_LIMIT {
		result = "over"
	}
	m.requests.WithLabelValues(domain, result).Inc()
	for i, r := range d.limits {
		if r != nil {
			m.limits.WithLabelValues(domain, r.path, d.result(i)).Inc()
		}
	}
}

func (d *decision) result(i int) string {
	switch r := d.limits[i]; {
	case r.Unlimited:
		return "unlimited"
	case !d.over[i]:
		return "ok"
	case r.shadow || r.quota:
		return "shadow"
	default:
		return "over"
	}
}
