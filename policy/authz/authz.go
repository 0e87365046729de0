// Package authz is the meaning of AuthorizationPolicy: which requests and connections a port of a workload lets in, exactly as Istio 1.31 decides.
package authz

import "net/netip"

// Rules is what all AuthorizationPolicies together say about one port of a workload. Order of decision: Custom, Deny, Allow.
type Rules struct {
	Custom []Custom
	Deny   []Rule
	Allow  []Rule
	Audit  []Rule
	// Open is true when no ALLOW policy selects the workload: what no Deny rule matches then passes. The zero value lets only Allow rules pass.
	Open bool
	// Broken names the objects that cover the workload, are invalid, and have no earlier good version: everything is refused.
	Broken []Origin
}

// Origin is the object of a user that a rule came from.
type Origin struct {
	Object string // "AuthorizationPolicy production/require-jwt"
	At     string // "authz.yaml:3"
}

// Rule is one rule of one policy: the request matches when both expressions do.
type Rule struct {
	ID         string // "ns[production]-policy[require-jwt]-rule[0]", as in Istio; shown in RESPONSE_CODE_DETAILS
	Origin     Origin
	Principal  Expr // about the caller: identity, address, claims
	Permission Expr // about the request: path, method, host, headers, port
	DryRun     bool
}

// Custom is the rules of the CUSTOM policies of one provider: a request that matches one of them is decided by the provider.
type Custom struct {
	Provider   string // name under mesh.extensionProviders; "opa" is the embedded decision service
	Authorizer Authorizer
	Rules      []Rule
}

// Expr is a condition. It is one of the types below. A nil Expr matches nothing.
type Expr interface{ expr() }

// The conditions.
type (
	All struct{ Of []Expr } // AND; empty: matches everything
	Any struct{ Of []Expr } // OR; empty: matches nothing
	Not struct{ Of Expr }

	// Peer matches the caller's SPIFFE ID in the URI SAN of its verified certificate ("spiffe://td/ns/n/sa/s").
	Peer struct{ Match Match }
	// DirectIP matches the address of the connection's peer.
	DirectIP struct{ Net netip.Prefix }
	// RemoteIP matches the address of the original client (X-Forwarded-For, PROXY protocol).
	RemoteIP struct{ Net netip.Prefix }
	// Claim matches a claim of the verified token: equal to, or a list containing, a matching string.
	Claim struct {
		Path  []string
		Match Match
	}
	Header struct {
		Name  string // lower case
		Match Match
	}
	Path     struct{ Match Match } // without the query
	Method   struct{ Match Match }
	Host     struct{ Match Match } // :authority, port included, without regard to case
	DestIP   struct{ Net netip.Prefix }
	DestPort struct{ Port uint32 }
	SNI      struct{ Match Match }
	// Metadata matches dynamic metadata: experimental.envoy.filters.<filter>[key].
	Metadata struct {
		Filter string
		Path   []string
		Match  Match
		List   bool // the value is a list that must contain a match
	}
)

func (All) expr()      {}
func (Any) expr()      {}
func (Not) expr()      {}
func (Peer) expr()     {}
func (DirectIP) expr() {}
func (RemoteIP) expr() {}
func (Claim) expr()    {}
func (Header) expr()   {}
func (Path) expr()     {}
func (Method) expr()   {}
func (Host) expr()     {}
func (DestIP) expr()   {}
func (DestPort) expr() {}
func (SNI) expr()      {}
func (Metadata) expr() {}

// MatchKind is how a string is matched.
type MatchKind uint8

// The kinds of match. The zero value is Exact.
const (
	Exact MatchKind = iota
	Prefix
	Suffix
	Regex    // RE2, must match the whole value
	Present  // any value that is not empty
	Template // a path template, in Envoy's uri_template syntax
)

// Match is a condition on a string.
type Match struct {
	Kind       MatchKind
	Value      string
	IgnoreCase bool
}
