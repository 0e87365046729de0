package translate

import (
	"slices"
	"strings"

	mutationrulesv3 "github.com/envoyproxy/go-control-plane/envoy/config/common/mutation_rules/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	earlyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/http/early_header_mutation/header_mutation/v3"
	"google.golang.org/protobuf/proto"
)

// manager compares what a connection manager believes of its clients, and how it reads their requests, with what was generated.
func (w *weakening) manager(what string, b, a *hcmv3.HttpConnectionManager) {
	w.tell(b.GetNormalizePath().GetValue() && !a.GetNormalizePath().GetValue(), "%s: normalize_path is weaker", what)
	w.tell(b.MergeSlashes && !a.MergeSlashes, "%s: merge_slashes is weaker", what)
	w.tell(slashes(a.PathWithEscapedSlashesAction) < slashes(b.PathWithEscapedSlashesAction), "%s: path_with_escaped_slashes_action is weaker", what)
	w.tell(a.ForwardClientCertDetails != b.ForwardClientCertDetails && !sanitizes(a), "%s: forward_client_cert_details is weaker", what)
	w.tell(sanitizes(b) && b.SetCurrentClientCertDetails.GetUri() && !a.SetCurrentClientCertDetails.GetUri(), "%s: set_current_client_cert_details is weaker", what)
	w.tell(a.GetUseRemoteAddress().GetValue() != b.GetUseRemoteAddress().GetValue(), "%s: use_remote_address is weaker", what)
	w.tell(a.XffNumTrustedHops != b.XffNumTrustedHops, "%s: xff_num_trusted_hops is weaker", what)
	w.tell(len(a.OriginalIpDetectionExtensions) > len(b.OriginalIpDetectionExtensions), "%s: original_ip_detection_extensions is weaker", what)
	w.tell(!proto.Equal(a.InternalAddressConfig, b.InternalAddressConfig), "%s: internal_address_config is weaker", what)
	w.tell(!proto.Equal(a.TypedHeaderValidationConfig, b.TypedHeaderValidationConfig), "%s: typed_header_validation_config is weaker", what)
	w.tell(b.StripTrailingHostDot && !a.StripTrailingHostDot, "%s: strip_trailing_host_dot is weaker", what)
	w.tell(underscores(b) && !underscores(a), "%s: headers_with_underscores_action is weaker", what)
	w.tell(a.GetHttpProtocolOptions().GetAllowChunkedLength() && !b.GetHttpProtocolOptions().GetAllowChunkedLength(), "%s: allow_chunked_length is weaker", what)
	w.tell(!mutates(b, a), "%s: early_header_mutation_extensions is weaker", what)
	for _, f := range b.HttpFilters {
		if isGuard(f.Name) {
			w.tell(!slices.ContainsFunc(a.HttpFilters, func(g *hcmv3.HttpFilter) bool { return proto.Equal(f, g) }), "%s: filter %s is changed", what, f.Name)
		}
	}
}

// slashes is how little of an escaped slash is left to the backend's reading.
func slashes(a hcmv3.HttpConnectionManager_PathWithEscapedSlashesAction) int {
	switch a {
	case hcmv3.HttpConnectionManager_REJECT_REQUEST:
		return 3
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_REDIRECT:
		return 2
	case hcmv3.HttpConnectionManager_UNESCAPE_AND_FORWARD:
		return 1
	default:
		return 0
	}
}

// sanitizes tells whether the header that names the client's certificate is never taken from the client.
func sanitizes(m *hcmv3.HttpConnectionManager) bool {
	return m.ForwardClientCertDetails == hcmv3.HttpConnectionManager_SANITIZE || m.ForwardClientCertDetails == hcmv3.HttpConnectionManager_SANITIZE_SET
}

func underscores(m *hcmv3.HttpConnectionManager) bool {
	return m.GetCommonHttpProtocolOptions().GetHeadersWithUnderscoresAction() != corev3.HttpProtocolOptions_ALLOW
}

// mutates tells whether the headers that were edited before any filter still are, and no others that say who asks.
func mutates(b, a *hcmv3.HttpConnectionManager) bool {
	was, now := b.EarlyHeaderMutationExtensions, a.EarlyHeaderMutationExtensions
	if len(now) < len(was) {
		return false
	}
	for i, e := range now {
		if i < len(was) {
			if !proto.Equal(was[i], e) {
				return false
			}
			continue
		}
		m := &earlyv3.HeaderMutation{}
		if !e.GetTypedConfig().MessageIs(m) || e.GetTypedConfig().UnmarshalTo(m) != nil || slices.ContainsFunc(m.Mutations, impersonates) {
			return false
		}
	}
	return true
}

// impersonates tells whether a mutation writes a header by which Envoy or a backend knows who asks.
func impersonates(m *mutationrulesv3.HeaderMutation) bool {
	name := strings.ToLower(m.GetAppend().GetHeader().GetKey())
	if name == "" {
		return m.GetRemove() == "" // a kind that is not known here
	}
	return strings.HasPrefix(name, "x-forwarded-") || strings.HasPrefix(name, "x-envoy-") ||
		slices.Contains([]string{"forwarded", "x-real-ip", "true-client-ip", "x-client-ip", "x-original-forwarded-for"}, name)
}
