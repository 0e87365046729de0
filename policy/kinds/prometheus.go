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
			d.Problems = append(d.Problems, policy.Problem{
				At: policy.Origin{File: d.file, Line: line + offset}, Object: "rule " + name, Field: field, Code: CodeUnknownMetric,
				Severity: policy.Warning, Says: fmt.Sprintf("no proxy and no decision service emits %s: the rule never fires", metric), Try: instead(metric),
			})
		}
	}
}

// emitted tells whether Envoy, Istio's standard metrics or Credence have a metric of this name.
func emitted(metric string) bool {
	for _, suffix := range []string{"_bucket", "_sum", "_count"} {
		metric = strings.TrimSuffix(metric, suffix)
	}
	if rest, ok := strings.CutPrefix(metric, "envoy_"); ok {
		return slices.ContainsFunc(envoyFamilies(), func(f string) bool { return strings.HasPrefix(rest, f) })
	}
	return slices.Contains(istioMetrics(), metric)
}

// envoyFamilies are the first words of Envoy's statistics, as its Prometheus endpoint prints them.
func envoyFamilies() []string {
	return []string{
		"cluster_", "listener_", "http_", "server_", "tcp_", "udp_", "vhost_", "dns_", "filesystem_", "runtime_", "wasm_", "overload_",
		"main_thread_", "workers_", "thrift_", "redis_", "mongo_", "tls_inspector_", "control_plane_", "sds_", "access_logs_", "grpc_",
	}
}

func istioMetrics() []string {
	return []string{
		"istio_requests", "istio_requests_total", "istio_request_duration_milliseconds", "istio_request_bytes", "istio_response_bytes",
		"istio_request_messages_total", "istio_response_messages_total", "istio_tcp_sent_bytes_total", "istio_tcp_received_bytes_total",
		"istio_tcp_connections_opened_total", "istio_tcp_connections_closed_total", "istio_build", "istio_agent_cert_expiry_seconds",
	}
}

// instead is the metric that was probably meant.
func instead(metric string) string {
	if strings.HasPrefix(metric, "opa_") {
		return "grpc_request_duration_seconds, which OPA's Envoy plugin has where it is switched on"
	}
	if rest, ok := strings.CutPrefix(metric, "envoy_ssl_"); ok {
		return "envoy_listener_ssl_" + rest + " (connections from clients) or envoy_cluster_ssl_" + rest + " (connections to services)"
	}
	if near, ok := strict.Nearest(metric, istioMetrics()); ok {
		return "did you mean " + near + "?"
	}
	return "look at the proxies' /stats/prometheus"
}
