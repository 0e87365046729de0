package explain

import (
	"regexp"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/structpb"
)

// This file turns Envoy's matchers back into the words of the policies that they came from.

func quoted(s string) string { return regexp.QuoteMeta(s) }

// shown is a match as a policy has it.
func shown(m *matcherv3.StringMatcher) string {
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.StringMatcher_Exact:
		return p.Exact
	case *matcherv3.StringMatcher_Prefix:
		return p.Prefix + "*"
	case *matcherv3.StringMatcher_Suffix:
		return "*" + p.Suffix
	case *matcherv3.StringMatcher_Contains:
		return "*" + p.Contains + "*"
	case *matcherv3.StringMatcher_SafeRegex:
		switch e := p.SafeRegex.GetRegex(); e {
		case `\C+`:
			return "*"
		case `\C*`:
			return "anything"
		default:
			return e
		}
	default:
		return ""
	}
}

func shownValue(m *matcherv3.ValueMatcher) string {
	switch p := m.GetMatchPattern().(type) {
	case *matcherv3.ValueMatcher_StringMatch:
		return shown(p.StringMatch)
	case *matcherv3.ValueMatcher_ListMatch:
		return "[" + shownValue(p.ListMatch.GetOneOf()) + "]"
	case *matcherv3.ValueMatcher_OrMatch: // a string, or a list with such a string
		if len(p.OrMatch.GetValueMatchers()) > 0 {
			return shownValue(p.OrMatch.GetValueMatchers()[0])
		}
	}
	return ""
}

// identityField reads the expressions by which namespaces, serviceAccounts and trustDomains are matched.
func identityField(e string) (field, want string) {
	e = strings.NewReplacer(`[^/]*`, "*", `\`, "").Replace(e)
	if _, rest, ok := strings.Cut(e, "/ns/"); ok {
		ns, account, ok := strings.Cut(strings.TrimSuffix(rest, "(/.+)?"), "/sa/")
		if ok {
			return "serviceAccounts", ns + "/" + account
		}
		return "namespaces", strings.TrimSuffix(rest, "/.+")
	}
	return "trustDomains", strings.ReplaceAll(strings.TrimSuffix(strings.TrimPrefix(e, "spiffe://"), "/.+"), "[^/]+", "*")
}

func metadataField(filter string, path []string) string {
	if filter == claimsNamespace && len(path) > 1 && path[0] == "payload" {
		switch claim := path[1:]; {
		case len(claim) == 1 && (claim[0] == "iss" || claim[0] == "sub"):
			return "requestPrincipals (" + claim[0] + ")"
		case len(claim) == 1 && claim[0] == "aud":
			return "request.auth.audiences"
		case len(claim) == 1 && claim[0] == "azp":
			return "request.auth.presenter"
		default:
			return "request.auth.claims[" + strings.Join(claim, "][") + "]"
		}
	}
	return "experimental." + filter + "[" + strings.Join(path, "][") + "]"
}

// found is a value as it is shown to users: its JSON.
func found(v *structpb.Value) string {
	if v == nil {
		return "none"
	}
	if s, ok := v.GetKind().(*structpb.Value_StringValue); ok {
		return s.StringValue
	}
	b, err := protojson.Marshal(v)
	if err != nil {
		return "?"
	}
	return string(b)
}

func header(m *routev3.HeaderMatcher) condition {
	field, want := "request.headers["+m.GetName()+"]", shown(m.GetStringMatch())
	switch m.GetName() {
	case ":method":
		field = "methods"
	case ":authority":
		field = "hosts"
	}
	if m.GetPresentMatch() {
		want = "*"
	}
	return condition{leaf: leaf{field: field, want: want, ask: func(r *run) (answer, string) {
		v, ok := r.headers.get(m.GetName())
		if !ok {
			v = "none"
		}
		return r.config.remembered.header(m, r.headers), v
	}}}
}
