// Package ir is what one proxy must do, in our own words: no Envoy proto and no Kubernetes type comes in here. Package compile makes it
// from a policy.Set; package translate turns it into xDS resources. Zero values deny.
package ir

import (
	"time"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/policy/jwt"
)

// Source is the object of a user that a thing came from.
type Source = authz.Origin

// Proxy is what the proxies of one workload must do; replicas share it.
type Proxy struct {
	Workload identity.Workload
	ID       identity.ID
	Gateway  bool
	Labels   map[string]string
	Parts    []*Part // those of this workload alone first, then those that it shares with others
}

// Part is a group of resources that is compiled, translated and shared as one. Proxies with the same outbound scope hold the same *Part.
type Part struct {
	Name      string // "inbound/ns/workload", "outbound/ns", "gateway/ns/name": unique in the mesh, equal for equal scope
	Direction Direction
	Listeners []Listener
	Routes    []RouteTable
	Clusters  []Cluster
	Endpoints []Endpoints
	Upstreams []*Upstream // clusters with their endpoints that other parts have too
	AccessLog string      // file that every request and connection is written to, as JSON; empty: none
}

// Direction is where traffic of a listener comes from; it is the context that an EnvoyFilter names.
type Direction uint8

// The directions.
const (
	Inbound  Direction = iota // SIDECAR_INBOUND
	Outbound                  // SIDECAR_OUTBOUND
	Edge                      // GATEWAY
)

// Listener accepts connections.
type Listener struct {
	Name      string
	Address   string // an IP address, or the path of a Unix socket
	Port      uint32
	Direction Direction
	Capture   Capture
	// ProxyProtocol requires the PROXY protocol's header on every connection.
	ProxyProtocol bool
	Chains        []Chain // the first that matches serves; what no chain matches is closed
	Sources       []Source
}

// Capture is how connections reach a listener. The zero value binds its address.
type Capture uint8

// The captures.
const (
	Bind     Capture = iota // the listener's own address is bound
	Redirect                // bound, and connections come through iptables REDIRECT: the original destination chooses the chain or listener
	Handoff                 // not bound: gets connections from a Redirect listener, by original destination
)

// Chain is a filter chain.
type Chain struct {
	Name    string // stable over the life of the listener, unique in it
	Match   ChainMatch
	TLS     DownstreamTLS
	Handler Handler // nil closes the connection
}

// ChainMatch chooses a chain. Empty fields match everything.
type ChainMatch struct {
	Port        uint32   // original destination port
	ServerNames []string // SNI, "*.example.com" allowed
	Transport   Transport
	ALPN        []string
}

// Transport is what the TLS inspector saw.
type Transport uint8

// The transports.
const (
	AnyTransport Transport = iota
	TransportTLS
	TransportRaw
)

// TLSMode is what a filter chain demands of a connection. The zero value is mutual TLS with the workload's own identity.
type TLSMode uint8

// The modes.
const (
	MutualTLS TLSMode = iota // own SVID; the peer must show one that Peers accepts
	Terminate                // public TLS with the certificate Secret; no client certificate
	Plaintext                // none
)

// DownstreamTLS is the TLS of a filter chain.
type DownstreamTLS struct {
	Mode  TLSMode
	Peers []identity.Matcher // MutualTLS: who may connect; empty refuses everyone
	ALPN  []string
	// Secrets are the SDS names of the certificates of Terminate: "kubernetes://namespace/name".
	Secrets []string
}

// Handler is what a chain does with a connection: *HTTP or *TCP.
type Handler interface{ handler() }

func (*HTTP) handler() {}
func (*TCP) handler()  {}

// TCP forwards bytes.
type TCP struct {
	Name    string // stable, unique within a proxy: prefix of statistics and of extension configurations
	Rules   authz.Rules
	To      []Weighted
	Sources []Source
	// Egress: for the local application, without guards.
	Egress bool
}

// HTTP is an HTTP connection manager.
type HTTP struct {
	Name  string // stable, unique within a proxy: prefix of statistics and of extension configurations
	Table string // name of the RouteTable
	Guard Guard
	// Edge: clients are not ours. X-Forwarded-For and X-Forwarded-Client-Cert from outside are not believed, and Hops trusted proxies stand in front.
	Edge bool
	Hops uint32
	// Plain HTTP of an egress listener, for the local application: no guard filters at all.
	Egress bool
	HTTP2  bool // clear-text HTTP/2 by prior knowledge is accepted (always on; here for ALPN of TLS chains)
	Paths  Paths
	// Lenient lets pass what Istio does, where that is less safe: profile istio.
	Lenient bool
}

// Paths is how the path of a request is made canonical before anything decides on it.
type Paths uint8

// The ways. The zero value refuses all that two servers could read differently.
const (
	PathsStrict         Paths = iota // as PathsMergeSlashes; escaped slashes, and what is still ambiguous, are answered with 400
	PathsNone                        // as sent
	PathsBase                        // RFC 3986: dot segments resolved, backslashes made slashes, needless escapes undone
	PathsMergeSlashes                // and repeated slashes merged
	PathsDecodeAndMerge              // and escaped slashes decoded first
)

// Guard is what a request must pass before it is routed. The zero value refuses everything with 503.
type Guard struct {
	Enforce bool // false: everything is refused with 503, for the reasons in Broken
	Broken  []Source
	// Strip is the request headers that are removed before anything else, whatever filters run: they carry verified facts, and only we may set them.
	Strip   []string
	Issuers []Issuer
	Rules   authz.Rules
}

// Issuer is an accepted issuer with its keys.
type Issuer struct {
	jwt.Issuer
	JWKS   string // the key set to inline; empty: no key is known, and its tokens fail
	Source Source
}

// RouteTable is a route configuration.
type RouteTable struct {
	Name  string
	Hosts []*VirtualHost
	// Shared: hosts are immutable, and other tables have them too.
	Shared bool
	// AnyPort: the port in a Host header does not count.
	AnyPort bool
	Sources []Source
}

// VirtualHost is the routes of some domains; the first route that matches serves.
type VirtualHost struct {
	Name    string
	Domains []string // as Envoy's: exact, "*.suffix", "*"
	Routes  []Route
	Sources []Source
	Memo    Memo // of a Shared table's host
}

// Route is a match and an action.
type Route struct {
	Name    string
	Match   RouteMatch
	Action  Action // nil answers 404
	Headers HeaderEdits
	// ResponseHeaders are applied to the response.
	ResponseHeaders HeaderEdits
	Mirrors         []Mirror
	Timeout         Timeout
	Retry           *Retry
	Sources         []Source
}

// RouteMatch is what a request must have. All of it must hold.
type RouteMatch struct {
	Path    authz.Match // Exact, Prefix (by whole segments, as in the Gateway API), Regex; zero value with empty Value matches every path
	Method  string
	Headers []HeaderMatch
	Query   []HeaderMatch
}

// HeaderMatch is a condition on a header or a query parameter.
type HeaderMatch struct {
	Name  string
	Match authz.Match
}

// Action is what a route does: Forward, RedirectTo or Respond.
type Action interface{ action() }

// The actions.
type (
	// Forward sends the request to one of several clusters, by weight.
	Forward struct {
		To []Weighted
		// Host, Prefix and Path rewrite; nil leaves as is.
		RewriteHost   string
		RewritePrefix *string // replaces the matched prefix
		RewritePath   *string // replaces the whole path
	}
	// RedirectTo answers with a redirect.
	RedirectTo struct {
		Scheme, Host string
		Port         uint32
		Prefix, Path *string
		Status       uint32
	}
	// Respond answers by itself.
	Respond struct {
		Status uint32
		Body   string
	}
)

func (Forward) action()    {}
func (RedirectTo) action() {}
func (Respond) action()    {}

// Weighted is a cluster and its share. Header edits of a backendRef come along.
type Weighted struct {
	Cluster         string
	Weight          uint32
	Headers         HeaderEdits
	ResponseHeaders HeaderEdits
}

// HeaderEdits change headers: set and add, then remove.
type HeaderEdits struct {
	Set, Add []HeaderValue
	Remove   []string
}

// HeaderValue is a header.
type HeaderValue struct{ Name, Value string }

// Mirror copies requests to another cluster.
type Mirror struct {
	Cluster                string
	Numerator, Denominator uint32 // 0/0: all
}

// Timeout of a route. The zero value is the default: none for the whole request, because streams live long; 5 minutes idle by Envoy's default.
type Timeout struct {
	Request    *time.Duration // 0: none
	PerBackend *time.Duration
}

// Retry is attempts after a failed one.
type Retry struct {
	Attempts uint32
	Codes    []uint32
	Backoff  time.Duration
}

// Cluster is somewhere to send traffic.
type Cluster struct {
	Name    string // Istio's form: "outbound|80||host", "inbound|8080||"
	Kind    ClusterKind
	Address string // Static: IP address, or the path of a Unix socket; DNS: the host name
	Port    uint32
	Members []Endpoint // DNS: resolved instead of Address and Port, where there are any
	TLS     UpstreamTLS
	HTTP2   bool          // gRPC and h2c upstreams; otherwise HTTP/1.1, whatever the client speaks
	Timeout time.Duration // of connecting; 0: the default, 5 s
	Sources []Source
}

// Upstream is a cluster with its endpoints, made once and shared by every part that reaches it. It is immutable.
type Upstream struct {
	Cluster Cluster
	Members []Endpoint // of an EDS cluster
	Memo    Memo
}

// ClusterKind is how a cluster finds its endpoints.
type ClusterKind uint8

// The kinds of cluster.
const (
	EDS         ClusterKind = iota // Endpoints of the same name
	Static                         // one address
	OriginalDst                    // where the client wanted to go
	DNS                            // Address is resolved
)

// UpstreamTLS is the TLS towards a cluster. The zero value is mutual TLS that accepts nobody.
type UpstreamTLS struct {
	Mode  UpstreamTLSMode
	Peers []identity.Matcher // MutualTLS: exactly these identities may answer
	SNI   string
	ALPN  []string
	// PerEndpoint: endpoints that are marked Plain are reached without TLS, the others as Mode says.
	PerEndpoint bool
}

// UpstreamTLSMode is how a cluster is reached.
type UpstreamTLSMode uint8

// The modes.
const (
	UpstreamMutual UpstreamTLSMode = iota
	UpstreamTLSPublic
	UpstreamPlain
)

// Endpoints is the members of an EDS cluster.
type Endpoints struct {
	Cluster string
	Members []Endpoint
	Sources []Source
}

// Endpoint is one member.
type Endpoint struct {
	Address   string
	Port      uint32
	Weight    uint32 // 0: 1
	Plain     bool   // has no sidecar: plaintext, where the cluster is PerEndpoint
	Unhealthy bool   // not ready
	Locality  string // "region/zone/subzone"
}
