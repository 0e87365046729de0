package filter

import (
	"crypto/tls"
	"encoding/json"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tcpproxyv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/tcp_proxy/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	httpoptionsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/upstreams/http/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/wrapperspb"

	"github.com/credence-mesh/credence/internal/echo"
	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/xds/ir"
	"github.com/credence-mesh/credence/xds/resource"
)

const trustDomain = "cluster.local"

// proxy is a real Envoy that guards one echo backend, over TLS where it was given an authority.
type proxy struct {
	envoy *envoytest.Envoy
	ca    *envoytest.CA
	addr  string
}

// rig is what a test puts around the filters that it tests.
type rig struct {
	http     *ir.HTTP
	tcp      *ir.TCP
	front    []*hcmv3.HttpFilter // before the router, after the guards
	services string              // host:port of credence_services; empty: nothing listens there
	mtls     bool
	edge     bool   // believes no X-Forwarded-For
	watched  string // a directory from which Envoy gets the extensions, as it would over ADS; empty: they are inline
}

func start(t *testing.T, r rig) *proxy {
	t.Helper()
	p := &proxy{}
	backend := envoytest.Backend(t, "app")
	if r.tcp != nil {
		backend = envoytest.TCPEcho(t)
	}
	chain := &listenerv3.FilterChain{}
	if r.mtls {
		p.ca = envoytest.NewCA(t, "mesh")
		chain.TransportSocket = &corev3.TransportSocket{Name: "envoy.transport_sockets.tls", ConfigType: &corev3.TransportSocket_TypedConfig{
			TypedConfig: pack(t, downstreamTLS(t, p.ca)),
		}}
	}
	if r.tcp != nil {
		filters, extensions, err := TCPChain(r.tcp)
		if err != nil {
			t.Fatal(err)
		}
		for i, e := range extensions {
			filters[i].ConfigType = &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, e.Config)}
		}
		chain.Filters = append(filters, &listenerv3.Filter{Name: "envoy.filters.network.tcp_proxy", ConfigType: &listenerv3.Filter_TypedConfig{
			TypedConfig: pack(t, &tcpproxyv3.TcpProxy{StatPrefix: "tcp", ClusterSpecifier: &tcpproxyv3.TcpProxy_Cluster{Cluster: "app"}}),
		}})
	} else {
		chain.Filters = []*listenerv3.Filter{{Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: pack(t, manager(t, r))}}}
	}
	services := r.services
	if services == "" {
		services = envoytest.FreeAddr(t)
	}
	p.envoy = envoytest.Start(t, envoytest.JSON(t, &bootstrapv3.Bootstrap{Node: &corev3.Node{Id: "test", Cluster: "test"}, StaticResources: &bootstrapv3.Bootstrap_StaticResources{
		Listeners: []*listenerv3.Listener{{Name: "in", Address: address(t, "127.0.0.1:0"), FilterChains: []*listenerv3.FilterChain{chain}}},
		Clusters:  []*clusterv3.Cluster{cluster(t, "app", backend, false), cluster(t, ServicesCluster, services, true)},
	}}), envoytest.Options{})
	p.addr = p.envoy.Listener(t, "in")
	return p
}

// manager is a connection manager with the chain inline: what is tested here is what the filters decide.
func manager(t *testing.T, r rig) *hcmv3.HttpConnectionManager {
	t.Helper()
	filters, extensions, err := Chain(r.http)
	if err != nil {
		t.Fatal(err)
	}
	place(t, filters, extensions, r.watched)
	last := len(filters) - 1
	filters = append(append(filters[:last:last], r.front...), filters[last])
	return &hcmv3.HttpConnectionManager{
		StatPrefix: "in", HttpFilters: filters, NormalizePath: wrapperspb.Bool(true), MergeSlashes: true,
		PathWithEscapedSlashesAction: hcmv3.HttpConnectionManager_REJECT_REQUEST,
		UseRemoteAddress:             wrapperspb.Bool(r.edge),
		ForwardClientCertDetails:     hcmv3.HttpConnectionManager_SANITIZE_SET,
		SetCurrentClientCertDetails:  &hcmv3.HttpConnectionManager_SetCurrentClientCertDetails{Uri: true},
		RouteSpecifier: &hcmv3.HttpConnectionManager_RouteConfig{RouteConfig: &routev3.RouteConfiguration{VirtualHosts: []*routev3.VirtualHost{{
			Name: "all", Domains: []string{"*"}, Routes: []*routev3.Route{{
				Match:  &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: "app"}}},
			}},
		}}}},
	}
}

// place puts the extensions inline, or into files of dir, which Envoy watches.
func place(t *testing.T, filters []*hcmv3.HttpFilter, extensions []Extension, dir string) {
	t.Helper()
	config := map[string]*anypb.Any{}
	for _, e := range extensions {
		config[e.Name] = pack(t, e.Config)
	}
	if dir != "" {
		publish(t, dir, extensions)
	}
	for _, f := range filters {
		switch c, ok := config[f.Name]; {
		case ok && dir == "":
			f.ConfigType = &hcmv3.HttpFilter_TypedConfig{TypedConfig: c}
		case ok:
			f.GetConfigDiscovery().GetConfigSource().ConfigSourceSpecifier = &corev3.ConfigSource_PathConfigSource{
				PathConfigSource: &corev3.PathConfigSource{Path: file(dir, f.Name)},
			}
		}
	}
}

func file(dir, name string) string {
	return filepath.Join(dir, strings.ReplaceAll(name, "/", "_")+".json")
}

// publish replaces the files of extensions, each in one step.
func publish(t *testing.T, dir string, extensions []Extension) {
	t.Helper()
	for _, e := range extensions {
		r, err := e.Resource()
		if err != nil {
			t.Fatal(err)
		}
		b := envoytest.JSON(t, &discoveryv3.DiscoveryResponse{VersionInfo: r.Version, TypeUrl: r.Body.GetTypeUrl(), Resources: []*anypb.Any{r.Body}})
		fresh := file(dir, e.Name) + ".new"
		if err := os.WriteFile(fresh, b, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Rename(fresh, file(dir, e.Name)); err != nil {
			t.Fatal(err)
		}
	}
}

func downstreamTLS(t *testing.T, ca *envoytest.CA) *tlsv3.DownstreamTlsContext {
	server := ca.Issue(t, "spiffe://"+trustDomain+"/ns/production/sa/api-gateway")
	inline := func(b []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
	}
	return &tlsv3.DownstreamTlsContext{
		RequireClientCertificate: wrapperspb.Bool(true),
		CommonTlsContext: &tlsv3.CommonTlsContext{
			TlsCertificates: []*tlsv3.TlsCertificate{{CertificateChain: inline(server.Cert), PrivateKey: inline(server.Key)}},
			ValidationContextType: &tlsv3.CommonTlsContext_ValidationContext{ValidationContext: &tlsv3.CertificateValidationContext{
				TrustedCa: inline(ca.Bundle()),
			}},
		},
	}
}

func cluster(t *testing.T, name, hostport string, http2 bool) *clusterv3.Cluster {
	t.Helper()
	c := &clusterv3.Cluster{Name: name, LoadAssignment: &endpointv3.ClusterLoadAssignment{
		ClusterName: name,
		Endpoints: []*endpointv3.LocalityLbEndpoints{{LbEndpoints: []*endpointv3.LbEndpoint{{
			HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: address(t, hostport)}},
		}}}},
	}}
	if http2 {
		c.TypedExtensionProtocolOptions = map[string]*anypb.Any{
			"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": pack(t, &httpoptionsv3.HttpProtocolOptions{
				UpstreamProtocolOptions: &httpoptionsv3.HttpProtocolOptions_ExplicitHttpConfig_{
					ExplicitHttpConfig: &httpoptionsv3.HttpProtocolOptions_ExplicitHttpConfig{
						ProtocolConfig: &httpoptionsv3.HttpProtocolOptions_ExplicitHttpConfig_Http2ProtocolOptions{
							Http2ProtocolOptions: &corev3.Http2ProtocolOptions{},
						},
					},
				},
			}),
		}
	}
	return c
}

func address(t *testing.T, hostport string) *corev3.Address {
	t.Helper()
	host, port, err := net.SplitHostPort(hostport)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(n)},
	}}}
}

func pack(t *testing.T, m proto.Message) *anypb.Any {
	t.Helper()
	a, err := resource.Pack(m)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// request is one request of a test.
type request struct {
	method  string // default GET
	path    string
	host    string
	token   string
	headers http.Header
	as      string // SPIFFE ID of the client's certificate, where the proxy takes TLS
}

// send gives the status, and what the backend saw where it was asked.
func (p *proxy) send(t *testing.T, r request) (int, echo.Seen) {
	t.Helper()
	transport := &http.Transport{DisableKeepAlives: true}
	scheme := "http"
	if p.ca != nil {
		scheme = "https"
		transport.TLSClientConfig = &tls.Config{RootCAs: p.ca.Pool()}
		if r.as != "" {
			transport.TLSClientConfig.Certificates = []tls.Certificate{p.ca.Issue(t, r.as).TLS}
		}
	}
	method := r.method
	if method == "" {
		method = http.MethodGet
	}
	req, err := http.NewRequestWithContext(t.Context(), method, scheme+"://"+p.addr+r.path, nil)
	if err != nil {
		t.Fatal(err)
	}
	for k, v := range r.headers {
		req.Header[k] = v
	}
	if r.host != "" {
		req.Host = r.host
	}
	if r.token != "" {
		req.Header.Set("Authorization", "Bearer "+r.token)
	}
	client := http.Client{Transport: transport, CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }}
	res, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = res.Body.Close() }()
	body, err := io.ReadAll(res.Body)
	if err != nil {
		t.Fatal(err)
	}
	var seen echo.Seen
	if res.StatusCode == http.StatusOK {
		if err := json.Unmarshal(body, &seen); err != nil {
			t.Fatalf("%v: %s", err, body)
		}
	}
	return res.StatusCode, seen
}
