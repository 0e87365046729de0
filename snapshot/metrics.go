package snapshot

import (
	"github.com/prometheus/client_golang/prometheus"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/resource"
)

// metrics reads the accounts when it is asked, so that nothing is counted twice and a proxy that is gone leaves nothing behind.
type metrics struct {
	pipeline *Pipeline
	status   *Status

	proxies, inStep, refusing, sent, acked, nacked, bytes *prometheus.Desc
	parts, workloads, kept, withheld, problems            *prometheus.Desc
	published, took                                       *prometheus.Desc
}

// Register makes the pipeline and the status visible to Prometheus.
func Register(r prometheus.Registerer, p *Pipeline, s *Status) error {
	d := func(name, help string, labels ...string) *prometheus.Desc {
		return prometheus.NewDesc("credence_"+name, help, labels, nil)
	}
	return r.Register(&metrics{
		pipeline: p, status: s,
		proxies:   d("xds_proxies", "Connected proxies."),
		inStep:    d("xds_proxies_in_step", "Connected proxies that took all that they want."),
		refusing:  d("xds_proxies_refusing", "Connected proxies that refuse something."),
		sent:      d("xds_responses_total", "Responses sent.", "type"),
		acked:     d("xds_acks_total", "Responses that proxies took.", "type"),
		nacked:    d("xds_nacks_total", "Responses that proxies refused.", "type"),
		bytes:     d("xds_sent_bytes_total", "Bytes of responses, before TLS.", "type"),
		parts:     d("snapshot_parts", "Parts of the configuration."),
		workloads: d("snapshot_workloads", "Workloads of the configuration."),
		kept:      d("snapshot_parts_kept", "Parts that could not be built and stand at their last good configuration."),
		withheld:  d("snapshot_parts_withheld", "Parts that could not be built and have no good configuration."),
		problems:  d("problems", "Problems of the configuration.", "severity"),
		published: d("snapshot_published_total", "How often views were published."),
		took:      d("snapshot_last_publication_seconds", "How long the last publication took."),
	})
}

// Describe implements prometheus.Collector.
func (m *metrics) Describe(ch chan<- *prometheus.Desc) { prometheus.DescribeByCollect(m, ch) }

// Collect implements prometheus.Collector.
func (m *metrics) Collect(ch chan<- prometheus.Metric) {
	gauge := func(d *prometheus.Desc, v float64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.GaugeValue, v, labels...)
	}
	counter := func(d *prometheus.Desc, v uint64, labels ...string) {
		ch <- prometheus.MustNewConstMetric(d, prometheus.CounterValue, float64(v), labels...)
	}
	all, inStep, refusing := m.status.tally()
	gauge(m.proxies, float64(all))
	gauge(m.inStep, float64(inStep))
	gauge(m.refusing, float64(refusing))
	m.status.mu.Lock()
	sums := m.status.totals
	m.status.mu.Unlock()
	for t, c := range sums {
		name := resource.Type(t).String()
		counter(m.sent, c.sent, name)
		counter(m.acked, c.acked, name)
		counter(m.nacked, c.nacked, name)
		counter(m.bytes, c.bytes, name)
	}
	r := m.pipeline.Report()
	gauge(m.parts, float64(r.Parts))
	gauge(m.workloads, float64(r.Workloads))
	gauge(m.kept, float64(len(r.Kept)))
	gauge(m.withheld, float64(len(r.Withheld)))
	counter(m.published, r.Published)
	gauge(m.took, r.Took.Seconds())
	counts := map[policy.Severity]int{policy.Error: 0, policy.Warning: 0, policy.Info: 0}
	for _, p := range r.Problems() {
		counts[p.Severity]++
	}
	for s, n := range counts {
		gauge(m.problems, float64(n), s.String())
	}
}

// tally counts the proxies, those in step, and those that refuse something.
func (s *Status) tally() (all, inStep, refusing int) {
	for _, p := range s.Proxies() {
		all++
		if p.InStep {
			inStep++
		}
		if p.Nack != nil {
			refusing++
		}
	}
	return all, inStep, refusing
}
