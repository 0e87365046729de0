package lint

import (
	"net/netip"
	"slices"
	"strings"

	securityv1beta1 "istio.io/api/security/v1beta1"
)

// coversRule tells whether every request that b matches is also matched by a. It says no where it does not know.
func coversRule(a, b *securityv1beta1.Rule) bool {
	return coversFrom(a.GetFrom(), b.GetFrom()) && coversTo(a.GetTo(), b.GetTo()) && coversWhen(a.GetWhen(), b.GetWhen())
}

func coversFrom(a, b []*securityv1beta1.Rule_From) bool {
	if len(a) == 0 {
		return true
	}
	return len(b) > 0 && !slices.ContainsFunc(b, func(y *securityv1beta1.Rule_From) bool {
		return !slices.ContainsFunc(a, func(x *securityv1beta1.Rule_From) bool { return coversSource(x.GetSource(), y.GetSource()) })
	})
}

func coversTo(a, b []*securityv1beta1.Rule_To) bool {
	if len(a) == 0 {
		return true
	}
	return len(b) > 0 && !slices.ContainsFunc(b, func(y *securityv1beta1.Rule_To) bool {
		return !slices.ContainsFunc(a, func(x *securityv1beta1.Rule_To) bool { return coversOperation(x.GetOperation(), y.GetOperation()) })
	})
}

func coversWhen(a, b []*securityv1beta1.Condition) bool {
	return !slices.ContainsFunc(a, func(x *securityv1beta1.Condition) bool {
		return !slices.ContainsFunc(b, func(y *securityv1beta1.Condition) bool {
			if x.GetKey() != y.GetKey() {
				return false
			}
			m := comparison(x.GetKey())
			return m.wider(x.GetValues(), y.GetValues()) && m.narrower(x.GetNotValues(), y.GetNotValues())
		})
	})
}

// comparison is how the values of a condition compare.
func comparison(key string) match {
	switch {
	case key == "source.ip", key == "remote.ip", key == "destination.ip":
		return inBlock
	case key == "request.auth.principal", key == "source.namespace", key == "source.serviceAccount", strings.HasPrefix(key, "experimental."):
		return equal
	}
	return pattern
}

func coversSource(a, b *securityv1beta1.Source) bool {
	return match(pattern).wider(a.GetPrincipals(), b.GetPrincipals()) && match(pattern).narrower(a.GetNotPrincipals(), b.GetNotPrincipals()) &&
		match(equal).wider(a.GetRequestPrincipals(), b.GetRequestPrincipals()) && match(equal).narrower(a.GetNotRequestPrincipals(), b.GetNotRequestPrincipals()) &&
		match(equal).wider(a.GetNamespaces(), b.GetNamespaces()) && match(equal).narrower(a.GetNotNamespaces(), b.GetNotNamespaces()) &&
		match(same).wider(a.GetServiceAccounts(), b.GetServiceAccounts()) && match(same).narrower(a.GetNotServiceAccounts(), b.GetNotServiceAccounts()) &&
		match(equal).wider(a.GetTrustDomains(), b.GetTrustDomains()) && match(equal).narrower(a.GetNotTrustDomains(), b.GetNotTrustDomains()) &&
		match(inBlock).wider(a.GetIpBlocks(), b.GetIpBlocks()) && match(inBlock).narrower(a.GetNotIpBlocks(), b.GetNotIpBlocks()) &&
		match(inBlock).wider(a.GetRemoteIpBlocks(), b.GetRemoteIpBlocks()) && match(inBlock).narrower(a.GetNotRemoteIpBlocks(), b.GetNotRemoteIpBlocks())
}

func coversOperation(a, b *securityv1beta1.Operation) bool {
	return match(pattern).wider(a.GetHosts(), b.GetHosts()) && match(pattern).narrower(a.GetNotHosts(), b.GetNotHosts()) &&
		match(same).wider(a.GetPorts(), b.GetPorts()) && match(same).narrower(a.GetNotPorts(), b.GetNotPorts()) &&
		match(pattern).wider(a.GetMethods(), b.GetMethods()) && match(pattern).narrower(a.GetNotMethods(), b.GetNotMethods()) &&
		match(pattern).wider(a.GetPaths(), b.GetPaths()) && match(pattern).narrower(a.GetNotPaths(), b.GetNotPaths())
}

// match tells whether all that b stands for, a stands for too.
type match func(a, b string) bool

// wider tells whether a field with values a matches all that one with values b does. Without values it matches everything.
func (m match) wider(a, b []string) bool {
	return len(a) == 0 || len(b) > 0 && m.all(b, a)
}

// narrower is wider for the fields that exclude: all that a excludes, b excludes too.
func (m match) narrower(a, b []string) bool { return m.all(a, b) }

// all tells whether each of the inner values is covered by one of the outer.
func (m match) all(inner, outer []string) bool {
	return !slices.ContainsFunc(inner, func(v string) bool {
		return !slices.ContainsFunc(outer, func(w string) bool { return m(w, v) })
	})
}

// same compares values of which none is a pattern.
func same(a, b string) bool { return a == b }

// equal compares values whose patterns are not simply texts with a star at an end, such as request principals, which are split at a slash.
func equal(a, b string) bool { return a == b || a == "*" }

// pattern compares Istio's strings: "a", "a*", "*a" and "*". A path template covers only itself.
func pattern(a, b string) bool {
	switch {
	case a == b || a == "*":
		return true
	case strings.Contains(a, "{") || strings.Contains(b, "{"):
		return false
	}
	if prefix, ok := strings.CutSuffix(a, "*"); ok {
		rest, wild := strings.CutSuffix(b, "*")
		return strings.HasPrefix(rest, prefix) && (wild || !strings.HasPrefix(b, "*"))
	}
	if suffix, ok := strings.CutPrefix(a, "*"); ok {
		rest, wild := strings.CutPrefix(b, "*")
		return strings.HasSuffix(rest, suffix) && (wild || !strings.HasSuffix(b, "*"))
	}
	return false
}

func inBlock(a, b string) bool {
	x, y := prefixOf(a), prefixOf(b)
	return x.IsValid() && y.IsValid() && x.Bits() <= y.Bits() && x.Contains(y.Addr())
}

func prefixOf(s string) netip.Prefix {
	if p, err := netip.ParsePrefix(s); err == nil {
		return p
	}
	if a, err := netip.ParseAddr(s); err == nil {
		return netip.PrefixFrom(a, a.BitLen())
	}
	return netip.Prefix{}
}
