package opa

import (
	"strings"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are documented in docs/decisions.md. opa_decision_duration_seconds is the name that the seeds' alerts ask for.
type metrics struct {
	duration  *prometheus.HistogramVec
	decisions *prometheus.CounterVec
	dropped   prometheus.Counter
	packages  *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		duration: prometheus.NewHistogramVec(prometheus.HistogramOpts{
			Name: "opa_decision_duration_seconds", Help: "Time to decide about a request, in seconds.",
			Buckets: []float64{0.00005, 0.0001, 0.00025, 0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25},
		}, []string{"decision"}),
		decisions: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "credence_opa_decisions_total", Help: "Decisions by rule, result (allow, deny) and reason.",
		}, []string{"decision", "result", "reason"}),
		dropped: prometheus.NewCounter(prometheus.CounterOpts{
			Name: "credence_opa_decision_log_dropped_total", Help: "Decisions that the log was too slow to take.",
		}),
		packages: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "credence_opa_packages", Help: "Rego packages by state: current, last_good, broken.",
		}, []string{"state"}),
	}
	for _, c := range []prometheus.Collector{m.duration, m.decisions, m.dropped, m.packages} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

func (m *metrics) decided(d Decision) {
	rule, result := strings.TrimPrefix(d.Decision, "data."), "deny"
	if d.Allowed {
		result = "allow"
	}
	m.duration.WithLabelValues(rule).Observe(d.Duration.Seconds())
	m.decisions.WithLabelValues(rule, result, string(d.Reason)).Inc()
}

// refused counts a caller that may not ask. No time is observed: nothing was decided.
func (m *metrics) refused() { m.decisions.WithLabelValues("", "deny", string(Caller)).Inc() }

func (m *metrics) loaded(b *build) {
	stale := 0
	for _, g := range b.groups {
		if g.fallback {
			stale++
		}
	}
	m.packages.WithLabelValues("current").Set(float64(len(b.groups) - stale))
	m.packages.WithLabelValues("last_good").Set(float64(stale))
	m.packages.WithLabelValues("broken").Set(float64(len(b.broken)))
}
