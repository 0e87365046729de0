package explain

import (
	"fmt"
	"net/netip"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	uritemplatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
)

// condition is a Permission or a Principal: one of and, or, not, or a leaf.
type condition struct {
	kind operator
	of   []condition
	leaf leaf
}

type operator uint8

const (
	isLeaf operator = iota
	isAnd
	isOr
	isNot
)

// leaf is one question. field and want are in the words of policies.
type leaf struct {
	field, want string
	ask         func(*run) (answer, string) // and what was found
}

func (c condition) ask(r *run) answer {
	switch c.kind {
	case isAnd:
		return every(c.of, func(x condition) answer { return x.ask(r) })
	case isOr:
		return some(c.of, func(x condition) answer { return x.ask(r) })
	case isNot:
		return c.of[0].ask(r).not()
	default:
		a, _ := c.leaf.ask(r)
		return a
	}
}

func constant(a answer) condition {
	return condition{leaf: leaf{ask: func(*run) (answer, string) { return a, "" }}}
}

// unknown is a question that is not understood.
func unknown(what any) condition {
	return condition{leaf: leaf{field: fmt.Sprintf("%T", what), ask: func(*run) (answer, string) { return maybe, "" }}}
}

func permissions(list []*rbacconfigv3.Permission) []condition {
	var out []condition
	for _, p := range list {
		out = append(out, permission(p))
	}
	return out
}

func permission(p *rbacconfigv3.Permission) condition {
	switch x := p.GetRule().(type) {
	case *rbacconfigv3.Permission_AndRules:
		return condition{kind: isAnd, of: permissions(x.AndRules.GetRules())}
	case *rbacconfigv3.Permission_OrRules:
		return condition{kind: isOr, of: permissions(x.OrRules.GetRules())}
	case *rbacconfigv3.Permission_NotRule:
		return condition{kind: isNot, of: []condition{permission(x.NotRule)}}
	case *rbacconfigv3.Permission_Any:
		return constant(yes)
	case *rbacconfigv3.Permission_Header:
		return header(x.Header)
	case *rbacconfigv3.Permission_UrlPath:
		return urlPath(x.UrlPath)
	case *rbacconfigv3.Permission_UriTemplate:
		return uriTemplate(x.UriTemplate)
	case *rbacconfigv3.Permission_DestinationIp:
		return within("destination.ip", x.DestinationIp, func(c connection) netip.Addr { return c.local })
	case *rbacconfigv3.Permission_DestinationPort:
		want := fmt.Sprint(x.DestinationPort)
		return condition{leaf: leaf{field: "ports", want: want, ask: func(r *run) (answer, string) {
			return answerOf(r.conn.localPort == x.DestinationPort), fmt.Sprint(r.conn.localPort)
		}}}
	case *rbacconfigv3.Permission_RequestedServerName:
		return condition{leaf: leaf{field: "connection.sni", want: shown(x.RequestedServerName), ask: func(r *run) (answer, string) {
			return r.config.remembered.text(x.RequestedServerName, r.conn.sni), r.conn.sni
		}}}
	case *rbacconfigv3.Permission_SourcedMetadata:
		if x.SourcedMetadata.GetMetadataSource() != rbacconfigv3.MetadataSource_DYNAMIC {
			return unknown(x)
		}
		return dynamic(x.SourcedMetadata.GetMetadataMatcher())
	default:
		return unknown(x)
	}
}

func principals(list []*rbacconfigv3.Principal) []condition {
	var out []condition
	for _, p := range list {
		out = append(out, principal(p))
	}
	return out
}

func principal(p *rbacconfigv3.Principal) condition {
	switch x := p.GetIdentifier().(type) {
	case *rbacconfigv3.Principal_AndIds:
		return condition{kind: isAnd, of: principals(x.AndIds.GetIds())}
	case *rbacconfigv3.Principal_OrIds:
		return condition{kind: isOr, of: principals(x.OrIds.GetIds())}
	case *rbacconfigv3.Principal_NotId:
		return condition{kind: isNot, of: []condition{principal(x.NotId)}}
	case *rbacconfigv3.Principal_Any:
		return constant(yes)
	case *rbacconfigv3.Principal_Authenticated_:
		return authenticated(x.Authenticated.GetPrincipalName())
	case *rbacconfigv3.Principal_Header:
		return header(x.Header)
	case *rbacconfigv3.Principal_UrlPath:
		return urlPath(x.UrlPath)
	case *rbacconfigv3.Principal_DirectRemoteIp:
		return within("ipBlocks", x.DirectRemoteIp, func(c connection) netip.Addr { return c.direct })
	case *rbacconfigv3.Principal_RemoteIp:
		return within("remoteIpBlocks", x.RemoteIp, func(c connection) netip.Addr { return c.remote })
	case *rbacconfigv3.Principal_SourcedMetadata:
		if x.SourcedMetadata.GetMetadataSource() != rbacconfigv3.MetadataSource_DYNAMIC {
			return unknown(x)
		}
		return dynamic(x.SourcedMetadata.GetMetadataMatcher())
	default:
		return unknown(x)
	}
}

func urlPath(m *matcherv3.PathMatcher) condition {
	return condition{leaf: leaf{field: "paths", want: shown(m.GetPath()), ask: func(r *run) (answer, string) {
		path := withoutQuery(r.headers.path())
		return r.config.remembered.text(m.GetPath(), path), path
	}}}
}

// uriTemplate is Envoy's: its expression takes the characters that RFC 3986 allows in a path, and no others.
func uriTemplate(e *corev3.TypedExtensionConfig) condition {
	m := &uritemplatev3.UriTemplateMatchConfig{}
	if e.GetTypedConfig() == nil || e.GetTypedConfig().UnmarshalTo(m) != nil {
		return unknown(e)
	}
	expression, ok := templateExpression(m.GetPathTemplate())
	if !ok {
		return unknown(e)
	}
	want := strings.NewReplacer("**", "{**}", "*", "{*}").Replace(m.GetPathTemplate())
	return condition{leaf: leaf{field: "paths", want: want, ask: func(r *run) (answer, string) {
		path := withoutQuery(r.headers.path())
		return r.config.remembered.regex(expression, path), path
	}}}
}

const pathCharacters = `a-zA-Z0-9\-._~%!$&'()*+,;=:@`

func templateExpression(template string) (string, bool) {
	if !strings.HasPrefix(template, "/") || strings.ContainsAny(template, "{}") {
		return "", false
	}
	segments := strings.Split(template[1:], "/")
	for i, s := range segments {
		switch s {
		case "*":
			segments[i] = "[" + pathCharacters + "]+"
		case "**":
			segments[i] = "[" + pathCharacters + "/]*"
		default:
			segments[i] = quoted(s)
		}
	}
	return "/" + strings.Join(segments, "/"), true
}

func authenticated(m *matcherv3.StringMatcher) condition {
	field, want := "principals", strings.TrimPrefix(shown(m), "spiffe://")
	if e := m.GetSafeRegex().GetRegex(); strings.HasPrefix(e, "spiffe://") {
		field, want = identityField(e)
	}
	return condition{leaf: leaf{field: field, want: want, ask: func(r *run) (answer, string) {
		if !r.conn.tls {
			return no, "a plaintext connection: no identity"
		}
		if r.conn.peer == "" {
			return r.config.remembered.text(m, ""), "no client certificate"
		}
		return r.config.remembered.text(m, r.conn.peer), strings.TrimPrefix(r.conn.peer, "spiffe://")
	}}}
}

// within asks whether an address is in a block.
func within(field string, block *corev3.CidrRange, of func(connection) netip.Addr) condition {
	a, err := netip.ParseAddr(block.GetAddressPrefix())
	if err != nil {
		return unknown(block)
	}
	prefix := netip.PrefixFrom(a, int(block.GetPrefixLen().GetValue())).Masked()
	return condition{leaf: leaf{field: field, want: prefix.String(), ask: func(r *run) (answer, string) {
		got := of(r.conn)
		if !got.IsValid() {
			return maybe, "an address that is not known here"
		}
		return answerOf(prefix.Contains(got)), got.String()
	}}}
}

func dynamic(m *matcherv3.MetadataMatcher) condition {
	var path []string
	for _, s := range m.GetPath() {
		path = append(path, s.GetKey())
	}
	return condition{leaf: leaf{field: metadataField(m.GetFilter(), path), want: shownValue(m.GetValue()), ask: func(r *run) (answer, string) {
		v := r.metadata.find(m.GetFilter(), path)
		a := r.config.remembered.value(m.GetValue(), v)
		if m.GetInvert() {
			a = a.not()
		}
		return a, found(v)
	}}}
}
