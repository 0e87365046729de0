// Package kinds turns the text of one file into policy resources: it knows every kind and API version that is accepted, decodes each strictly,
// and checks what a schema cannot say, as the admission webhooks of Istio and of the Gateway API do. It does no I/O.
package kinds

import (
	"github.com/credence-mesh/credence/policy"
)

// The stable codes of this package, beside those of package strict; docs/problems.md explains each.
const (
	CodeMissingKind       = "MISSING_KIND"
	CodeUnknownKind       = "UNKNOWN_KIND"
	CodeUnknownAPIVersion = "UNKNOWN_API_VERSION"
	CodeUnsupportedKind   = "UNSUPPORTED_KIND"
	CodeNotUsed           = "NOT_USED"
	CodeBadName           = "BAD_NAME"
	CodeMissingField      = "MISSING_FIELD"
	CodeBadValue          = "BAD_VALUE"
	CodeConflict          = "CONFLICTING_FIELDS"
	CodeTooMany           = "TOO_MANY"
	CodeDuplicateName     = "DUPLICATE_NAME"
	CodeDuplicateObject   = "DUPLICATE_OBJECT"
	CodeRulesRequired     = "RULES_REQUIRED"
	CodeEmptyMatch        = "EMPTY_MATCH"
	CodeCustomField       = "CUSTOM_UNVERIFIED_FIELD"
	CodeUnknownCondition  = "UNKNOWN_CONDITION_KEY"
	CodeBadPathTemplate   = "BAD_PATH_TEMPLATE"
	CodeBadIPBlock        = "BAD_IP_BLOCK"
	CodeBadRegex          = "BAD_REGEX"
	CodeBadPort           = "BAD_PORT"
	CodeDryRunAction      = "DRY_RUN_ACTION"
	CodeBadTargetRef      = "BAD_TARGET_REF"
	CodeFieldAlias        = "FIELD_ALIAS"
	CodeRegoSyntax        = "REGO_SYNTAX"
	CodeRegoV0            = "REGO_V0"
	CodeUnknownMetric     = "PROMETHEUS_UNKNOWN_METRIC"
	CodeNoParent          = "ROUTE_WITHOUT_PARENT"
)

// Result is what a file says.
type Result struct {
	Objects  []policy.Resource // good ones, in the order of the file
	Refused  []Refused
	Unread   []Unread // what may have been any policy
	Problems []policy.Problem
}

// Refused is an object that may not be put in force.
type Refused struct {
	Key policy.Key
	// Void stands in for the object where no earlier version is known, so that what it guards is closed. It is nil for the kinds whose
	// absence closes by itself: without a Service, a Gateway or a WorkloadEntry there is nothing to reach.
	Void policy.Resource
}

// accepted is one kind that is read.
type accepted struct {
	kind     policy.Kind
	versions []string
	cluster  bool // has no namespace
	read     func(*object) policy.Resource
}

// accept finds how a kind of a group is read.
func accept(group, kind string) (accepted, bool) {
	for _, a := range groups(group) {
		if string(a.kind) == kind {
			return a, true
		}
	}
	return accepted{}, false
}

func acceptedGroups() []string {
	return []string{
		"", "discovery.k8s.io", "security.istio.io", "networking.istio.io", "telemetry.istio.io", "gateway.networking.k8s.io",
		"spire.spiffe.io", "cert-manager.io",
	}
}

func groups(group string) []accepted {
	v1, istio, alpha := []string{"v1"}, []string{"v1", "v1beta1", "v1alpha3"}, []string{"v1alpha1"}
	security, telemetry, gateway := []string{"v1", "v1beta1"}, []string{"v1", "v1alpha1"}, []string{"v1", "v1beta1"}
	switch group {
	case "":
		return []accepted{
			{policy.KindNamespace, v1, true, namespace}, {policy.KindService, v1, false, service}, {policy.KindEndpoints, v1, false, endpoints},
			{policy.KindConfigMap, v1, false, configMap}, {policy.KindSecret, v1, false, secret},
			{policy.KindServiceAccount, v1, false, serviceAccount},
		}
	case "discovery.k8s.io":
		return []accepted{{policy.KindEndpointSlice, v1, false, endpointSlice}}
	case "security.istio.io":
		return []accepted{
			{policy.KindPeerAuthentication, security, false, peerAuthentication},
			{policy.KindRequestAuthentication, security, false, requestAuthentication},
			{policy.KindAuthorizationPolicy, security, false, authorizationPolicy},
		}
	case "networking.istio.io":
		return []accepted{
			{policy.KindWorkloadEntry, istio, false, workloadEntry}, {policy.KindServiceEntry, istio, false, serviceEntry},
			{policy.KindSidecar, istio, false, sidecar}, {policy.KindEnvoyFilter, istio, false, envoyFilter},
		}
	case "telemetry.istio.io":
		return []accepted{{policy.KindTelemetry, telemetry, false, telemetryOf}}
	case "gateway.networking.k8s.io":
		return []accepted{
			{policy.KindGateway, gateway, false, gatewayOf}, {policy.KindHTTPRoute, gateway, false, httpRoute},
			{policy.KindReferenceGrant, gateway, false, referenceGrant},
		}
	case "spire.spiffe.io":
		return []accepted{{policy.KindClusterSPIFFEID, alpha, true, clusterSPIFFEID}}
	case "cert-manager.io":
		return []accepted{{policy.KindClusterIssuer, v1, true, clusterIssuer}, {policy.KindCertificate, v1, false, certificate}}
	}
	return nil
}

func acceptedKinds() []string {
	var names []string
	for _, g := range acceptedGroups() {
		for _, a := range groups(g) {
			names = append(names, string(a.kind))
		}
	}
	return names
}

// unused tells of a kind that is legal where users keep it, but means nothing here.
func unused(group, kind string) bool {
	switch group {
	case "apps", "batch", "autoscaling", "policy", "rbac.authorization.k8s.io", "apiextensions.k8s.io", "storage.k8s.io", "scheduling.k8s.io",
		"admissionregistration.k8s.io", "apiregistration.k8s.io", "coordination.k8s.io", "networking.k8s.io", "certificates.k8s.io",
		"node.k8s.io", "events.k8s.io", "monitoring.coreos.com", "kustomize.config.k8s.io", "helm.toolkit.fluxcd.io", "argoproj.io",
		"install.istio.io", "acme.cert-manager.io":
		return true
	case "":
		switch kind {
		case "Pod", "PodTemplate", "ReplicationController", "PersistentVolume", "PersistentVolumeClaim", "LimitRange", "ResourceQuota", "Node",
			"Event", "Binding", "ComponentStatus":
			return true
		}
	case "gateway.networking.k8s.io":
		return kind == "GatewayClass"
	case "cert-manager.io":
		return kind == "Issuer" || kind == "CertificateRequest"
	}
	return false
}

// unsupported names what to use in place of a kind that would change how requests are handled, if it were read. It is an error, not a
// remark: who wrote it believes that it holds.
func unsupported(group, kind string) (instead string, ok bool) {
	switch group + "/" + kind {
	case "networking.istio.io/VirtualService":
		return "an HTTPRoute of gateway.networking.k8s.io/v1", true
	case "networking.istio.io/Gateway":
		return "a Gateway of gateway.networking.k8s.io/v1", true
	case "networking.istio.io/DestinationRule", "networking.istio.io/WorkloadGroup", "networking.istio.io/ProxyConfig",
		"extensions.istio.io/WasmPlugin", "gateway.networking.k8s.io/GRPCRoute", "gateway.networking.k8s.io/TCPRoute",
		"gateway.networking.k8s.io/TLSRoute", "gateway.networking.k8s.io/UDPRoute", "gateway.networking.k8s.io/BackendTLSPolicy",
		"spire.spiffe.io/ClusterStaticEntry", "spire.spiffe.io/ClusterFederatedTrustDomain":
		return "", true
	}
	return "", false
}
