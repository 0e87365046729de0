package jwks

import (
	"fmt"
	"net"
	"net/netip"
	"syscall"
)

// addressError is a connection that was not made.
type addressError struct{ addr netip.Addr }

func (e addressError) Error() string {
	return fmt.Sprintf("%s is not a public address", e.addr)
}

// special is the networks, beside those that netip knows, where no public service can be (IANA's special-purpose registries), or in whose
// addresses another one hides.
func special() []netip.Prefix {
	var out []netip.Prefix
	for _, s := range []string{
		"0.0.0.0/8", "100.64.0.0/10", "192.0.0.0/24", "192.0.2.0/24", "192.88.99.0/24", "198.18.0.0/15", "198.51.100.0/24", "203.0.113.0/24", "240.0.0.0/4",
		"::/96", "64:ff9b::/96", "64:ff9b:1::/48", "100::/64", "2001::/23", "2001:db8::/32", "2002::/16", "3fff::/20", "5f00::/16", "fec0::/10",
	} {
		out = append(out, netip.MustParsePrefix(s))
	}
	return out
}

// Public tells whether an address may be asked for keys because a policy says so. Loopback, private and link-local networks, the metadata
// services of clouds among them, may not: who can write a policy must not be able to make the control plane talk to them.
func Public(a netip.Addr) bool {
	a = a.Unmap()
	if !a.IsValid() || !a.IsGlobalUnicast() || a.IsPrivate() || a.IsLoopback() || a.IsLinkLocalUnicast() || a.IsMulticast() || a.Zone() != "" {
		return false
	}
	for _, p := range special() {
		if p.Contains(a) {
			return false
		}
	}
	return true
}

// guardedDialer checks the address that is really connected to: after every redirect, and whatever a name resolves to this time.
func guardedDialer() *net.Dialer {
	return &net.Dialer{Control: func(_, address string, _ syscall.RawConn) error {
		ap, err := netip.ParseAddrPort(address)
		if err != nil {
			return fmt.Errorf("address %q: %w", address, err)
		}
		if !Public(ap.Addr()) {
			return addressError{ap.Addr()}
		}
		return nil
	}}
}
