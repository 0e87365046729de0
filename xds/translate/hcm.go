package translate

import (
	"time"

	accesslogv3 "github.com/envoyproxy/go-control-plane/envoy/config/accesslog/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	fileaccesslogv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/access_loggers/file/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/structpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/credence-mesh/credence/xds/ir"
)

const (
	handshakeTimeout      = 10 * time.Second
	requestHeadersTimeout = 10 * time.Second
	edgeIdleTimeout       = time.Hour
	edgeStreamIdleTimeout = 5 * time.Minute
	edgeStreams           = 100      // concurrent, of one HTTP/2 connection
	edgeStreamWindow      = 64 << 10 // bytes
	edgeConnectionWindow  = 1 << 20  // bytes
)

// connectionManager is everything but the filters: nothing in it depends on a policy.
func connectionManager(h *ir.HTTP) (*hcmv3.HttpConnectionManager, error) {
	m := &hcmv3.HttpConnectionManager{
		StatPrefix: h.Name, CodecType: hcmv3.HttpConnectionManager_AUTO,
		RouteSpecifier:           &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{RouteConfigName: h.Table, ConfigSource: ads()}},
		UpgradeConfigs:           []*hcmv3.HttpConnectionManager_UpgradeConfig{{UpgradeType: "websocket"}},
		UseRemoteAddress:         wrapperspb.Bool(h.Edge),
		ForwardClientCertDetails: hcmv3.HttpConnectionManager_SANITIZE,
		RequestHeadersTimeout:    durationpb.New(requestHeadersTimeout),
		// A stream may be quiet for as long as its ends want; Envoy's default of 5 minutes would cut WebSockets and gRPC streams.
		StreamIdleTimeout: durationpb.New(0),
	}
	if h.Egress {
		return m, nil
	}
	if h.Edge {
		edge(m, h)
	} else {
		m.ForwardClientCertDetails = hcmv3.HttpConnectionManager_SANITIZE_SET
		m.SetCurrentClientCertDetails = &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Subject: wrapperspb.Bool(true), Uri: true}
	}
	return m, unambiguous(m, h)
}

// edge follows Envoy's advice for proxies that face clients that are not trusted.
func edge(m *hcmv3.HttpConnectionManager, h *ir.HTTP) {
	m.XffNumTrustedHops = h.Hops
	m.StreamIdleTimeout = durationpb.New(edgeStreamIdleTimeout)
	m.CommonHttpProtocolOptions = &corev3.HttpProtocolOptions{IdleTimeout: durationpb.New(edgeIdleTimeout)}
	m.Http2ProtocolOptions = &corev3.Http2ProtocolOptions{
		MaxConcurrentStreams:        wrapperspb.UInt32(edgeStreams),
		InitialStreamWindowSize:     wrapperspb.UInt32(edgeStreamWindow),
		InitialConnectionWindowSize: wrapperspb.UInt32(edgeConnectionWindow),
	}
}

// ads is the one source of everything. Its bytes must never change: Envoy keys secrets by it, and a listener whose key changed would go live
// without a certificate.
func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
	}
}

// accessLog writes JSON. The path is without its query, which may hold a token.
func accessLog(file string) ([]*accesslogv3.AccessLog, error) {
	if file == "" {
		return nil, nil
	}
	fields := map[string]*structpb.Value{}
	for name, command := range map[string]string{
		"start_time": "%START_TIME%", "method": "%REQUEST_HEADER(:METHOD)%", "path": "%PATH(NQ)%", "protocol": "%PROTOCOL%",
		"response_code": "%RESPONSE_CODE%", "response_code_details": "%RESPONSE_CODE_DETAILS%", "response_flags": "%RESPONSE_FLAGS%",
		"bytes_received": "%BYTES_RECEIVED%", "bytes_sent": "%BYTES_SENT%", "duration_ms": "%DURATION%", "authority": "%REQUEST_HEADER(:AUTHORITY)%",
		"request_id": "%REQUEST_HEADER(X-REQUEST-ID)%", "upstream_cluster": "%UPSTREAM_CLUSTER%", "upstream_host": "%UPSTREAM_HOST%",
		"downstream_remote_address": "%DOWNSTREAM_REMOTE_ADDRESS%", "downstream_peer": "%DOWNSTREAM_PEER_URI_SAN%",
		"connection_termination_details": "%CONNECTION_TERMINATION_DETAILS%", "upstream_transport_failure_reason": "%UPSTREAM_TRANSPORT_FAILURE_REASON%",
	} {
		fields[name] = structpb.NewStringValue(command)
	}
	config, err := pack(&fileaccesslogv3.FileAccessLog{Path: file, AccessLogFormat: &fileaccesslogv3.FileAccessLog_LogFormat{
		LogFormat: &corev3.SubstitutionFormatString{Format: &corev3.SubstitutionFormatString_JsonFormat{JsonFormat: &structpb.Struct{Fields: fields}}},
	}})
	return []*accesslogv3.AccessLog{{Name: "envoy.access_loggers.file", ConfigType: &accesslogv3.AccessLog_TypedConfig{TypedConfig: config}}}, err
}
