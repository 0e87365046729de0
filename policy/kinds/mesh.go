package kinds

import (
	"fmt"
	"net/netip"
	"strings"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	telemetryv1alpha1 "istio.io/api/telemetry/v1alpha1"

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
	}
	o.checkLabels(at+".labels", e.GetLabels())
}

func endpointAddress(a string) bool {
	if path, ok := strings.CutPrefix(a, "unix://"); ok {
		return strings.HasPrefix(path, "/") || strings.HasPrefix(path, "@")
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
		o.refuse("spec.hosts", CodeMissingField, "", "a ServiceEntry names a host")
	}
	for i, h := range spec.GetHosts() {
		if !hostname(h) {
			o.refuse(fmt.Sprintf("spec.hosts[%d]", i), CodeBadValue, "", "%q is no host name", h)
		}
	}
	for i, a := range spec.GetAddresses() {
		if !ipBlock(a) {
			o.refuse(fmt.Sprintf("spec.addresses[%d]", i), CodeBadIPBlock, "", "%q is no IP address or CIDR block", a)
		}
	}
	names, numbers := map[string]bool{}, map[string]bool{}
	for i, p := range spec.GetPorts() {
		at := fmt.Sprintf("spec.ports[%d]", i)
		o.port(at+".number", int32(min(p.GetNumber(), 1<<30)))
		if p.GetName() == "" {
			o.refuse(at+".name", CodeMissingField, "", "a port has a name")
		}
		o.unique(at+".name", "port name", p.GetName(), names)
		o.unique(at+".number", "port", fmt.Sprint(p.GetNumber()), numbers)
	}
	if len(spec.GetEndpoints()) > 0 && spec.GetWorkloadSelector() != nil {
		o.refuse("spec.workloadSelector", CodeConflict, "keep one of them", "endpoints and workloadSelector exclude each other")
	}
	if len(spec.GetEndpoints()) > 0 && spec.GetResolution() == networkingv1alpha3.ServiceEntry_NONE {
		o.refuse("spec.endpoints", CodeConflict, "resolution: STATIC, or DNS", "endpoints need a resolution other than NONE")
	}
	for i, e := range spec.GetEndpoints() {
		o.entry(fmt.Sprintf("spec.endpoints[%d]", i), e)
	}
	return &policy.ServiceEntry{Spec: spec}
}

func sidecar(o *object) policy.Resource {
	spec := specOf[networkingv1alpha3.Sidecar](o)
	o.checkLabels("spec.workloadSelector.labels", spec.GetWorkloadSelector().GetLabels())
	numbers := map[string]bool{}
	for i, in := range spec.GetIngress() {
		at := fmt.Sprintf("spec.ingress[%d]", i)
		o.port(at+".port.number", int32(min(in.GetPort().GetNumber(), 1<<30)))
		o.unique(at+".port.number", "port", fmt.Sprint(in.GetPort().GetNumber()), numbers)
		if e := in.GetDefaultEndpoint(); e != "" && !localEndpoint(e) {
			o.refuse(at+".defaultEndpoint", CodeBadValue, "127.0.0.1:PORT, 0.0.0.0:PORT or unix:///path", "%q is no local endpoint", e)
		}
	}
	for i, out := range spec.GetEgress() {
		at := fmt.Sprintf("spec.egress[%d].hosts", i)
		if len(out.GetHosts()) == 0 {
			o.refuse(at, CodeMissingField, `hosts: ["./*"]`, "an egress listener names hosts")
		}
		for j, h := range out.GetHosts() {
			space, host, ok := strings.Cut(h, "/")
			if !ok || space == "" || host != "*" && !hostname(host) {
				o.refuse(fmt.Sprintf("%s[%d]", at, j), CodeBadValue, "namespace/host, with ., ~ or * as namespace", "%q is no namespace and host", h)
			}
		}
	}
	return &policy.Sidecar{Spec: spec}
}

func localEndpoint(e string) bool {
	if path, ok := strings.CutPrefix(e, "unix://"); ok {
		return path != ""
	}
	ap, err := netip.ParseAddrPort(e)
	return err == nil && ap.Port() > 0 && (ap.Addr().IsLoopback() || ap.Addr().IsUnspecified())
}

func envoyFilter(o *object) policy.Resource {
	spec := specOf[networkingv1alpha3.EnvoyFilter](o)
	o.checkLabels("spec.workloadSelector.labels", spec.GetWorkloadSelector().GetLabels())
	if spec.GetWorkloadSelector() != nil && len(spec.GetTargetRefs()) > 0 {
		o.refuse("spec.workloadSelector", CodeConflict, "keep one of them", "workloadSelector and targetRefs exclude each other")
	}
	for i, t := range spec.GetTargetRefs() {
		o.target(fmt.Sprintf("spec.targetRefs[%d]", i), t)
	}
	for i, p := range spec.GetConfigPatches() {
		o.patch(fmt.Sprintf("spec.configPatches[%d]", i), p)
	}
	return &policy.EnvoyFilter{Spec: spec}
}

func (o *object) patch(at string, p *networkingv1alpha3.EnvoyFilter_EnvoyConfigObjectPatch) {
	if p.GetApplyTo() == networkingv1alpha3.EnvoyFilter_INVALID {
		o.refuse(at+".applyTo", CodeMissingField, "HTTP_FILTER, CLUSTER, LISTENER …", "a patch says what it applies to")
	}
	op := p.GetPatch().GetOperation()
	if op == networkingv1alpha3.EnvoyFilter_Patch_INVALID {
		o.refuse(at+".patch.operation", CodeMissingField, "MERGE, ADD, INSERT_BEFORE, REMOVE …", "a patch has an operation")
		return
	}
	if op != networkingv1alpha3.EnvoyFilter_Patch_REMOVE && p.GetPatch().GetValue() == nil {
		o.refuse(at+".patch.value", CodeMissingField, "", "operation %s needs a value", op)
	}
	filter := p.GetApplyTo() == networkingv1alpha3.EnvoyFilter_HTTP_FILTER || p.GetApplyTo() == networkingv1alpha3.EnvoyFilter_NETWORK_FILTER
	adds := op != networkingv1alpha3.EnvoyFilter_Patch_REMOVE && op != networkingv1alpha3.EnvoyFilter_Patch_MERGE
	if filter && adds && p.GetPatch().GetValue().GetFields()["name"].GetStringValue() == "" {
		o.refuse(at+".patch.value", CodeMissingField, "name: envoy.filters.http.…", "a filter has a name")
	}
	o.patchMatch(at, p)
}

// patchMatch checks that what is matched is the kind of thing that is patched.
func (o *object) patchMatch(at string, p *networkingv1alpha3.EnvoyFilter_EnvoyConfigObjectPatch) {
	m := p.GetMatch()
	if m.GetObjectTypes() == nil {
		return
	}
	ok := true
	switch p.GetApplyTo() {
	case networkingv1alpha3.EnvoyFilter_LISTENER, networkingv1alpha3.EnvoyFilter_FILTER_CHAIN, networkingv1alpha3.EnvoyFilter_NETWORK_FILTER,
		networkingv1alpha3.EnvoyFilter_HTTP_FILTER, networkingv1alpha3.EnvoyFilter_LISTENER_FILTER:
		ok = m.GetListener() != nil || m.GetWaypoint() != nil
	case networkingv1alpha3.EnvoyFilter_ROUTE_CONFIGURATION, networkingv1alpha3.EnvoyFilter_VIRTUAL_HOST, networkingv1alpha3.EnvoyFilter_HTTP_ROUTE:
		ok = m.GetRouteConfiguration() != nil || m.GetWaypoint() != nil
	case networkingv1alpha3.EnvoyFilter_CLUSTER:
		ok = m.GetCluster() != nil
	}
	if !ok {
		o.refuse(at+".match", CodeConflict, "", "the match is not about a %s, which the patch applies to", p.GetApplyTo())
	}
}

func telemetryOf(o *object) policy.Resource {
	spec := specOf[telemetryv1alpha1.Telemetry](o)
	o.targets(spec.GetSelector(), spec.GetTargetRef(), spec.GetTargetRefs())
	for i, t := range spec.GetTracing() {
		at := fmt.Sprintf("spec.tracing[%d]", i)
		if s := t.GetRandomSamplingPercentage(); s != nil && (s.GetValue() < 0 || s.GetValue() > 100) {
			o.refuse(at+".randomSamplingPercentage", CodeBadValue, "0 to 100", "%g is no percentage", s.GetValue())
		}
		for j, p := range t.GetProviders() {
			if p.GetName() == "" {
				o.refuse(fmt.Sprintf("%s.providers[%d].name", at, j), CodeMissingField, "", "a provider has a name")
			}
		}
		for name, tag := range t.GetCustomTags() {
			o.customTag(at+".customTags["+name+"]", tag)
		}
	}
	return &policy.Telemetry{Spec: spec}
}

func (o *object) customTag(at string, t *telemetryv1alpha1.Tracing_CustomTag) {
	switch {
	case t.GetType() == nil:
		o.refuse(at, CodeMissingField, "literal, environment, header or formatter", "a tag has a source")
	case t.GetHeader() != nil && t.GetHeader().GetName() == "":
		o.refuse(at+".header.name", CodeMissingField, "", "name is empty")
	case t.GetEnvironment() != nil && t.GetEnvironment().GetName() == "":
		o.refuse(at+".environment.name", CodeMissingField, "", "name is empty")
	case t.GetLiteral() != nil && t.GetLiteral().GetValue() == "":
		o.refuse(at+".literal.value", CodeMissingField, "", "value is empty")
	}
}
