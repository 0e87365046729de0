package translate

import (
	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	celv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/filters/cel/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/credence-mesh/credence/xds/filter"
	"github.com/credence-mesh/credence/xds/ir"
)

const (
	maxHeaders   = 100 // of a request; more is 431
	maxHeadersKB = 60  // of all headers of a request together; more is 431
)

// unambiguous makes a connection manager refuse, or make canonical, requests that the backend could read differently. It depends on the
// settings of the mesh alone. What the codec refuses by itself (two lengths, a length and chunks, folded or broken header lines) needs no setting.
func unambiguous(m *hcmv3.HttpConnectionManager, h *ir.HTTP) error {
	paths(m, h.Paths)
	if m.CommonHttpProtocolOptions == nil {
		m.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{}
	}
	m.CommonHttpProtocolOptions.MaxHeadersCount = wrapperspb.UInt32(maxHeaders)
	m.MaxRequestHeadersKb = wrapperspb.UInt32(maxHeadersKB)
	mapper, err := badRequest()
	if err != nil {
		return err
	}
	m.LocalReplyConfig = &hcmv3.LocalReplyConfig{Mappers: []*hcmv3.ResponseMapper{mapper}}
	if h.Lenient {
		return nil
	}
	m.CommonHttpProtocolOptions.HeadersWithUnderscoresAction = corev3.HttpProtocolOptions_REJECT_REQUEST
	m.StripTrailingHostDot = true
	if !h.Edge || h.Hops > 0 {
		return nil
	}
	return withoutForwarded(m)
}

// paths is Istio's settings of a connection manager for each normalization, and ours for the strict one.
func paths(m *hcmv3.HttpConnectionManager, p ir.Paths) {
	m.NormalizePath = wrapperspb.Bool(p != ir.PathsNone)
	m.MergeSlashes = p == ir.PathsStrict || p == ir.PathsMergeSlashes || p == ir.PathsDecodeAndMerge
	switch p {
	case ir.PathsStrict:
		m.PathWithEscapedSlashesAction = hcmv3.HttpConnectionManager_REJECT_REQUEST
	case ir.PathsDecodeAndMerge:
		m.PathWithEscapedSlashesAction = hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD
	default:
		m.PathWithEscapedSlashesAction = hcmv3.HttpConnectionManager_KEEP_UNCHANGED
	}
}

// badRequest makes the 403 of the slot that refuses ambiguous requests a 400. It asks for the details of the response: metadata of a rule
// that refuses is written only after the answer.
func badRequest() (*hcmv3.ResponseMapper, error) {
	ours, err := pack(&celv3.ExpressionFilter{Expression: `response.code_details.startsWith("rbac_access_denied_matched_policy[` + filter.RefusedPolicy + `")`})
	return &hcmv3.ResponseMapper{
		StatusCode: wrapperspb.UInt32(400),
		Filter: &accesslogv3.AccessLogFilter{FilterSpecifier: &accesslogv3.AccessLogFilter_ExtensionFilter{ExtensionFilter: &accesslogv3.ExtensionFilter{
			Name: "envoy.access_loggers.extension_filters.cel", ConfigType: &accesslogv3.ExtensionFilter_TypedConfig{TypedConfig: ours},
		}}},
	}, err
}

// forwarded is the headers in which proxies tell who asked and how. Without a trusted proxy in front, only an impostor sends them.
func forwarded() []string {
	return []string{
		"forwarded", "x-forwarded-for", "x-forwarded-host", "x-forwarded-port", "x-forwarded-prefix", "x-forwarded-server",
		"x-real-ip", "true-client-ip", "x-client-ip", "x-original-forwarded-for",
	}
}

// withoutForwarded removes those headers before Envoy itself reads or extends them: no filter could, later.
func withoutForwarded(m *hcmv3.HttpConnectionManager) error {
	var remove []*mutationrulesv3.HeaderMutation
	for _, name := range forwarded() {
		remove = append(remove, &mutationrulesv3.HeaderMutation{Action: &mutationrulesv3.HeaderMutation_Remove{Remove: name}})
	}
	config, err := pack(&earlyv3.HeaderMutation{Mutations: remove})
	if err != nil {
		return err
	}
	m.EarlyHeaderMutationExtensions = []*corev3.TypedExtensionConfig{{Name: "envoy.http.early_header_mutation.header_mutation", TypedConfig: config}}
	return nil
}
