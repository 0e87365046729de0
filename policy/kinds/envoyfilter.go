package kinds

import (
	"fmt"
	"regexp"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"

	"github.com/credence-mesh/credence/policy"
)

func envoyFilter(o *object) policy.Resource {
	spec := specOf[networkingv1alpha3.EnvoyFilter](o)
	o.checkLabels("spec.workloadSelector.labels", spec.GetWorkloadSelector().GetLabels())
	if spec.GetWorkloadSelector() != nil && len(spec.GetTargetRefs()) > 0 {
		o.refuse("spec.workloadSelector", CodeConflict, "keep one of them", "workloadSelector and targetRefs exclude each other")
	}
	o.atMost("spec.targetRefs", len(spec.GetTargetRefs()), maxTargets)
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
		o.refuse(at+".patch.value", CodeMissingField, "value: the part of Envoy's configuration to put there", "operation %s needs a value", op)
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
	if _, err := regexp.Compile(m.GetProxy().GetProxyVersion()); err != nil {
		o.refuse(at+".match.proxy.proxyVersion", CodeBadRegex, "the syntax of RE2", "%q is no regular expression", m.GetProxy().GetProxyVersion())
	}
	if m.GetObjectTypes() == nil {
		return
	}
	if (m.GetContext() == networkingv1alpha3.EnvoyFilter_WAYPOINT) != (m.GetWaypoint() != nil) {
		o.refuse(at+".match.context", CodeConflict, "context: SIDECAR_INBOUND, SIDECAR_OUTBOUND or GATEWAY", "a waypoint match and context WAYPOINT go together")
	}
	o.filterMatch(at+".match.listener.filterChain.filter", p)
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
		o.refuse(at+".match", CodeConflict, "match: {listener: …}, {routeConfiguration: …} or {cluster: …}, as applyTo wants", "the match is not about a %s, which the patch applies to", p.GetApplyTo())
	}
}

const connectionManager = "envoy.filters.network.http_connection_manager"

// filterMatch checks the match on a filter and on a filter in it.
func (o *object) filterMatch(at string, p *networkingv1alpha3.EnvoyFilter_EnvoyConfigObjectPatch) {
	f := p.GetMatch().GetListener().GetFilterChain().GetFilter()
	if f == nil {
		return
	}
	if f.GetName() == "" {
		o.refuse(at, CodeMissingField, "name: "+connectionManager, "a match on a filter names it")
	}
	if f.GetSubFilter() == nil {
		return
	}
	switch {
	case p.GetApplyTo() != networkingv1alpha3.EnvoyFilter_HTTP_FILTER:
		o.refuse(at+".subFilter", CodeConflict, "applyTo: HTTP_FILTER", "a match on a filter in a filter is for HTTP_FILTER")
	case f.GetName() != "" && f.GetName() != connectionManager && f.GetName() != "envoy.http_connection_manager":
		o.refuse(at+".name", CodeConflict, "name: "+connectionManager, "%q has no filters in it", f.GetName())
	case f.GetSubFilter().GetName() == "":
		o.refuse(at+".subFilter", CodeMissingField, "name: envoy.filters.http.router", "a match on a filter names it")
	}
}
