package console

import (
	"time"

	"github.com/credence-mesh/credence/policy"
)

// Status is what `credence status` shows.
type Status struct {
	Version   string           `json:"version"`
	Started   time.Time        `json:"started"`
	Ready     bool             `json:"ready"`
	Objects   int              `json:"objects"`   // in force
	Workloads int              `json:"workloads"` // that a proxy can be
	Proxies   []Proxy          `json:"proxies"`
	Problems  []policy.Problem `json:"problems"`
}

// Proxy is one connected proxy.
type Proxy struct {
	Workload  string    `json:"workload"` // namespace/name
	Instance  string    `json:"instance"`
	ID        string    `json:"id"` // SPIFFE ID
	Connected time.Time `json:"connected"`
	Protocol  string    `json:"protocol"` // delta or sotw
	// CredentialExpires is when the credential that it authenticated with ends.
	CredentialExpires time.Time `json:"credentialExpires"`
	InSync            bool      `json:"inSync"`
	Types             []Type    `json:"types"`
	Nack              *Nack     `json:"nack,omitempty"` // the last one; kept until a later version of that type is acknowledged
}

// Type is how far a proxy is with one type of resource. The versions are hashes of all that the proxy holds, or should.
type Type struct {
	Type  string `json:"type"` // cds, eds, …
	Want  string `json:"want"`
	Sent  string `json:"sent"`
	Acked string `json:"acked"`
}

// Nack is a refusal by a proxy.
type Nack struct {
	At      time.Time `json:"at"`
	Type    string    `json:"type"`
	Reason  string    `json:"reason"`
	Names   []string  `json:"names,omitempty"`
	Sources []string  `json:"sources,omitempty"` // the objects that the refused resources came from
}
