package authz

import (
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"regexp/syntax"
	"slices"
	"strconv"
	"strings"
)

// scheme is before every SPIFFE ID; policies leave it out.
const scheme = "spiffe://"

// localAlias stands for the local trust domain and all its aliases, whatever they are called, as in Istio.
const localAlias = "cluster.local"

// wildcard reads a value as Istio does: "abc*" is a prefix, "*abc" a suffix, "*" anything that is not empty; elsewhere a star is a star.
func wildcard(v string) Match {
	switch {
	case v == "*":
		return Match{Kind: Present}
	case strings.HasPrefix(v, "*"):
		return Match{Kind: Suffix, Value: v[1:]}
	case strings.HasSuffix(v, "*"):
		return Match{Kind: Prefix, Value: v[:len(v)-1]}
	default:
		return Match{Kind: Exact, Value: v}
	}
}

// principal is a SPIFFE ID without its scheme. The local trust domain stands for its aliases too.
func (b *ruleBuilder) principal(v string) (Expr, error) {
	var out Any
	for _, p := range b.aliases(v) {
		m := wildcard(p)
		if m.Kind == Exact || m.Kind == Prefix {
			m.Value = scheme + m.Value
		}
		out.Of = append(out.Of, Peer{Match: m})
	}
	return out, nil
}

// aliases spells a principal in every trust domain that counts as local. Only "<td>/ns/<ns>/sa/<sa>" has a trust domain to replace.
func (b *ruleBuilder) aliases(v string) []string {
	td, rest, _ := strings.Cut(v, "/")
	if strings.Count(v, "/") != 4 || td == "*" {
		return []string{v}
	}
	local := b.localDomains()
	if td != localAlias && !slices.ContainsFunc(local, func(d string) bool { return domainMatches(td, d) }) {
		return []string{v}
	}
	var out []string
	for _, d := range local {
		p := d + "/" + rest
		if strings.HasPrefix(td, "*") && domainMatches(td, d) {
			p = v
		}
		if !slices.Contains(out, p) {
			out = append(out, p)
		}
	}
	return out
}

func (b *ruleBuilder) localDomains() []string {
	return append([]string{b.mesh.TrustDomain}, b.mesh.TrustDomainAliases...)
}

func domainMatches(pattern, domain string) bool {
	if suffix, ok := strings.CutPrefix(pattern, "*"); ok {
		return strings.HasSuffix(domain, suffix)
	}
	return pattern == domain
}

// sourceNamespace matches spiffe://<td>/ns/<namespace>/…, from the start. Istio's expression is not anchored, so that an ID such as
// …/ns/evil/sa/x/ns/echo1/… passes there for namespace echo1; here it does not.
func sourceNamespace(v string) (Expr, error) {
	return peerRegex("[^/]+/ns/" + globSegment(v) + "/.+")
}

// maxProgram bounds a regular expression, in instructions: Envoy refuses one of more than 100, and with it the whole configuration.
const maxProgram = 90

// peerRegex matches a SPIFFE ID; the expression begins with the trust domain.
func peerRegex(expression string) (Expr, error) {
	parsed, err := syntax.Parse(scheme+expression, syntax.Perl)
	if err != nil {
		return nil, err
	}
	program, err := syntax.Compile(parsed.Simplify())
	if err != nil {
		return nil, err
	}
	if len(program.Inst) > maxProgram {
		return nil, errors.New("is too long to be matched")
	}
	return Peer{Match: Match{Kind: Regex, Value: scheme + expression}}, nil
}

// serviceAccount matches spiffe://<td>/ns/<namespace>/sa/<account>, and IDs below it. "account" alone is one of the policy's own namespace.
func (b *ruleBuilder) serviceAccount(v string) (Expr, error) {
	ns, sa, ok := strings.Cut(v, "/")
	if !ok {
		ns, sa = b.namespace, v
	}
	if ns == "" || sa == "" || strings.ContainsAny(v, "*") || strings.Contains(sa, "/") {
		return nil, errors.New("must be <service account> or <namespace>/<service account>, without wildcards")
	}
	if e, err := peerRegex("[^/]+/ns/" + regexp.QuoteMeta(ns) + "/sa/" + regexp.QuoteMeta(sa) + "(/.+)?"); err == nil {
		return e, nil
	}
	var out Any // names too long for one expression: spelled out for the domains whose peers can connect at all
	for _, d := range b.localDomains() {
		id := scheme + d + "/ns/" + ns + "/sa/" + sa
		out.Of = append(out.Of, Peer{Match: Match{Value: id}}, Peer{Match: Match{Kind: Prefix, Value: id + "/"}})
	}
	return out, nil
}

// trustDomain matches the trust domain of the caller. A local one stands for its aliases too.
func (b *ruleBuilder) trustDomain(v string) (Expr, error) {
	names := []string{v}
	if local := b.localDomains(); slices.Contains(local, v) {
		names = local
	}
	var out Any
	for _, n := range names {
		m := wildcard(n)
		switch m.Kind {
		case Exact:
			out.Of = append(out.Of, Peer{Match: Match{Kind: Prefix, Value: scheme + m.Value + "/"}})
		case Prefix, Present:
			out.Of = append(out.Of, Peer{Match: Match{Kind: Prefix, Value: scheme + m.Value}})
		default:
			e, err := peerRegex("[^/]*" + regexp.QuoteMeta(m.Value) + "/.+")
			if err != nil {
				return nil, err
			}
			out.Of = append(out.Of, e)
		}
	}
	return out, nil
}

// globSegment lets stars stand for anything within one segment of a path.
func globSegment(v string) string {
	parts := strings.Split(v, "*")
	for i := range parts {
		parts[i] = regexp.QuoteMeta(parts[i])
	}
	return strings.Join(parts, "[^/]*")
}

// requestPrincipal is "<issuer>/<subject>", split at the last slash, since issuers are URLs. Both must match. An issuer that ends in a
// slash therefore needs two of them: https://issuer.example//*.
func requestPrincipal(v string) (Expr, error) {
	iss, sub, split := cutLast(v, "/")
	issuer, subject := Match{Value: iss}, Match{Value: sub}
	switch {
	case v == "*":
		issuer, subject = Match{Kind: Present}, Match{Kind: Present}
	case strings.HasPrefix(v, "*") && split:
		issuer = wildcard(iss)
	case strings.HasPrefix(v, "*"):
		issuer, subject = Match{Kind: Present}, Match{Kind: Suffix, Value: v[1:]}
	case strings.HasSuffix(v, "*") && split:
		subject = Match{Kind: Prefix, Value: strings.TrimSuffix(sub, "*")}
		if sub == "*" {
			subject = Match{Kind: Present}
		}
	case strings.HasSuffix(v, "*"):
		issuer, subject = Match{Kind: Prefix, Value: v[:len(v)-1]}, Match{Kind: Present}
	}
	return All{Of: []Expr{Claim{Path: []string{"iss"}, Match: issuer}, Claim{Path: []string{"sub"}, Match: subject}}}, nil
}

func cutLast(s, sep string) (before, after string, found bool) {
	if i := strings.LastIndex(s, sep); i >= 0 {
		return s[:i], s[i+len(sep):], true
	}
	return s, "", false
}

func claim(path ...string) func(string) (Expr, error) {
	return func(v string) (Expr, error) { return Claim{Path: path, Match: wildcard(v)}, nil }
}

func header(names ...string) func(string) (Expr, error) {
	return func(v string) (Expr, error) {
		return Header{Name: strings.ToLower(names[0]), Match: wildcard(v)}, nil
	}
}

func host(v string) (Expr, error) {
	m := wildcard(v)
	m.IgnoreCase = true
	return Host{Match: m}, nil
}

func method(v string) (Expr, error) { return Method{Match: wildcard(v)}, nil }

func sni(v string) (Expr, error) { return SNI{Match: wildcard(v)}, nil }

// metadata matches what another filter wrote; "[v]" is a list that contains v.
func metadata(filter, key string) func(string) (Expr, error) {
	return func(v string) (Expr, error) {
		m := Metadata{Filter: filter, Path: []string{key}, Match: wildcard(v)}
		if strings.HasPrefix(v, "[") && strings.HasSuffix(v, "]") {
			m.List, m.Match = true, wildcard(strings.Trim(v, "[]"))
		}
		return m, nil
	}
}

// path matches the path without its query. A value with {*} or {**} is a template.
func path(v string) (Expr, error) {
	if strings.Contains(v, "{*}") || strings.Contains(v, "{**}") {
		t, err := template(v)
		return Path{Match: Match{Kind: Template, Value: t}}, err
	}
	return Path{Match: wildcard(v)}, nil
}

// literal is what a segment of a path template may hold: RFC 3986's pchar without the star. Envoy 1.40 does not refuse a template with
// anything else, or with an empty segment: it crashes, and so would every proxy that the policy covers.
const literal = "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~%!$&'()+,;=:@"

// ValidTemplate tells whether Envoy can be given a path template in its own syntax.
func ValidTemplate(t string) error {
	if !strings.HasPrefix(t, "/") {
		return errors.New("a path template must start with a slash")
	}
	segments := strings.Split(t[1:], "/")
	for i, s := range segments {
		operator := s == "*" || s == "**"
		switch {
		case operator && slices.Contains(segments[:i], "**"):
			return errors.New("{**} must be the last operator of a path template")
		case s == "" && i < len(segments)-1:
			return errors.New("a path template must not have an empty segment")
		case !operator && strings.Trim(s, literal) != "":
			return fmt.Errorf("segment %q: only {*} and {**} may stand for segments, each is a whole one, and other characters must be escaped", s)
		}
	}
	return nil
}

// template turns Istio's operators into those of Envoy's uri_template: {*} is one segment, {**} any number of them and comes last of all operators.
func template(v string) (string, error) {
	segments := strings.Split(v, "/")
	for i, s := range segments {
		switch s {
		case "{*}":
			segments[i] = "*"
		case "{**}":
			segments[i] = "**"
		case "*", "**":
			return "", errors.New("a path template has {*} and {**}, and no other star")
		}
	}
	t := strings.Join(segments, "/")
	return t, ValidTemplate(t)
}

func destPort(v string) (Expr, error) {
	n, err := strconv.ParseUint(v, 10, 16)
	if err != nil {
		return nil, errors.New("is not a port number")
	}
	return DestPort{Port: uint32(n)}, nil
}

func directIP(v string) (Expr, error) {
	net, err := block(v)
	return DirectIP{Net: net}, err
}

func remoteIP(v string) (Expr, error) {
	net, err := block(v)
	return RemoteIP{Net: net}, err
}

func destIP(v string) (Expr, error) {
	net, err := block(v)
	return DestIP{Net: net}, err
}

// block reads an address or a CIDR block.
func block(v string) (netip.Prefix, error) {
	if p, err := netip.ParsePrefix(v); err == nil {
		return p.Masked(), nil
	}
	a, err := netip.ParseAddr(v)
	if err != nil || a.Zone() != "" {
		return netip.Prefix{}, errors.New("is neither an IP address nor a CIDR block")
	}
	return netip.PrefixFrom(a, a.BitLen()), nil
}
