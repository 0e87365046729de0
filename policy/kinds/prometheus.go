package kinds

import (
	"fmt"
	"regexp"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/strict"
)

// prometheus looks at rules for the metrics of a mesh that nobody emits: such an alert never fires, and nothing says so.
func (d *decoder) prometheus(root, groups *yaml.Node) {
	d.info(policy.Origin{File: d.file, Line: root.Line}, "", "a Prometheus rule file")
	for i, g := range groups.Content {
		rules := child(g, "rules")
		if rules == nil {
			continue
		}
		for j, rule := range rules.Content {
			d.expression(rule, fmt.Sprintf("groups[%d].rules[%d].expr", i, j))
		}
	}
}

var metricName = regexp.MustCompile(`\b(?:istio|envoy|opa)_[a-z0-9_]+`)

func (d *decoder) expression(rule *yaml.Node, field string) {
	expr := child(rule, "expr")
	if expr == nil {
		return
	}
	name := textOf(rule, "alert")
	if name == "" {
		name = textOf(rule, "record")
	}
	line := lineOf(rule, "expr")
	if expr.Style&(yaml.LiteralStyle|yaml.FoldedStyle) != 0 {
		line = expr.Line + 1 // the text starts below the indicator
	}
	var told []string
	for offset, text := range slices.Collect(strings.Lines(expr.Value)) {
		for _, metric := range metricName.FindAllString(text, -1) {
			if emitted(metric) || slices.Contains(told, metric) {
				continue
			}
			told = append(told, metric)
			p := unknownMetric(metric)
			p.At, p.Object, p.Field = policy.Origin{File: d.file, Line: line + offset}, "rule "+name, field
			d.Problems = append(d.Problems, p)
		}
	}
}

// unknownMetric is what is told of a metric that a rule expects of a mesh.
func unknownMetric(metric string) policy.Problem {
	if family(metric) == ownDecisions {
		return policy.Problem{
			Code: CodeUnknownMetric, Severity: policy.Info,
			Says: fmt.Sprintf("neither OPA nor Envoy emits %s; the decision service of credence does, so the rule works here and nowhere else", metric),
			Try:  "let Prometheus scrape /metrics of credence's admin address",
		}
	}
	if slices.Contains(istioMetrics(), family(metric)) {
		return policy.Problem{
			Code: CodeUnknownMetric, Severity: policy.Warning,
			Says: fmt.Sprintf("%s comes from a filter that only Istio's own proxies have; Envoy here does not emit it, so the rule never fires", metric),
			Try:  "Envoy's own metrics: envoy_http_downstream_rq_xx, envoy_cluster_upstream_rq, envoy_cluster_upstream_rq_time_bucket",
		}
	}
	return policy.Problem{
		Code: CodeUnknownMetric, Severity: policy.Warning,
		Says: fmt.Sprintf("nobody emits %s, neither proxies nor credence: the rule never fires", metric), Try: instead(metric),
	}
}

// ownDecisions is the duration of decisions under the name that alerts of the field ask for; package opa emits it.
const ownDecisions = "opa_decision_duration_seconds"

// family is the name of a metric without what a histogram appends.
func family(metric string) string {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		metric = strings.TrimSuffix(metric, suffix)
	}
	return metric
}

// emitted tells whether Envoy has a metric of this name.
func emitted(metric string) bool {
	rest, ok := strings.CutPrefix(family(metric), "envoy_")
	return ok && slices.ContainsFunc(envoyFamilies(), func(f string) bool { return strings.HasPrefix(rest, f) })
}

// envoyFamilies are the first words of Envoy's statistics, as its Prometheus endpoint prints them.
func envoyFamilies() []string {
	return []string{
		"cluster_", "listener_", "http_", "server_", "tcp_", "udp_", "vhost_", "dns_", "filesystem_", "runtime_", "wasm_", "overload_",
		"main_thread_", "workers_", "thrift_", "redis_", "mongo_", "tls_inspector_", "control_plane_", "sds_", "access_logs_", "grpc_",
	}
}

// istioMetrics are the standard metrics of Istio's proxies.
func istioMetrics() []string {
	return []string{
		"istio_requests_total", "istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes",
		"istio_request_messages_total", "istio_response_messages_total", "istio_tcp_sent_bytes_total", "istio_tcp_received_bytes_total",
		"istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total", "istio_build", "istio_agent_cert_expiry_seconds",
	}
}

// instead is the metric that was probably meant.
func instead(metric string) string {
	if strings.HasPrefix(metric, "opa_") {
		return ownDecisions + "_bucket, of credence; OPA's own Envoy plugin has grpc_request_duration_seconds"
	}
	if rest, ok := strings.CutPrefix(metric, "envoy_ssl_"); ok {
		return "envoy_listener_ssl_" + rest + " (connections from clients) or envoy_cluster_ssl_" + rest + " (connections to services)"
	}
	if near, ok := strict.Nearest(metric, istioMetrics()); ok {
		return "did you mean " + near + "?"
	}
	return "look at the proxies' /stats/prometheus"
}
