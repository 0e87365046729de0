// Package peer is the meaning of PeerAuthentication: whether a port of a workload takes mutual TLS, plaintext, or both.
package peer

// Mode is how a port may be reached. The zero value is Strict.
type Mode uint8

// The modes.
const (
	Strict     Mode = iota // mutual TLS only
	Permissive             // mutual TLS or plaintext
	Disable                // plaintext only
)
