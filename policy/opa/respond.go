package opa

import (
	"net/http"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	typev3 "github.com/envoyproxy/go-control-plane/envoy/type/v3"
	rpcstatus "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/grpc/codes"
	"google.golang.org/protobuf/types/known/structpb"
)

// respond turns a result into what Envoy expects. The metadata always carries decision_id, and for a denial that no policy spoke, why.
func respond(r result, id string, reason Reason) *authv3.CheckResponse {
	resp := &authv3.CheckResponse{Status: &rpcstatus.Status{Code: int32(codes.OK)}, DynamicMetadata: r.metadata}
	if resp.DynamicMetadata == nil {
		resp.DynamicMetadata = &structpb.Struct{}
	}
	if resp.DynamicMetadata.Fields == nil {
		resp.DynamicMetadata.Fields = map[string]*structpb.Value{}
	}
	resp.DynamicMetadata.Fields["decision_id"] = structpb.NewStringValue(id)
	resp.DynamicMetadata.Fields["decision_reason"] = structpb.NewStringValue(string(reason))
	if r.allowed {
		resp.HttpResponse = &authv3.CheckResponse_OkResponse{OkResponse: &authv3.OkHttpResponse{
			Headers: headerOptions(r.headers), HeadersToRemove: r.remove, ResponseHeadersToAdd: headerOptions(r.response),
			QueryParametersToSet: queryParameters(r.setQuery), QueryParametersToRemove: r.removeQuery,
		}}
		return resp
	}
	status := r.status
	if status == 0 {
		status = http.StatusForbidden
	}
	resp.Status = &rpcstatus.Status{Code: int32(codes.PermissionDenied)}
	resp.HttpResponse = &authv3.CheckResponse_DeniedResponse{DeniedResponse: &authv3.DeniedHttpResponse{
		Status: &typev3.HttpStatus{Code: typev3.StatusCode(status)}, Headers: headerOptions(r.headers), Body: r.body,
	}}
	return resp
}

// headerOptions replaces what the other side has said: the first value of a name overwrites, further ones are appended.
func headerOptions(list []pair) []*corev3.HeaderValueOption {
	var out []*corev3.HeaderValueOption
	seen := map[string]bool{}
	for _, p := range list {
		action := corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD
		if seen[p.name] {
			action = corev3.HeaderValueOption_APPEND_IF_EXISTS_OR_ADD
		}
		seen[p.name] = true
		out = append(out, &corev3.HeaderValueOption{Header: &corev3.HeaderValue{Key: p.name, Value: p.value}, AppendAction: action})
	}
	return out
}

func queryParameters(list []pair) []*corev3.QueryParameter {
	var out []*corev3.QueryParameter
	for _, p := range list {
		out = append(out, &corev3.QueryParameter{Key: p.name, Value: p.value})
	}
	return out
}
