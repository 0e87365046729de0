package filter

import (
	"fmt"
	"slices"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	ratelimitconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/ratelimit/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	exprv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/rate_limit_descriptors/expr/v3"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/credence-mesh/credence/xds/resource"
)

// Limit is a node of a rate-limit configuration, as far as descriptors for it must be made.
type Limit struct {
	Key       string
	Value     string  // empty: every value; a last "*" is a prefix
	Limited   bool    // has a limit of its own, so that a descriptor must end here
	PerSecond float64 // requests a second that the limit allows, +Inf for one that is unlimited: the smallest of siblings is the strictest
	Children  []Limit
}

// The keys of a configuration that do not mean a verified claim of the same name.
const (
	keyTier    = "api_tier" // the verified claim "tier"
	keyPath    = "path"     // the path without its query
	keyMethod  = "method"
	keyRemote  = "remote_address"
	keyGeneric = "generic_key"
)

// The entries that every descriptor but one of generic keys alone gets beside what the configuration asks for. The limiter leaves them out when it looks for a limit and
// keeps them in the name of the bucket, so that customers who share a limit never share its quota.
const (
	entryCustomer = "credence.customer" // verified claim tenant_id, else sub, else the client's address
	entryIssuer   = "credence.issuer"   // verified claim iss: a tenant of one issuer is not the same-named tenant of another
	entryKind     = "credence.kind"     // which of the three the customer is
)

// limitTimeout bounds one question to the limiter.
const limitTimeout = 100 * 1e6

// RateLimitService is where Envoy's ratelimit filter asks: the limiter of the control plane.
func RateLimitService() *ratelimitconfigv3.RateLimitServiceConfig {
	return &ratelimitconfigv3.RateLimitServiceConfig{
		TransportApiVersion: corev3.ApiVersion_V3,
		GrpcService: &corev3.GrpcService{
			TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{ClusterName: ServicesCluster}},
			Timeout:         &durationpb.Duration{Nanos: limitTimeout},
		},
	}
}

// RateLimits is the descriptors that requests need for a configuration to be met: for the `rate_limits` field of Envoy's ratelimit filter.
// Values come from verified claims and from the request line, never from a header that the client chooses. A claim that is absent or not
// among the configured values counts as the strictest of them.
func RateLimits(tree []Limit) ([]*routev3.RateLimit, error) {
	return descriptors(nil, tree)
}

type action = routev3.RateLimit_Action

// descriptors makes one list of actions for every way down the tree that ends at a limit. Envoy evaluates each list for itself.
func descriptors(prefix []*action, siblings []Limit) ([]*routev3.RateLimit, error) {
	var out []*routev3.RateLimit
	for _, way := range ways(siblings) {
		a, err := way.action(len(prefix) == 0)
		if err != nil {
			return nil, fmt.Errorf("descriptor %s: %w", way.key, err)
		}
		actions := append(slices.Clone(prefix), a)
		if way.limited() {
			list := slices.Clone(actions)
			if !forAll(list) {
				customer, err := customerActions()
				if err != nil {
					return nil, err
				}
				list = append(list, customer...)
			}
			out = append(out, &routev3.RateLimit{Actions: list})
		}
		var children []Limit
		for _, n := range way.nodes {
			children = append(children, n.Children...)
		}
		below, err := descriptors(actions, children)
		if err != nil {
			return nil, err
		}
		out = append(out, below...)
	}
	return out, nil
}

// forAll tells whether a limit is one for all customers together: a descriptor of nothing but generic keys says nothing of who asks or for
// what, and is there to protect what stands behind.
func forAll(list []*action) bool {
	return !slices.ContainsFunc(list, func(a *action) bool { return a.GetGenericKey() == nil })
}

// way is the siblings that one action serves: all values of a claim, or one value of anything else.
type way struct {
	key, value string
	nodes      []Limit
}

func ways(siblings []Limit) []way {
	var out []way
	for _, n := range siblings {
		value := n.Value
		if fromClaim(n.Key) {
			value = ""
		}
		i := slices.IndexFunc(out, func(w way) bool { return w.key == n.Key && w.value == value })
		if i < 0 {
			out = append(out, way{key: n.Key, value: value})
			i = len(out) - 1
		}
		out[i].nodes = append(out[i].nodes, n)
	}
	return out
}

func fromClaim(key string) bool {
	switch key {
	case keyPath, keyMethod, keyRemote, keyGeneric:
		return false
	default:
		return true
	}
}

func (w way) limited() bool {
	return slices.ContainsFunc(w.nodes, func(n Limit) bool { return n.Limited })
}

// action produces the entry of this way, or, where the request is not on it, nothing: then Envoy drops the whole list.
func (w way) action(top bool) (*action, error) {
	switch w.key {
	case keyGeneric:
		return generic(w.value), nil
	case keyRemote:
		return &action{ActionSpecifier: &routev3.RateLimit_Action_RemoteAddress_{RemoteAddress: &routev3.RateLimit_Action_RemoteAddress{}}}, nil
	case keyPath:
		return valueAction(keyPath, "request.url_path", w.value)
	case keyMethod:
		return valueAction(keyMethod, "request.method", w.value)
	default:
		return w.claimAction(top)
	}
}

func generic(value string) *action {
	return &action{ActionSpecifier: &routev3.RateLimit_Action_GenericKey_{GenericKey: &routev3.RateLimit_Action_GenericKey{DescriptorValue: value}}}
}

func valueAction(key, attribute, value string) (*action, error) {
	prefix, wild := strings.CutSuffix(value, "*")
	switch {
	case value == "":
		return expression(key, attribute)
	case wild:
		return expression(key, fmt.Sprintf("%s.startsWith(%s) ? %s : %s", attribute, quote(prefix), attribute, nothing))
	default:
		return expression(key, fmt.Sprintf("%s == %s ? %s : %s", attribute, quote(value), attribute, nothing))
	}
}

// claimAction takes the value from a verified claim. At the top, where a missing entry would mean no limit at all, a claim that is absent
// or unknown counts as the strictest value; further down it drops the list, and the limits above still hold.
func (w way) claimAction(top bool) (*action, error) {
	name := w.key
	if name == keyTier {
		name = "tier"
	}
	var known []string
	anyValue := false
	for _, n := range w.nodes {
		if n.Value == "" || strings.HasSuffix(n.Value, "*") {
			anyValue = true
		}
		known = append(known, quote(n.Value))
	}
	holds := textClaim(name)
	if !anyValue {
		holds += " && " + claimRef(name) + " in [" + strings.Join(known, ", ") + "]"
	}
	otherwise := nothing
	if top {
		otherwise = quote(w.strictest())
	}
	return expression(w.key, fmt.Sprintf("%s ? %s : %s", holds, claimRef(name), otherwise))
}

// strictest is the configured value with the smallest limit; the first of equals.
func (w way) strictest() string {
	best := Limit{}
	for _, n := range w.nodes {
		if n.Limited && !strings.HasSuffix(n.Value, "*") && (!best.Limited || n.PerSecond < best.PerSecond) {
			best = n
		}
	}
	if !best.Limited && len(w.nodes) > 0 {
		return w.nodes[0].Value
	}
	return best.Value
}

// customerActions name the customer of a request.
func customerActions() ([]*action, error) {
	tenant, subject := textClaim("tenant_id"), textClaim("sub")
	pick := func(ifTenant, ifSubject, otherwise string) string {
		return fmt.Sprintf("%s ? %s : (%s ? %s : %s)", tenant, ifTenant, subject, ifSubject, otherwise)
	}
	var out []*action
	for _, e := range []struct{ key, text string }{
		{entryCustomer, pick(claimRef("tenant_id"), claimRef("sub"), clientAddress)},
		{entryIssuer, fmt.Sprintf("%s ? %s : ''", textClaim("iss"), claimRef("iss"))},
		{entryKind, pick("'tenant'", "'subject'", "'address'")},
	} {
		a, err := expression(e.key, e.text)
		if err != nil {
			return nil, err
		}
		out = append(out, a)
	}
	return out, nil
}

// The attributes of Envoy's expressions. An expression that fails drops the list of actions, and with it the limit: every one below is
// total, but for `nothing`, which fails on purpose.
const (
	allClaims     = "metadata.filter_metadata['" + ClaimsNamespace + "']"
	clientAddress = `(source.address.matches('.*:[0-9]+$') ? re.extract(source.address, '(.*):[0-9]+$', '\\1') : source.address)`
	nothing       = "metadata.filter_metadata['credence.nothing'].nothing"
)

// claimRef reads a claim that is known to be there.
func claimRef(name string) string { return allClaims + "." + ClaimsKey + "[" + quote(name) + "]" }

// textClaim tests that there is a verified claim, and that it is a string with something in it.
func textClaim(name string) string {
	return fmt.Sprintf("('%s' in metadata.filter_metadata && '%s' in %s && %s in %s.%s && type(%s) == string && %s != '')",
		ClaimsNamespace, ClaimsKey, allClaims, quote(name), allClaims, ClaimsKey, claimRef(name), claimRef(name))
}

// quote writes a string literal of the expression language. Only the characters that could end or escape it are special.
func quote(s string) string {
	var b strings.Builder
	b.WriteByte('\'')
	for _, r := range s {
		switch {
		case r == '\'' || r == '\\':
			b.WriteByte('\\')
			b.WriteRune(r)
		case r < ' ' || r == 0x7f:
			fmt.Fprintf(&b, `\u%04x`, r)
		default:
			b.WriteRune(r)
		}
	}
	b.WriteByte('\'')
	return b.String()
}

func expression(key, text string) (*action, error) {
	packed, err := resource.Pack(&exprv3.Descriptor{DescriptorKey: key, ExprSpecifier: &exprv3.Descriptor_Text{Text: text}})
	if err != nil {
		return nil, err
	}
	return &action{ActionSpecifier: &routev3.RateLimit_Action_Extension{
		Extension: &corev3.TypedExtensionConfig{Name: "envoy.rate_limit_descriptors.expr", TypedConfig: packed},
	}}, nil
}
