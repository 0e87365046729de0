package proxy

import (
	"fmt"
	"time"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	upstreamhttpv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	matcherv3 "github.com/envoyproxy/go-control-plane/envoy/type/matcher/v3"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/attest"
	"github.com/credence-mesh/credence/xds/resource"
)

const (
	connectTimeout = 3 * time.Second
	// A dead peer, or a path that swallows packets, is noticed within pingEvery + pingTimeout. The server must permit pings this often.
	pingEvery   = 10 * time.Second
	pingTimeout = 5 * time.Second
	// maxInFlight bounds decisions that wait for an answer. Beyond it Envoy refuses at once, which is what an overloaded service needs.
	maxInFlight = 16_384
)

func staticClusters(o Options) ([]*clusterv3.Cluster, error) {
	host, port, discovery, err := target(o.XDSAddr)
	if err != nil {
		return nil, err
	}
	context, err := transport(o, sni(host, discovery))
	if err != nil {
		return nil, err
	}
	tls, err := resource.Pack(context)
	if err != nil {
		return nil, err
	}
	protocol, err := resource.Pack(http2())
	if err != nil {
		return nil, err
	}
	var out []*clusterv3.Cluster
	for _, name := range []string{ClusterXDS, ClusterServices} {
		out = append(out, &clusterv3.Cluster{
			Name:                          name,
			ClusterDiscoveryType:          &clusterv3.Cluster_Type{Type: discovery},
			DnsLookupFamily:               clusterv3.Cluster_ALL, // every address of the name is tried, IPv6 and IPv4
			ConnectTimeout:                durationpb.New(connectTimeout),
			LoadAssignment:                endpoint(name, host, port),
			TypedExtensionProtocolOptions: map[string]*anypb.Any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": protocol},
			TransportSocket: &corev3.TransportSocket{
				Name:       "envoy.transport_sockets.tls",
				ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: tls},
			},
			UpstreamConnectionOptions: &clusterv3.UpstreamConnectionOptions{TcpKeepalive: &corev3.TcpKeepalive{
				KeepaliveProbes: wrapperspb.UInt32(3), KeepaliveTime: wrapperspb.UInt32(10), KeepaliveInterval: wrapperspb.UInt32(5),
			}},
			CircuitBreakers: &clusterv3.CircuitBreakers{Thresholds: []*clusterv3.CircuitBreakers_Thresholds{{
				MaxRequests: wrapperspb.UInt32(maxInFlight), MaxPendingRequests: wrapperspb.UInt32(maxInFlight),
			}}},
		})
	}
	return out, nil
}

func endpoint(cluster, host string, port uint32) *endpointv3.ClusterLoadAssignment {
	return &endpointv3.ClusterLoadAssignment{
		ClusterName: cluster,
		Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socketAddress(host, port)}},
		}}}},
	}
}

// sni is the host name that is asked for; an IP address is none (RFC 6066).
func sni(host string, discovery clusterv3.Cluster_DiscoveryType) string {
	if discovery == clusterv3.Cluster_STATIC {
		return ""
	}
	return host
}

func http2() *upstreamhttpv3.HttpProtocolOptions {
	return &upstreamhttpv3.HttpProtocolOptions{
		UpstreamProtocolOptions: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_{
			ExplicitHttpConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig{
				ProtocolConfig: &upstreamhttpv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
					Http2ProtocolOptions: &corev3.Http2ProtocolOptions{ConnectionKeepalive: &corev3.KeepaliveSettings{
						Interval: durationpb.New(pingEvery), Timeout: durationpb.New(pingTimeout),
					}},
				},
			},
		},
	}
}

// transport is mutual TLS with the channel credential. The server must show exactly the identity of the control plane, signed by the
// mesh's own root: a certificate of a public authority, or of any workload, is refused.
func transport(o Options, serverName string) (*tlsv3.UpstreamTlsContext, error) {
	common := &tlsv3.CommonTlsContext{
		TlsParams:     &tlsv3.TlsParameters{TlsMinimumProtocolVersion: tlsv3.TlsParameters_TLSv1_3, TlsMaximumProtocolVersion: tlsv3.TlsParameters_TLSv1_3},
		AlpnProtocols: []string{"h2"},
	}
	pin := serverPin(o.Credential.ServerID())
	if o.SDSDir != "" {
		common.TlsCertificateSdsSecretConfigs = []*tlsv3.SdsSecretConfig{fileSecret(o.SDSDir, channelSecret)}
		common.ValidationContextType = &tlsv3.CommonTlsContext_CombinedValidationContext{
			CombinedValidationContext: &tlsv3.CommonTlsContext_CombinedCertificateValidationContext{
				DefaultValidationContext:         pin,
				ValidationContextSdsSecretConfig: fileSecret(o.SDSDir, rootsSecret),
			},
		}
		return &tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: serverName}, nil
	}
	pair, err := certificate(o.Credential)
	if err != nil {
		return nil, err
	}
	common.TlsCertificates = []*tlsv3.TlsCertificate{pair}
	pin.TrustedCa = inline(o.Credential.BundlePEM())
	common.ValidationContextType = &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: pin}
	return &tlsv3.UpstreamTlsContext{CommonTlsContext: common, Sni: serverName}, nil
}

func certificate(c attest.Credential) (*tlsv3.TlsCertificate, error) {
	key, err := c.KeyPEM()
	if err != nil {
		return nil, err
	}
	return &tlsv3.TlsCertificate{CertificateChain: inline(c.ChainPEM()), PrivateKey: inline(key)}, nil
}

func serverPin(server identity.ID) *tlsv3.CertificateValidationContext {
	return &tlsv3.CertificateValidationContext{
		MatchTypedSubjectAltNames: []*tlsv3.SubjectAltNameMatcher{{
			SanType: tlsv3.SubjectAltNameMatcher_URI,
			Matcher: &matcherv3.StringMatcher{MatchPattern: &matcherv3.StringMatcher_Exact{Exact: server.String()}},
		}},
	}
}

func inline(pem []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineString{InlineString: string(pem)}}
}

// reconnect spreads the proxies of a restarted control plane: Envoy waits a random time below a bound that doubles up to the maximum.
func reconnect() *corev3.RetryPolicy {
	return &corev3.RetryPolicy{RetryBackOff: &corev3.BackoffStrategy{
		BaseInterval: durationpb.New(250 * time.Millisecond), MaxInterval: durationpb.New(10 * time.Second),
	}}
}

// fileSecret is a secret that Envoy reads from a file of WriteSDS and reads again when the file is replaced.
func fileSecret(dir, name string) *tlsv3.SdsSecretConfig {
	return &tlsv3.SdsSecretConfig{Name: name, SdsConfig: &corev3.ConfigSource{
		ResourceApiVersion: corev3.ApiVersion_V3,
		ConfigSourceSpecifier: &corev3.ConfigSource_PathConfigSource{PathConfigSource: &corev3.PathConfigSource{
			Path: fmt.Sprintf("%s/%s.json", dir, name), WatchedDirectory: &corev3.WatchedDirectory{Path: dir},
		}},
	}}
}
