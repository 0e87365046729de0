// Package policy holds what users write: the resource kinds of Istio, the Gateway API, Kubernetes and SPIRE that Credence accepts, each with
// the place it came from, and the immutable, indexed Set of them that everything later is computed from.
package policy

import (
	"cmp"
	"fmt"
	"io"
	"time"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	securityv1beta1 "istio.io/api/security/v1beta1"
	telemetryv1alpha1 "istio.io/api/telemetry/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	discoveryv1 "k8s.io/api/discovery/v1"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"
)

// Kind is the kind of a resource as users write it, without its API group: no two accepted groups share a kind name
// (Istio's networking Gateway is not accepted; Gateway is the Gateway API's).
type Kind string

// The accepted kinds.
const (
	KindNamespace             Kind = "Namespace"
	KindService               Kind = "Service"
	KindEndpoints             Kind = "Endpoints"
	KindEndpointSlice         Kind = "EndpointSlice"
	KindConfigMap             Kind = "ConfigMap"
	KindSecret                Kind = "Secret"
	KindServiceAccount        Kind = "ServiceAccount"
	KindWorkloadEntry         Kind = "WorkloadEntry"
	KindServiceEntry          Kind = "ServiceEntry"
	KindSidecar               Kind = "Sidecar"
	KindPeerAuthentication    Kind = "PeerAuthentication"
	KindRequestAuthentication Kind = "RequestAuthentication"
	KindAuthorizationPolicy   Kind = "AuthorizationPolicy"
	KindTelemetry             Kind = "Telemetry"
	KindEnvoyFilter           Kind = "EnvoyFilter"
	KindGateway               Kind = "Gateway"
	KindHTTPRoute             Kind = "HTTPRoute"
	KindReferenceGrant        Kind = "ReferenceGrant"
	KindClusterSPIFFEID       Kind = "ClusterSPIFFEID"
	KindClusterIssuer         Kind = "ClusterIssuer"
	KindCertificate           Kind = "Certificate"
	KindRego                  Kind = "Rego"      // a .rego file; its name is its path below the directory
	KindJWKS                  Kind = "JWKS"      // keys that the control plane fetched; its name is the URI
	KindRateLimit             Kind = "RateLimit" // a bare envoyproxy/ratelimit configuration file; its name is its domain
)

// Key names one object. Namespace is empty for cluster-scoped kinds.
type Key struct {
	Kind      Kind
	Namespace string
	Name      string
}

// String is "Kind namespace/name", as it is shown to users.
func (k Key) String() string {
	if k.Namespace == "" {
		return string(k.Kind) + " " + k.Name
	}
	return string(k.Kind) + " " + k.Namespace + "/" + k.Name
}

// Compare orders keys by kind, namespace and name.
func (k Key) Compare(o Key) int {
	return cmp.Or(cmp.Compare(k.Kind, o.Kind), cmp.Compare(k.Namespace, o.Namespace), cmp.Compare(k.Name, o.Name))
}

// Object is what every accepted resource has: its name, where it was written, and a digest of all that it says.
type Object struct {
	Key         Key
	Labels      map[string]string
	Annotations map[string]string
	Created     time.Time // metadata.creationTimestamp; zero where the document has none
	At          Origin    // the line of the document's first field
	Digest      uint64    // of the document's content, not of its place: equal digests mean equal objects
	Fields      Fields    // where each field was written; nil where unknown

	// Void: refused, and no earlier good version is known, so what it covers must be closed, not left open. Spec then holds the selector and
	// nothing else (of an HTTPRoute: parents, hosts and matches), or is nil where that could not be read: the whole namespace is covered. Only
	// kinds whose absence would open something are put into a Set void by the sources (PeerAuthentication, RequestAuthentication,
	// AuthorizationPolicy, EnvoyFilter, Sidecar, HTTPRoute, ConfigMap, RateLimit, Rego); any other kind closes by its absence.
	Void bool
}

// Fields finds the line of a field path such as "spec.rules[0].to[1].operation.paths[2]".
type Fields interface {
	// Line is the line of the longest known prefix of path.
	Line(path string) int
}

// Meta gives every kind its Resource behaviour.
func (o *Object) Meta() *Object { return o }

// Where is the origin of one field of the object.
func (o *Object) Where(path string) Origin {
	if o.Fields != nil {
		if l := o.Fields.Line(path); l > 0 {
			return Origin{File: o.At.File, Line: l}
		}
	}
	return o.At
}

// Resource is any accepted object.
type Resource interface {
	Meta() *Object
	kind() Kind
}

// The accepted resources. Spec is the upstream API type as decoded, with the aliases of the seeds already resolved; it must not be modified.
type (
	Namespace struct {
		Object
	}
	Service struct {
		Object
		Spec *corev1.ServiceSpec
	}
	Endpoints struct {
		Object
		Subsets []corev1.EndpointSubset
	}
	EndpointSlice struct {
		Object
		Slice *discoveryv1.EndpointSlice
	}
	ConfigMap struct {
		Object
		Data map[string]string
	}
	Secret struct {
		Object
		Type string
		Data map[string]Private // data and stringData, decoded
	}
	ServiceAccount struct {
		Object
	}
	WorkloadEntry struct {
		Object
		Spec *networkingv1alpha3.WorkloadEntry
	}
	ServiceEntry struct {
		Object
		Spec *networkingv1alpha3.ServiceEntry
	}
	Sidecar struct {
		Object
		Spec *networkingv1alpha3.Sidecar
	}
	PeerAuthentication struct {
		Object
		Spec *securityv1beta1.PeerAuthentication
	}
	RequestAuthentication struct {
		Object
		Spec *securityv1beta1.RequestAuthentication
	}
	AuthorizationPolicy struct {
		Object
		Spec *securityv1beta1.AuthorizationPolicy
	}
	Telemetry struct {
		Object
		Spec *telemetryv1alpha1.Telemetry
	}
	EnvoyFilter struct {
		Object
		Spec *networkingv1alpha3.EnvoyFilter
	}
	Gateway struct {
		Object
		Spec *gatewayv1.GatewaySpec
	}
	HTTPRoute struct {
		Object
		Spec *gatewayv1.HTTPRouteSpec
	}
	ReferenceGrant struct {
		Object
		Spec *gatewayv1.ReferenceGrantSpec
	}
	ClusterSPIFFEID struct {
		Object
		Spec *ClusterSPIFFEIDSpec
	}
	ClusterIssuer struct {
		Object
	}
	Certificate struct {
		Object
	}
	Rego struct {
		Object
		Module string // the text of the module
	}
	// JWKS is put into the Set by the key fetcher, never by users.
	JWKS struct {
		Object
		Document string // a JWKS, checked; empty while none could be fetched: tokens of its issuer fail
	}
	RateLimit struct {
		Object
		Config string // the text of the configuration, as envoyproxy/ratelimit reads it
	}
)

func (*Namespace) kind() Kind             { return KindNamespace }
func (*Service) kind() Kind               { return KindService }
func (*Endpoints) kind() Kind             { return KindEndpoints }
func (*EndpointSlice) kind() Kind         { return KindEndpointSlice }
func (*ConfigMap) kind() Kind             { return KindConfigMap }
func (*Secret) kind() Kind                { return KindSecret }
func (*ServiceAccount) kind() Kind        { return KindServiceAccount }
func (*WorkloadEntry) kind() Kind         { return KindWorkloadEntry }
func (*ServiceEntry) kind() Kind          { return KindServiceEntry }
func (*Sidecar) kind() Kind               { return KindSidecar }
func (*PeerAuthentication) kind() Kind    { return KindPeerAuthentication }
func (*RequestAuthentication) kind() Kind { return KindRequestAuthentication }
func (*AuthorizationPolicy) kind() Kind   { return KindAuthorizationPolicy }
func (*Telemetry) kind() Kind             { return KindTelemetry }
func (*EnvoyFilter) kind() Kind           { return KindEnvoyFilter }
func (*Gateway) kind() Kind               { return KindGateway }
func (*HTTPRoute) kind() Kind             { return KindHTTPRoute }
func (*ReferenceGrant) kind() Kind        { return KindReferenceGrant }
func (*ClusterSPIFFEID) kind() Kind       { return KindClusterSPIFFEID }
func (*ClusterIssuer) kind() Kind         { return KindClusterIssuer }
func (*Certificate) kind() Kind           { return KindCertificate }
func (*Rego) kind() Kind                  { return KindRego }
func (*JWKS) kind() Kind                  { return KindJWKS }
func (*RateLimit) kind() Kind             { return KindRateLimit }

// ClusterSPIFFEIDSpec is the part of SPIRE's spire.spiffe.io/v1alpha1 ClusterSPIFFEID that is accepted.
type ClusterSPIFFEIDSpec struct {
	SPIFFEIDTemplate  string         `json:"spiffeIDTemplate"`
	PodSelector       *LabelSelector `json:"podSelector,omitempty"`
	NamespaceSelector *LabelSelector `json:"namespaceSelector,omitempty"`
	TTL               string         `json:"ttl,omitempty"`
	JWTTTL            string         `json:"jwtTtl,omitempty"`
	DNSNameTemplates  []string       `json:"dnsNameTemplates,omitempty"`
	FederatesWith     []string       `json:"federatesWith,omitempty"`
	Admin             bool           `json:"admin,omitempty"`
	Downstream        bool           `json:"downstream,omitempty"`
	AutoPopulateDNS   bool           `json:"autoPopulateDNSNames,omitempty"`
	ClassName         string         `json:"className,omitempty"`
	Fallback          bool           `json:"fallback,omitempty"`
	Hint              string         `json:"hint,omitempty"`
}

// LabelSelector is Kubernetes' metav1.LabelSelector.
type LabelSelector struct {
	MatchLabels      map[string]string          `json:"matchLabels,omitempty"`
	MatchExpressions []LabelSelectorRequirement `json:"matchExpressions,omitempty"`
}

// LabelSelectorRequirement is Kubernetes' metav1.LabelSelectorRequirement.
type LabelSelectorRequirement struct {
	Key      string   `json:"key"`
	Operator string   `json:"operator"` // In, NotIn, Exists, DoesNotExist
	Values   []string `json:"values,omitempty"`
}

// Private is a value that must never be shown. Every formatting verb and marshaller prints a placeholder; Reveal gives the bytes to identity.
type Private struct{ bytes []byte }

// NewPrivate takes ownership of b.
func NewPrivate(b []byte) Private { return Private{bytes: b} }

// Reveal gives the bytes. Only package identity and what lies below it may call it.
func (p Private) Reveal() []byte { return p.bytes }

// String hides the value.
func (Private) String() string { return "[private]" }

// Format hides the value from every verb, also from those that would print the bytes as numbers.
func (Private) Format(f fmt.State, _ rune) { _, _ = io.WriteString(f, "[private]") }

// MarshalText hides the value from every encoder.
func (Private) MarshalText() ([]byte, error) { return []byte("[private]"), nil }
