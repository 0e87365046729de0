// Package identity says who a workload is. It holds the SPIFFE vocabulary that every other room shares; below it live the authority that
// issues X.509-SVIDs (ca), the proof by which a proxy gets one (attest), and their delivery to Envoy (sds). Private keys stay in here.
package identity

import (
	"fmt"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// ID is a SPIFFE ID. The zero value is nobody.
type ID = spiffeid.ID

// TrustDomain is a SPIFFE trust domain.
type TrustDomain = spiffeid.TrustDomain

// ForServiceAccount is the identity of a workload that runs as a service account: spiffe://<td>/ns/<ns>/sa/<sa>, as in Istio.
func ForServiceAccount(td TrustDomain, namespace, serviceAccount string) (ID, error) {
	id, err := spiffeid.FromSegments(td, "ns", namespace, "sa", serviceAccount)
	if err != nil {
		return ID{}, fmt.Errorf("identity of service account %s/%s: %w", namespace, serviceAccount, err)
	}
	return id, nil
}

// ServerID is the identity of the control plane itself.
func ServerID(td TrustDomain) ID { return spiffeid.RequireFromSegments(td, "credence", "server") }

// Workload names a workload: a WorkloadEntry or a Gateway.
type Workload struct{ Namespace, Name string }

// String is "namespace/name".
func (w Workload) String() string { return w.Namespace + "/" + w.Name }

// Proven is what a peer has proved about itself in a TLS handshake.
type Proven struct {
	ID ID
	// Workload is set when the credential was issued for one workload (a channel credential); zero when the peer showed an X.509-SVID,
	// which says only the ID.
	Workload Workload
	// Serial of the certificate that was shown, in hexadecimal.
	Serial string
	// NotAfter is when the certificate ends. A stream must not outlive it.
	NotAfter time.Time
}

// Matcher is one accepted peer identity: an exact ID, or every ID of a trust domain. The zero value matches nobody.
type Matcher struct {
	id ID
	td TrustDomain
}

// MatchID accepts exactly one identity.
func MatchID(id ID) Matcher { return Matcher{id: id} }

// MatchTrustDomain accepts every identity of a trust domain.
func MatchTrustDomain(td TrustDomain) Matcher { return Matcher{td: td} }

// Exact is the one accepted identity; false where the matcher accepts a whole trust domain, or nobody.
func (m Matcher) Exact() (ID, bool) { return m.id, !m.id.IsZero() }

// Domain is the accepted trust domain; false where the matcher accepts one identity, or nobody.
func (m Matcher) Domain() (TrustDomain, bool) { return m.td, !m.td.IsZero() }

// Match tells whether id is accepted.
func (m Matcher) Match(id ID) bool {
	switch {
	case id.IsZero():
		return false
	case !m.id.IsZero():
		return m.id == id
	default:
		return !m.td.IsZero() && id.MemberOf(m.td)
	}
}
