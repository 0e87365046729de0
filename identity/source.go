package identity

import (
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// Source gives one identity, always current, and what its trust domain trusts.
type Source interface {
	x509svid.Source
	x509bundle.Source
	// Updated gets a value, coalesced, after the SVID or a bundle changed. It has one reader.
	Updated() <-chan struct{}
}

// reserved is the first path segment that only the control plane's own identities have.
const reserved = "/credence/"

// Reserved tells whether an ID is kept for the control plane: no workload is ever given it.
func Reserved(id ID) bool {
	p := id.Path()
	return p+"/" == reserved || len(p) >= len(reserved) && p[:len(reserved)] == reserved
}
