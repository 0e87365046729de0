package translate

import (
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	rawbufferv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/raw_buffer/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/xds/ir"
)

const (
	ownSecret  = "default" // the workload's own X.509-SVID
	rootSecret = "ROOTCA"  // the bundle of the trust domain
	// nobody is an identity that no authority ever signs: Envoy accepts everybody where no identity is asked for.
	nobody = "spiffe://nobody.invalid/nobody"
)

// downstream is the TLS of a filter chain; nil is plaintext.
func downstream(t *ir.DownstreamTLS) (*corev3.TransportSocket, error) {
	common := commonTLS(t.ALPN)
	context := &tlsv3.DownstreamTlsContext{CommonTlsContext: common}
	switch t.Mode {
	case ir.Plaintext:
		return nil, nil
	case ir.Terminate:
		for _, s := range t.Secrets {
			common.TlsCertificateSdsSecretConfigs = append(common.TlsCertificateSdsSecretConfigs, secret(s))
		}
	default:
		ownIdentity(common, t.Peers)
		context.RequireClientCertificate = wrapperspb.Bool(true)
		// A resumed session would skip the proof of identity, after the bundle changed too.
		context.DisableStatefulSessionResumption = true
		context.SessionTicketKeysType = &tlsv3.DownstreamTlsContext_DisableStatelessSessionResumption{DisableStatelessSessionResumption: true}
	}
	return tlsSocket(context)
}

// upstream is the TLS towards a cluster; nil is plaintext.
func upstream(t *ir.UpstreamTLS) (*corev3.TransportSocket, error) {
	common := commonTLS(t.ALPN)
	context := &tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: t.SNI}
	switch t.Mode {
	case ir.UpstreamPlain:
		return nil, nil
	case ir.UpstreamTLSPublic:
		common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
			SystemRootCerts: &tlsv3.CertificateValidationContext_SystemRootCerts{},
			MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
				SanType: tlsv3.SubjectAltNameMatcher_DNS, Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: t.SNI}},
			}},
		}}
	default:
		ownIdentity(common, t.Peers)
		context.MaxSessionKeys = wrapperspb.UInt32(0)
	}
	return tlsSocket(context)
}

func tlsSocket(m proto.Message) (*corev3.TransportSocket, error) {
	return socket("envoy.transport_sockets.tls", m)
}

func rawSocket() (*corev3.TransportSocket, error) {
	return socket("envoy.transport_sockets.raw_buffer", &rawbufferv3.RawBuffer{})
}

func socket(name string, m proto.Message) (*corev3.TransportSocket, error) {
	config, err := pack(m)
	return &corev3.TransportSocket{Name: name, ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: config}}, err
}

// commonTLS is TLS 1.2 with forward secrecy and authenticated encryption, or 1.3.
func commonTLS(alpn []string) *tlsv3.CommonTlsContext {
	return &tlsv3.CommonTlsContext{AlpnProtocols: alpn, TlsParams: &tlsv3.TlsParameters{
		TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_2, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3,
		CipherSuites: []string{
			"ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384", "ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256",
		},
	}}
}

// ownIdentity shows the workload's own SVID and accepts the given peers alone.
func ownIdentity(c *tlsv3.CommonTlsContext, peers []identity.Matcher) {
	c.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{secret(ownSecret)}
	accept := &tlsv3.CertificateValidationContext{}
	for _, p := range peers {
		if m := matchPeer(p); m != nil {
			accept.MatchTypedSubjectAltNames = append(accept.MatchTypedSubjectAltNames, uriSAN(m))
		}
	}
	if len(accept.MatchTypedSubjectAltNames) == 0 {
		accept.MatchTypedSubjectAltNames = append(accept.MatchTypedSubjectAltNames, uriSAN(&matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: nobody}}))
	}
	c.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
		DefaultValidationContext: accept, ValidationContextSdsSecretConfig: secret(rootSecret),
	}}
}

func uriSAN(m *matcherv3.StringMatcher) *tlsv3.SubjectAltNameMatcher {
	return &tlsv3.SubjectAltNameMatcher{SanType: tlsv3.SubjectAltNameMatcher_URI, Matcher: m}
}

func matchPeer(p identity.Matcher) *matcherv3.StringMatcher {
	if id, ok := p.Exact(); ok {
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: id.String()}}
	}
	if td, ok := p.Domain(); ok {
		return &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Prefix{Prefix: td.IDString() + "/"}}
	}
	return nil
}

func secret(name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: ads()}
}
