package filter

import (
	"fmt"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	uritemplatev3 "github.com/envoyproxy/go-control-plane/envoy/extensions/path/match/uri_template/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"

	"github.com/credence-mesh/credence/policy/authz"
	"github.com/credence-mesh/credence/xds/resource"
)

func principalAny() *rbacconfigv3.Principal {
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_Any{Any: true}}
}

func principalNot(p *rbacconfigv3.Principal) *rbacconfigv3.Principal {
	return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_NotId{NotId: p}}
}

func permissionAny() *rbacconfigv3.Permission {
	return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_Any{Any: true}}
}

func permissionNot(p *rbacconfigv3.Permission) *rbacconfigv3.Permission {
	return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_NotRule{NotRule: p}}
}

// principal translates a condition about the caller. What it does not know is an error, never a condition left out.
func principal(e authz.Expr) (*rbacconfigv3.Principal, error) {
	switch e := e.(type) {
	case nil:
		return principalNot(principalAny()), nil
	case authz.All:
		if len(e.Of) == 0 {
			return principalAny(), nil
		}
		ids, err := each(e.Of, principal)
		return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_AndIds{AndIds: &rbacconfigv3.Principal_Set{Ids: ids}}}, err
	case authz.Any:
		if len(e.Of) == 0 {
			return principalNot(principalAny()), nil
		}
		ids, err := each(e.Of, principal)
		return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_OrIds{OrIds: &rbacconfigv3.Principal_Set{Ids: ids}}}, err
	case authz.Not:
		of, err := principal(e.Of)
		return principalNot(of), err
	default:
		return caller(e)
	}
}

// caller translates what is known about the caller alone.
func caller(e authz.Expr) (*rbacconfigv3.Principal, error) {
	switch e := e.(type) {
	case authz.Peer:
		// The name in the certificate of this connection. X-Forwarded-Client-Cert is only a claim of whoever sent it.
		return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_Authenticated_{Authenticated: &rbacconfigv3.Principal_Authenticated{
			PrincipalName: stringMatcher(e.Match),
		}}}, nil
	case authz.DirectIP:
		return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_DirectRemoteIp{DirectRemoteIp: cidr(e.Net)}}, nil
	case authz.RemoteIP:
		return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_RemoteIp{RemoteIp: cidr(e.Net)}}, nil
	case authz.Claim:
		return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_SourcedMetadata{SourcedMetadata: sourced(claimMatcher(e))}}, nil
	case authz.Header:
		return &rbacconfigv3.Principal{Identifier: &rbacconfigv3.Principal_Header{Header: headerMatcher(e.Name, e.Match)}}, nil
	default:
		return nil, fmt.Errorf("%T says nothing about a caller", e)
	}
}

// permission translates a condition about the request.
func permission(e authz.Expr) (*rbacconfigv3.Permission, error) {
	switch e := e.(type) {
	case nil:
		return permissionNot(permissionAny()), nil
	case authz.All:
		if len(e.Of) == 0 {
			return permissionAny(), nil
		}
		rules, err := each(e.Of, permission)
		return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_AndRules{AndRules: &rbacconfigv3.Permission_Set{Rules: rules}}}, err
	case authz.Any:
		if len(e.Of) == 0 {
			return permissionNot(permissionAny()), nil
		}
		rules, err := each(e.Of, permission)
		return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_OrRules{OrRules: &rbacconfigv3.Permission_Set{Rules: rules}}}, err
	case authz.Not:
		of, err := permission(e.Of)
		return permissionNot(of), err
	default:
		return requested(e)
	}
}

// requested translates what is known about the request alone.
func requested(e authz.Expr) (*rbacconfigv3.Permission, error) {
	switch e := e.(type) {
	case authz.Path:
		return pathPermission(e.Match)
	case authz.Method:
		return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_Header{Header: headerMatcher(":method", e.Match)}}, nil
	case authz.Host:
		return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_Header{Header: headerMatcher(":authority", e.Match)}}, nil
	case authz.Header:
		return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_Header{Header: headerMatcher(e.Name, e.Match)}}, nil
	case authz.DestIP:
		return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_DestinationIp{DestinationIp: cidr(e.Net)}}, nil
	case authz.DestPort:
		return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_DestinationPort{DestinationPort: e.Port}}, nil
	case authz.SNI:
		return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_RequestedServerName{RequestedServerName: stringMatcher(e.Match)}}, nil
	case authz.Metadata:
		value := stringValue(e.Match)
		if e.List {
			value = listValue(e.Match)
		}
		return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_SourcedMetadata{SourcedMetadata: sourced(metadataMatcher(e.Filter, e.Path, value))}}, nil
	default:
		return nil, fmt.Errorf("%T says nothing about a request", e)
	}
}

func pathPermission(m authz.Match) (*rbacconfigv3.Permission, error) {
	if m.Kind != authz.Template {
		return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_UrlPath{UrlPath: &matcherv3.PathMatcher{
			Rule: &matcherv3.PathMatcher_Path{Path: stringMatcher(m)},
		}}}, nil
	}
	if err := authz.ValidTemplate(m.Value); err != nil {
		return nil, err // Envoy would crash
	}
	packed, err := resource.Pack(&uritemplatev3.UriTemplateMatchConfig{PathTemplate: m.Value})
	if err != nil {
		return nil, err
	}
	return &rbacconfigv3.Permission{Rule: &rbacconfigv3.Permission_UriTemplate{UriTemplate: &corev3.TypedExtensionConfig{
		Name: "envoy.path.match.uri_template.uri_template_matcher", TypedConfig: packed,
	}}}, nil
}

func sourced(m *matcherv3.MetadataMatcher) *rbacconfigv3.SourcedMetadata {
	return &rbacconfigv3.SourcedMetadata{MetadataMatcher: m, MetadataSource: rbacconfigv3.MetadataSource_DYNAMIC}
}

// headerMatcher matches a header. As in Istio, "*" is a header that is there, whatever it says.
func headerMatcher(name string, m authz.Match) *routev3.HeaderMatcher {
	h := &routev3.HeaderMatcher{Name: name}
	if m.Kind == authz.Present {
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_PresentMatch{PresentMatch: true}
	} else {
		h.HeaderMatchSpecifier = &routev3.HeaderMatcher_StringMatch{StringMatch: stringMatcher(m)}
	}
	return h
}
