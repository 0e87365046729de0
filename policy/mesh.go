package policy

import "time"

// Mesh is what is said once for the whole mesh, in credence.yaml under `mesh:`, under the names of Istio's MeshConfig.
type Mesh struct {
	Profile            Profile             `json:"-"`                  // said at the top of credence.yaml: it is no setting of Istio's
	TrustDomain        string              `json:"trustDomain"`        // default "cluster.local"
	TrustDomainAliases []string            `json:"trustDomainAliases"` // other domains whose peers are accepted as if they were ours
	RootNamespace      string              `json:"rootNamespace"`      // default "istio-system"
	DefaultConfig      DefaultConfig       `json:"defaultConfig"`
	PathNormalization  PathNormalization   `json:"pathNormalization"`
	ExtensionProviders []ExtensionProvider `json:"extensionProviders"`
	AccessLogFile      string              `json:"accessLogFile"` // "/dev/stdout"; empty: no access log
}

// DefaultConfig is the part of Istio's ProxyConfig that is accepted.
type DefaultConfig struct {
	InterceptionMode string          `json:"interceptionMode"` // NONE (default), REDIRECT
	GatewayTopology  GatewayTopology `json:"gatewayTopology"`
}

// GatewayTopology is Istio's: what stands in front of a gateway.
type GatewayTopology struct {
	NumTrustedProxies uint32         `json:"numTrustedProxies"`       // that many entries at the end of X-Forwarded-For are believed
	ProxyProtocol     *ProxyProtocol `json:"proxyProtocol,omitempty"` // present: every connection must begin with the PROXY protocol's header
}

// ProxyProtocol is Istio's; it has no fields.
type ProxyProtocol struct{}

// ExtensionProvider is a named external authorizer. The name "opa" without a body is the embedded decision service.
type ExtensionProvider struct {
	Name              string         `json:"name"`
	EnvoyExtAuthzGRPC *ExtAuthzGRPC  `json:"envoyExtAuthzGrpc,omitempty"`
	OpenTelemetry     *OpenTelemetry `json:"opentelemetry,omitempty"`
}

// ExtAuthzGRPC is an authorizer that speaks envoy.service.auth.v3 at a service of the mesh.
type ExtAuthzGRPC struct {
	Service  string        `json:"service"` // host name of a Service or ServiceEntry, optionally namespace/host
	Port     uint32        `json:"port"`
	Timeout  time.Duration `json:"timeout"` // default 200ms
	FailOpen bool          `json:"failOpen"`
}

// OpenTelemetry is a collector that speaks OTLP over gRPC at a service of the mesh.
type OpenTelemetry struct {
	Service string `json:"service"`
	Port    uint32 `json:"port"`
}

// DefaultMesh is the mesh of a credence.yaml that says nothing.
func DefaultMesh() Mesh {
	return Mesh{TrustDomain: "cluster.local", RootNamespace: "istio-system", DefaultConfig: DefaultConfig{InterceptionMode: "NONE"}}
}
