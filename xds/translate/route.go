package translate

import (
	"fmt"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/credence-mesh/credence/xds/ir"
	"github.com/credence-mesh/credence/xds/resource"
)

func (t *translator) table(r *ir.RouteTable) error {
	out := &routev3.RouteConfiguration{Name: r.Name, ValidateClusters: wrapperspb.Bool(false), IgnorePortInHostMatching: r.AnyPort}
	t.from(resource.RouteConfig, r.Name, r.Sources)
	for i := range r.Hosts {
		h := r.Hosts[i]
		host := &routev3.VirtualHost{Name: h.Name, Domains: h.Domains}
		for n := range h.Routes {
			route, err := routeOf(&h.Routes[n])
			if err != nil {
				return fmt.Errorf("host %s: route %s: %w", h.Name, h.Routes[n].Name, err)
			}
			host.Routes = append(host.Routes, route)
			t.from(resource.RouteConfig, r.Name, h.Routes[n].Sources)
		}
		out.VirtualHosts = append(out.VirtualHosts, host)
		t.from(resource.RouteConfig, r.Name, h.Sources)
	}
	t.out.Routes = append(t.out.Routes, out)
	return nil
}

func routeOf(r *ir.Route) (*routev3.Route, error) {
	match, err := routeMatch(&r.Match)
	if err != nil {
		return nil, err
	}
	out := &routev3.Route{
		Name: r.Name, Match: match,
		RequestHeadersToAdd: headersToAdd(&r.Headers), RequestHeadersToRemove: r.Headers.Remove,
		ResponseHeadersToAdd: headersToAdd(&r.ResponseHeaders), ResponseHeadersToRemove: r.ResponseHeaders.Remove,
	}
	switch a := r.Action.(type) {
	case ir.Forward:
		action, err := forward(r, &a)
		if err != nil {
			return nil, err
		}
		out.Action = &routev3.Route_Route{Route: action}
	case ir.RedirectTo:
		action, err := redirect(&r.Match, &a)
		if err != nil {
			return nil, err
		}
		out.Action = &routev3.Route_Redirect{Redirect: action}
	case ir.Respond:
		out.Action = respond(a.Status, a.Body)
	default:
		out.Action = respond(404, "")
	}
	return out, nil
}

func respond(status uint32, body string) *routev3.Route_DirectResponse {
	r := &routev3.DirectResponseAction{Status: status}
	if body != "" {
		r.Body = &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: body}}
	}
	return &routev3.Route_DirectResponse{DirectResponse: r}
}

func headersToAdd(e *ir.HeaderEdits) []*corev3.HeaderValueOption {
	var out []*corev3.HeaderValueOption
	add := func(values []ir.HeaderValue, how corev3.HeaderValueOption_HeaderAppendAction) {
		for _, h := range values {
			out = append(out, &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: h.Name, Value: literal(h.Value)}, AppendAction: how})
		}
	}
	add(e.Set, corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD)
	add(e.Add, corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD)
	return out
}

// literal keeps Envoy from reading a value as a format: a percent sign is written twice.
func literal(s string) string {
	var out []byte
	for i := range len(s) {
		if s[i] == '%' {
			out = append(out, '%')
		}
		out = append(out, s[i])
	}
	return string(out)
}

// forward sends on. A backend that is not valid is a cluster that does not exist: its share of the requests is answered with 500.
func forward(r *ir.Route, a *ir.Forward) (*routev3.RouteAction, error) {
	out := &routev3.RouteAction{
		ClusterNotFoundResponseCode: routev3.RouteAction_INTERNAL_SERVER_ERROR,
		Timeout:                     durationpb.New(timeout(&r.Timeout)),
	}
	if len(a.To) == 1 && plainShare(&a.To[0]) {
		out.ClusterSpecifier = &routev3.RouteAction_Cluster{Cluster: a.To[0].Cluster}
	} else {
		w := &routev3.WeightedCluster{}
		for i := range a.To {
			to := &a.To[i]
			w.Clusters = append(w.Clusters, &routev3.WeightedCluster_ClusterWeight{
				Name: to.Cluster, Weight: wrapperspb.UInt32(to.Weight),
				RequestHeadersToAdd: headersToAdd(&to.Headers), RequestHeadersToRemove: to.Headers.Remove,
				ResponseHeadersToAdd: headersToAdd(&to.ResponseHeaders), ResponseHeadersToRemove: to.ResponseHeaders.Remove,
			})
		}
		out.ClusterSpecifier = &routev3.RouteAction_WeightedClusters{WeightedClusters: w}
	}
	if a.RewriteHost != "" {
		out.HostRewriteSpecifier = &routev3.RouteAction_HostRewriteLiteral{HostRewriteLiteral: a.RewriteHost}
	}
	for _, m := range r.Mirrors {
		out.RequestMirrorPolicies = append(out.RequestMirrorPolicies, mirror(&m))
	}
	if r.Retry != nil {
		out.RetryPolicy = retry(r.Retry)
	}
	return out, rewrite(out, &r.Match, a)
}

func plainShare(w *ir.Weighted) bool {
	return len(w.Headers.Set)+len(w.Headers.Add)+len(w.Headers.Remove)+len(w.ResponseHeaders.Set)+len(w.ResponseHeaders.Add)+len(w.ResponseHeaders.Remove) == 0
}

// timeout is the shorter of the two that are set: without retries a request has one attempt.
func timeout(t *ir.Timeout) time.Duration {
	switch {
	case t.Request != nil && t.PerBackend != nil && *t.Request > 0 && *t.PerBackend > 0:
		return min(*t.Request, *t.PerBackend)
	case t.Request != nil && *t.Request > 0:
		return *t.Request
	case t.PerBackend != nil:
		return *t.PerBackend
	default:
		return 0
	}
}

func mirror(m *ir.Mirror) *routev3.RouteAction_RequestMirrorPolicy {
	out := &routev3.RouteAction_RequestMirrorPolicy{Cluster: m.Cluster}
	if m.Denominator > 0 {
		share := uint64(m.Numerator) * 1_000_000 / uint64(m.Denominator)
		out.RuntimeFraction = &corev3.RuntimeFractionalPercent{DefaultValue: &typev3.FractionalPercent{
			Numerator: uint32(min(share, 1_000_000)), Denominator: typev3.FractionalPercent_MILLION,
		}}
	}
	return out
}

func retry(r *ir.Retry) *routev3.RetryPolicy {
	out := &routev3.RetryPolicy{NumRetries: wrapperspb.UInt32(r.Attempts), RetryOn: "connect-failure,refused-stream", RetriableStatusCodes: r.Codes}
	if len(r.Codes) > 0 {
		out.RetryOn += ",retriable-status-codes"
	}
	if r.Backoff > 0 {
		out.RetryBackOff = &routev3.RetryPolicy_RetryBackOff{BaseInterval: durationpb.New(r.Backoff)}
	}
	return out
}
