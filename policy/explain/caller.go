package explain

import (
	"fmt"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

// Caller reads how a client connects: "plaintext", "tls", or the SPIFFE ID in its certificate.
func Caller(s string) (Transport, string, error) {
	switch s {
	case "", "plaintext":
		return Plaintext, "", nil
	case "tls":
		return TLS, "", nil
	}
	id, err := spiffeid.FromString(s)
	if err != nil {
		return Plaintext, "", fmt.Errorf("%q is neither plaintext, nor tls, nor a SPIFFE ID: %w", s, err)
	}
	return MutualTLS, id.String(), nil
}
