package kinds

import (
	"net/netip"
	"strings"
)

// label tells whether s is a DNS-1123 label: a namespace, a name of a listener.
func label(s string) bool {
	if s == "" || len(s) > 63 {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := c >= 'a' && c <= 'z' || c >= '0' && c <= '9'
		if !alnum && (c != '-' || i == 0 || i == len(s)-1) {
			return false
		}
	}
	return true
}

// subdomain tells whether s is a DNS-1123 subdomain: labels joined by dots.
func subdomain(s string) bool {
	if s == "" || len(s) > 253 {
		return false
	}
	for l := range strings.SplitSeq(s, ".") {
		if !label(l) {
			return false
		}
	}
	return true
}

// hostname is a DNS name, in which the first label may be a wildcard.
func hostname(s string) bool { return subdomain(strings.ToLower(strings.TrimPrefix(s, "*."))) }

func address(s string) bool {
	_, err := netip.ParseAddr(s)
	return err == nil
}

func ipBlock(s string) bool {
	if _, err := netip.ParsePrefix(s); err == nil {
		return true
	}
	return address(s)
}

func port[T ~int32 | ~uint32 | ~int](p T) bool { return p > 0 && int64(p) < 65536 }

// headerName tells whether s is a header that Istio lets a claim be written to.
func headerName(s string) bool {
	for i := range len(s) {
		c := s[i]
		if c != '-' && c != '_' && (c < '0' || c > '9') && (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') {
			return false
		}
	}
	return s != ""
}

// portName tells whether s is a name that a port of a workload or a ServiceEntry can have.
func portName(s string) bool { return len(s) < 63 && label(strings.ToLower(s)) }
