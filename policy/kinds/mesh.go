package kinds

import (
	"fmt"
	"net/netip"
	"strings"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	telemetryv1alpha1 "istio.io/api/telemetry/v1alpha1"
	"k8s.io/apimachinery/pkg/util/validation"

	"github.com/credence-mesh/credence/policy"
)

func workloadEntry(o *object) policy.Resource {
	spec := specOf[networkingv1alpha3.WorkloadEntry](o)
	o.entry("spec", spec)
	return &policy.WorkloadEntry{Spec: spec}
}

func (o *object) entry(at string, e *networkingv1alpha3.WorkloadEntry) {
	switch a := e.GetAddress(); {
	case a == "" && e.GetNetwork() == "":
		o.refuse(at+".address", CodeMissingField, "an IP address, a host name or unix:///path", "a workload has an address")
	case a != "" && !endpointAddress(a):
		o.refuse(at+".address", CodeBadValue, "an IP address, a host name or unix:///path", "%q is no address", a)
	case strings.HasPrefix(a, "unix://") && len(e.GetPorts()) > 0:
		o.refuse(at+".ports", CodeConflict, "remove the ports", "a Unix socket has no ports")
	}
	for name, p := range e.GetPorts() {
		if !port(p) {
			o.refuse(at+".ports["+name+"]", CodeBadPort, "1 to 65535", "%d is no port", p)
		}
		if !portName(name) {
			o.refuse(at+".ports["+name+"]", CodeBadName, "letters, digits and -, as http-api", "%q is no name of a port", name)
		}
	}
	o.checkLabels(at+".labels", e.GetLabels())
	for k, v := range e.GetLabels() {
		if len(validation.IsQualifiedName(k))+len(validation.IsValidLabelValue(v)) > 0 {
			o.refuse(at+".labels["+k+"]", CodeBadValue, "letters, digits, -, _ and ., at most 63", "%q is no label that a workload can have", k+": "+v)
		}
	}
}

func endpointAddress(a string) bool {
	if path, ok := strings.CutPrefix(a, "unix://"); ok {
		return (strings.HasPrefix(path, "/") || strings.HasPrefix(path, "@")) && !strings.HasSuffix(path, "/")
	}
	if _, err := netip.ParseAddr(a); err == nil {
		return true
	}
	return subdomain(strings.ToLower(a)) && !looksLikeIP(a)
}

// looksLikeIP tells a mistyped address from a host name.
func looksLikeIP(a string) bool { return strings.Trim(a, "0123456789.") == "" }

func serviceEntry(o *object) policy.Resource {
	spec := specOf[networkingv1alpha3.ServiceEntry](o)
	if len(spec.GetHosts()) == 0 {
		o.refuse("spec.hosts", CodeMissingField, "hosts: [api.example.com]", "a ServiceEntry names a host")
	}
	for i, h := range spec.GetHosts() {
		if !hostname(h) {
			o.refuse(fmt.Sprintf("spec.hosts[%d]", i), CodeBadValue, "a DNS name: shop.example.com, or *.example.com where a wildcard is meant", "%q is no host name", h)
		}
	}
	o.atMost("spec.hosts", len(spec.GetHosts()), maxHosts)
	o.atMost("spec.ports", len(spec.GetPorts()), maxHosts)
	o.atMost("spec.addresses", len(spec.GetAddresses()), maxHosts)
	for i, a := range spec.GetAddresses() {
		if !ipBlock(a) {
			o.refuse(fmt.Sprintf("spec.addresses[%d]", i), CodeBadIPBlock, "10.1.2.3 or 10.0.0.0/8", "%q is no IP address or CIDR block", a)
		}
	}
	names, numbers := map[string]bool{}, map[string]bool{}
	for i, p := range spec.GetPorts() {
		at := fmt.Sprintf("spec.ports[%d]", i)
		o.port(at+".number", int32(min(p.GetNumber(), 1<<30)))
		if p.GetName() == "" {
			o.refuse(at+".name", CodeMissingField, "name: http-api", "a port has a name")
		} else if !portName(p.GetName()) {
			o.refuse(at+".name", CodeBadName, "letters, digits and -, as http-api", "%q is no name of a port", p.GetName())
		}
		o.protocol(at+".protocol", p.GetProtocol())
		if o.written(at + ".targetPort") {
			o.port(at+".targetPort", int32(min(p.GetTargetPort(), 1<<30)))
		}
		o.unique(at+".name", "port name", p.GetName(), names)
		o.unique(at+".number", "port", fmt.Sprint(p.GetNumber()), numbers)
	}
	if len(spec.GetEndpoints()) > 0 && spec.GetWorkloadSelector() != nil {
		o.refuse("spec.workloadSelector", CodeConflict, "keep one of them", "endpoints and workloadSelector exclude each other")
	}
	o.checkLabels("spec.workloadSelector.labels", spec.GetWorkloadSelector().GetLabels())
	o.resolution(spec)
	for i, e := range spec.GetEndpoints() {
		at := fmt.Sprintf("spec.endpoints[%d]", i)
		o.entry(at, e)
		for name := range e.GetPorts() {
			if !names[name] {
				o.refuse(at+".ports["+name+"]", CodeBadPort, "a name of spec.ports", "the ServiceEntry has no port %q", name)
			}
		}
	}
	return &policy.ServiceEntry{Spec: spec}
}

// resolution checks that hosts, addresses and endpoints are such as the way to resolve them can use.
func (o *object) resolution(spec *networkingv1alpha3.ServiceEntry) {
	mode, ends := spec.GetResolution(), spec.GetEndpoints()
	dns := mode == networkingv1alpha3.ServiceEntry_DNS || mode == networkingv1alpha3.ServiceEntry_DNS_ROUND_ROBIN
	if len(ends) > 0 && mode == networkingv1alpha3.ServiceEntry_NONE {
		o.refuse("spec.endpoints", CodeConflict, "resolution: STATIC, or DNS", "endpoints need a resolution other than NONE")
	}
	if len(ends) > 1 && mode == networkingv1alpha3.ServiceEntry_DNS_ROUND_ROBIN {
		o.refuse("spec.endpoints", CodeTooMany, "resolution: DNS", "resolution DNS_ROUND_ROBIN takes one endpoint")
	}
	for i, a := range spec.GetAddresses() {
		if dns && strings.Contains(a, "/") {
			o.refuse(fmt.Sprintf("spec.addresses[%d]", i), CodeConflict, "one address, or resolution: NONE or STATIC", "a CIDR block cannot be resolved by %s", mode)
		}
	}
	for i, h := range spec.GetHosts() {
		if dns && len(ends) == 0 && strings.HasPrefix(h, "*") {
			o.refuse(fmt.Sprintf("spec.hosts[%d]", i), CodeConflict, "the full name, or endpoints", "%q cannot be resolved by %s", h, mode)
		}
	}
	for i, e := range ends {
		at, socket := fmt.Sprintf("spec.endpoints[%d].address", i), strings.HasPrefix(e.GetAddress(), "unix://")
		switch a := e.GetAddress(); {
		case mode == networkingv1alpha3.ServiceEntry_STATIC && a != "" && !socket && !address(a):
			o.refuse(at, CodeConflict, "an IP address, or resolution: DNS", "%q is no IP address, which resolution STATIC takes", a)
		case dns && socket:
			o.refuse(at, CodeConflict, "resolution: STATIC", "a Unix socket is not resolved by %s", mode)
		case socket && len(spec.GetPorts()) != 1:
			o.refuse(at, CodeConflict, "a ServiceEntry of one port", "a Unix socket serves one port, and the ServiceEntry has %d", len(spec.GetPorts()))
		}
	}
}

// protocol checks the name of a protocol; none means that it is not known.
func (o *object) protocol(field, name string) {
	switch strings.ToUpper(name) {
	case "", "HTTP", "HTTP2", "HTTPS", "HTTP_PROXY", "GRPC", "GRPC-WEB", "TCP", "TLS", "UDP", "MONGO", "MYSQL", "REDIS", "HBONE", "DOUBLE-HBONE":
	default:
		o.refuse(field, CodeBadValue, "HTTP, HTTP2, GRPC, HTTPS, TLS or TCP", "unknown protocol %q", name)
	}
}

// maxHosts is the limit of Istio's schema for the hosts, ports and addresses of a ServiceEntry.
const maxHosts = 256

func telemetryOf(o *object) policy.Resource {
	spec := specOf[telemetryv1alpha1.Telemetry](o)
	o.targets(spec.GetSelector(), spec.GetTargetRef(), spec.GetTargetRefs())
	for i, t := range spec.GetTracing() {
		at := fmt.Sprintf("spec.tracing[%d]", i)
		if s := t.GetRandomSamplingPercentage(); s != nil && (s.GetValue() < 0 || s.GetValue() > 100) {
			o.refuse(at+".randomSamplingPercentage", CodeBadValue, "0 to 100", "%g is no percentage", s.GetValue())
		}
		for j, p := range t.GetProviders() {
			o.named(fmt.Sprintf("%s.providers[%d].name", at, j), p.GetName())
		}
		for name, tag := range t.GetCustomTags() {
			o.customTag(at+".customTags["+name+"]", tag)
		}
	}
	for i, l := range spec.GetAccessLogging() {
		for j, p := range l.GetProviders() {
			o.named(fmt.Sprintf("spec.accessLogging[%d].providers[%d].name", i, j), p.GetName())
		}
	}
	for i, m := range spec.GetMetrics() {
		o.metric(fmt.Sprintf("spec.metrics[%d]", i), m)
	}
	return &policy.Telemetry{Spec: spec}
}

func (o *object) named(field, name string) {
	if name == "" {
		o.refuse(field, CodeMissingField, "name: one of mesh.extensionProviders", "a provider has a name")
	}
}

func (o *object) metric(at string, m *telemetryv1alpha1.Metrics) {
	o.positive(at+".reportingInterval", m.GetReportingInterval())
	for i, p := range m.GetProviders() {
		o.named(fmt.Sprintf("%s.providers[%d].name", at, i), p.GetName())
	}
	for i, v := range m.GetOverrides() {
		for name, tag := range v.GetTagOverrides() {
			field := fmt.Sprintf("%s.overrides[%d].tagOverrides[%s]", at, i, name)
			removes := tag.GetOperation() == telemetryv1alpha1.MetricsOverrides_TagOverride_REMOVE
			switch {
			case removes && tag.GetValue() != "":
				o.refuse(field+".value", CodeConflict, "remove it", "a tag that is removed has no value")
			case !removes && tag.GetValue() == "":
				o.refuse(field+".value", CodeMissingField, "value: request.host, or operation: REMOVE", "a tag that is set has a value")
			}
		}
	}
}

func (o *object) customTag(at string, t *telemetryv1alpha1.Tracing_CustomTag) {
	switch {
	case t.GetType() == nil:
		o.refuse(at, CodeMissingField, "literal, environment, header or formatter", "a tag has a source")
	case t.GetHeader() != nil && t.GetHeader().GetName() == "":
		o.refuse(at+".header.name", CodeMissingField, "name: the header or the variable", "name is empty")
	case t.GetEnvironment() != nil && t.GetEnvironment().GetName() == "":
		o.refuse(at+".environment.name", CodeMissingField, "name: the header or the variable", "name is empty")
	case t.GetFormatter() != nil && t.GetFormatter().GetValue() == "":
		o.refuse(at+".formatter.value", CodeMissingField, "value: a text that is not empty", "value is empty")
	case t.GetLiteral() != nil && t.GetLiteral().GetValue() == "":
		o.refuse(at+".literal.value", CodeMissingField, "value: a text that is not empty", "value is empty")
	}
}
