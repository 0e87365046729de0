package explain

import (
	"context"
	"fmt"
	"net/netip"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	extauthzv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/ext_authz/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// embedded is the cluster of the control plane's own decision service.
const embedded = "credence_services"

// external asks the provider of CUSTOM policies.
func (r *run) external(name string, m *extauthzv3.ExtAuthz) {
	switch r.marked(m.GetFilterEnabledMetadata()) {
	case no:
		r.skip(name, "no CUSTOM rule matches, so nobody is asked")
		return
	case maybe:
		r.unsure(name, "whether the provider is asked cannot be evaluated here")
		return
	case yes:
	}
	cluster := m.GetGrpcService().GetEnvoyGrpc().GetClusterName()
	if cluster != embedded || r.authorize == nil {
		r.unsure(name, "decided by "+cluster+", which is not asked here")
		return
	}
	ctx, cancel := context.WithTimeout(r.ctx, 5*time.Second)
	defer cancel()
	answer, err := r.authorize.Check(ctx, r.check(m))
	if err != nil {
		r.deny(name, int(m.GetStatusOnError().GetCode()), "the decision service failed: "+err.Error())
		return
	}
	if d := answer.GetDeniedResponse(); answer.GetStatus().GetCode() != 0 {
		code := int(d.GetStatus().GetCode())
		if code == 0 {
			code = 403
		}
		by := r.customRule()
		reason := answer.GetDynamicMetadata().GetFields()["decision_reason"].GetStringValue()
		r.denied(name, code, fmt.Sprintf("OPA denies (reason: %s)", reason), by)
		return
	}
	for _, h := range answer.GetOkResponse().GetHeadersToRemove() {
		r.headers.remove(h)
	}
	for _, h := range answer.GetOkResponse().GetHeaders() {
		if h.GetAppendAction() == corev3.HeaderValueOption_OVERWRITE_IF_EXISTS_OR_ADD {
			r.headers.set(h.GetHeader().GetKey(), h.GetHeader().GetValue())
		} else {
			r.headers.append(h.GetHeader().GetKey(), h.GetHeader().GetValue())
		}
	}
	for k, v := range answer.GetDynamicMetadata().GetFields() {
		r.metadata.set("envoy.filters.http.ext_authz", k, v)
	}
	r.pass(name, "OPA allows")
}

// customRule is the CUSTOM rule that asked.
func (r *run) customRule() decided {
	id := r.metadata.find("envoy.filters.http.rbac", []string{"istio_ext_authz_shadow_effective_policy_id"}).GetStringValue()
	return r.origin(id)
}

// check is the question as Envoy would put it.
func (r *run) check(m *extauthzv3.ExtAuthz) *authv3.CheckRequest {
	http := &authv3.AttributeContext_HttpRequest{
		Method: r.headers.value(":method"), Path: r.headers.path(), Host: r.headers.value(":authority"), Scheme: r.headers.value(":scheme"),
		Protocol: "HTTP/1.1", Size: r.req.Body, Id: "0",
	}
	if r.req.Body == 0 {
		http.Size = -1
	}
	fields := &corev3.HeaderMap{}
	for _, h := range r.headers.list {
		fields.Headers = append(fields.Headers, &corev3.HeaderValue{Key: h.Name, RawValue: []byte(h.Value)})
	}
	http.HeaderMap = fields
	out := &authv3.AttributeContext{
		Source:      &authv3.AttributeContext_Peer{Address: socket(r.conn.remote, 0), Principal: r.conn.peer},
		Destination: &authv3.AttributeContext_Peer{Address: socket(r.conn.local, r.conn.localPort)},
		Request:     &authv3.AttributeContext_Request{Time: timestamppb.New(r.req.Now), Http: http}, MetadataContext: &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{}},
	}
	for _, ns := range m.GetMetadataContextNamespaces() {
		if s := r.metadata[ns]; s != nil {
			out.MetadataContext.FilterMetadata[ns] = s
		}
	}
	return &authv3.CheckRequest{Attributes: out}
}

func socket(a netip.Addr, port uint32) *corev3.Address {
	s := &corev3.SocketAddress{PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}}
	if a.IsValid() {
		s.Address = a.String()
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: s}}
}
