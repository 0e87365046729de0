package jwks

import (
	"net/url"
	"time"

	"github.com/prometheus/client_golang/prometheus"
)

// metrics are documented in docs/security.md.
type metrics struct {
	fetches *prometheus.CounterVec
	last    *prometheus.GaugeVec
}

func newMetrics(r prometheus.Registerer) (*metrics, error) {
	m := &metrics{
		fetches: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "credence_jwks_fetches_total", Help: "Fetches of issuers' keys, by place and result: good, failed.",
		}, []string{"uri", "result"}),
		last: prometheus.NewGaugeVec(prometheus.GaugeOpts{
			Name: "credence_jwks_last_success_timestamp_seconds", Help: "When the keys of a place were last fetched, or found unchanged.",
		}, []string{"uri"}),
	}
	if r == nil {
		return m, nil
	}
	for _, c := range []prometheus.Collector{m.fetches, m.last} {
		if err := r.Register(c); err != nil {
			return nil, err
		}
	}
	return m, nil
}

// label leaves out what could be a secret of a URI.
func label(uri string) string {
	u, err := url.Parse(uri)
	if err != nil {
		return "invalid"
	}
	return u.Scheme + "://" + u.Host + u.Path
}

func (m *metrics) fetched(uri string, at time.Time) {
	m.fetches.WithLabelValues(label(uri), "good").Inc()
	m.last.WithLabelValues(label(uri)).Set(float64(at.UnixNano()) / 1e9)
}

func (m *metrics) failed(uri string) { m.fetches.WithLabelValues(label(uri), "failed").Inc() }

func (m *metrics) forget(uri string) {
	m.fetches.DeletePartialMatch(prometheus.Labels{"uri": label(uri)})
	m.last.DeletePartialMatch(prometheus.Labels{"uri": label(uri)})
}
