package server

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/config/endpoint/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/config/listener/v3"
	rbacconfigv3 "github.com/envoyproxy/go-control-plane/envoy/config/rbac/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
	rbacv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/rbac/v3"
	routerv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/router/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/xds/resource"
)

// mutualTLS makes a server that takes whoever has a certificate of the CA for the SPIFFE ID in it.
func mutualTLS(ca *envoytest.CA, server envoytest.Pair) change {
	return func(o *Options) {
		o.Credentials = credentials.NewTLS(&tls.Config{MinVersion: tls.VersionTLS13, Certificates: []tls.Certificate{server.TLS},
			ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.Pool(), NextProtos: []string{"h2"}})
		o.Authenticate = func(ctx context.Context) (identity.Proven, error) {
			p, ok := peer.FromContext(ctx)
			if !ok {
				return identity.Proven{}, errors.New("no peer")
			}
			leaf := p.AuthInfo.(credentials.TLSInfo).State.PeerCertificates[0]
			id, err := spiffeid.FromURI(leaf.URIs[0])
			return identity.Proven{ID: id, NotAfter: leaf.NotAfter}, err
		}
	}
}

// oneSecret gives everybody one certificate by the name "default".
type oneSecret struct {
	sync.Mutex
	pair    envoytest.Pair
	asked   int
	watched []func()
}

func (s *oneSecret) Secret(_ context.Context, _ identity.Workload, _ identity.ID, name string) (*resource.Resource, bool, error) {
	s.Lock()
	defer s.Unlock()
	s.asked++
	if name != "default" {
		return nil, false, nil
	}
	in := func(b []byte) *corev3.DataSource {
		return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
	}
	r, err := resource.New(resource.Secret, name, &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{
		TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: in(s.pair.Cert), PrivateKey: in(s.pair.Key)}}})
	return r, true, err
}

func (s *oneSecret) Watch(_ identity.Workload, _ identity.ID, _ string, notify func()) func() {
	s.Lock()
	defer s.Unlock()
	s.watched = append(s.watched, notify)
	return func() {}
}

func (s *oneSecret) rotate(p envoytest.Pair) {
	s.Lock()
	defer s.Unlock()
	s.pair = p
	for _, n := range s.watched {
		n()
	}
}

func ads() *corev3.ConfigSource {
	return &corev3.ConfigSource{ResourceApiVersion: corev3.ApiVersion_V3, ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}}}
}

func mustPack(t testing.TB, m proto.Message) *anypb.Any {
	t.Helper()
	b, err := resource.Pack(m)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func socket(t testing.TB, addr string) *corev3.Address {
	t.Helper()
	host, port, err := net.SplitHostPort(addr)
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.ParseUint(port, 10, 16)
	if err != nil {
		t.Fatal(err)
	}
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: host,
		PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: uint32(n)}}}}
}

// policyEdit is an RBAC filter that allows or refuses everything.
func policyEdit(t testing.TB, action rbacconfigv3.RBAC_Action) *resource.Resource {
	t.Helper()
	all := &rbacconfigv3.Policy{Permissions: []*rbacconfigv3.Permission{{Rule: &rbacconfigv3.Permission_Any{Any: true}}},
		Principals: []*rbacconfigv3.Principal{{Identifier: &rbacconfigv3.Principal_Any{Any: true}}}}
	return pack(t, resource.ExtensionConfig, "in/rbac", &corev3.TypedExtensionConfig{Name: "in/rbac",
		TypedConfig: mustPack(t, &rbacv3.RBAC{Rules: &rbacconfigv3.RBAC{Action: action, Policies: map[string]*rbacconfigv3.Policy{"all": all}}})})
}

// service is a cluster, its endpoints, a listener with TLS, and its routes.
func service(t testing.TB, addr, backend, cluster string) []*resource.Resource {
	t.Helper()
	hcm := &hcmv3.HttpConnectionManager{StatPrefix: "in", RouteSpecifier: &hcmv3.HttpConnectionManager_Rds{Rds: &hcmv3.Rds{ConfigSource: ads(), RouteConfigName: "in"}},
		HttpFilters: []*hcmv3.HttpFilter{
			{Name: "in/rbac", ConfigType: &hcmv3.HttpFilter_ConfigDiscovery{ConfigDiscovery: &corev3.ExtensionConfigSource{ConfigSource: ads(),
				TypeUrls: []string{"type.googleapis.com/envoy.extensions.filters.http.rbac.v3.RBAC"}}}},
			{Name: "router", ConfigType: &hcmv3.HttpFilter_TypedConfig{TypedConfig: mustPack(t, &routerv3.Router{})}},
		}}
	context := &tlsv3.DownstreamTlsContext{CommonTlsContext: &tlsv3.CommonTlsContext{TlsCertificateSdsSecretConfigs: []*tlsv3.SdsSecretConfig{{Name: "default", SdsConfig: ads()}}}}
	return []*resource.Resource{
		pack(t, resource.Cluster, cluster, &clusterv3.Cluster{Name: cluster, ConnectTimeout: durationpb.New(1e9),
			ClusterDiscoveryType: &clusterv3.Cluster_Type{Type: clusterv3.Cluster_EDS}, EdsClusterConfig: &clusterv3.Cluster_EdsClusterConfig{EdsConfig: ads()}}),
		pack(t, resource.Endpoints, cluster, &endpointv3.ClusterLoadAssignment{ClusterName: cluster, Endpoints: []*endpointv3.LocalityLbEndpoints{{
			LbEndpoints: []*endpointv3.LbEndpoint{{HostIdentifier: &endpointv3.LbEndpoint_Endpoint{Endpoint: &endpointv3.Endpoint{Address: socket(t, backend)}}}}}}}),
		pack(t, resource.Listener, "in", &listenerv3.Listener{Name: "in", Address: socket(t, addr), FilterChains: []*listenerv3.FilterChain{{
			TransportSocket: &corev3.TransportSocket{Name: "tls", ConfigType: &corev3.TransportSocket_TypedConfig{TypedConfig: mustPack(t, context)}},
			Filters:         []*listenerv3.Filter{{Name: "hcm", ConfigType: &listenerv3.Filter_TypedConfig{TypedConfig: mustPack(t, hcm)}}}}}}),
		pack(t, resource.RouteConfig, "in", &routev3.RouteConfiguration{Name: "in", VirtualHosts: []*routev3.VirtualHost{{Name: "all", Domains: []string{"*"},
			Routes: []*routev3.Route{{Match: &routev3.RouteMatch{PathSpecifier: &routev3.RouteMatch_Prefix{Prefix: "/"}},
				Action: &routev3.Route_Route{Route: &routev3.RouteAction{ClusterSpecifier: &routev3.RouteAction_Cluster{Cluster: cluster}}}}}}}}),
	}
}

// bootstrap is an Envoy that has everything from the server, with a credential from a directory.
func bootstrap(t testing.TB, server, dir, api string) []byte {
	t.Helper()
	host, port, err := net.SplitHostPort(server)
	if err != nil {
		t.Fatal(err)
	}
	file := func(name string) map[string]any { return map[string]any{"filename": filepath.Join(dir, name)} }
	b, err := json.Marshal(map[string]any{
		"node": map[string]any{"id": "prod/a~1", "cluster": "a.prod"},
		"dynamic_resources": map[string]any{
			"ads_config": map[string]any{"api_type": api, "transport_api_version": "V3", "set_node_on_first_message_only": true,
				"grpc_services": []any{map[string]any{"envoy_grpc": map[string]any{"cluster_name": "credence_xds"}}}},
			"lds_config": map[string]any{"ads": map[string]any{}, "resource_api_version": "V3"},
			"cds_config": map[string]any{"ads": map[string]any{}, "resource_api_version": "V3"},
		},
		"static_resources": map[string]any{"clusters": []any{map[string]any{"name": "credence_xds", "type": "STATIC", "connect_timeout": "1s",
			"typed_extension_protocol_options": map[string]any{"envoy.extensions.upstreams.http.v3.HttpProtocolOptions": map[string]any{
				"@type":                "type.googleapis.com/envoy.extensions.upstreams.http.v3.HttpProtocolOptions",
				"explicit_http_config": map[string]any{"http2_protocol_options": map[string]any{}}}},
			"transport_socket": map[string]any{"name": "tls", "typed_config": map[string]any{
				"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
				"common_tls_context": map[string]any{
					"tls_params":         map[string]any{"tls_minimum_protocol_version": "TLSv1_3", "tls_maximum_protocol_version": "TLSv1_3"},
					"tls_certificates":   []any{map[string]any{"certificate_chain": file("cert.pem"), "private_key": file("key.pem")}},
					"validation_context": map[string]any{"trusted_ca": file("bundle.pem")}}}},
			"load_assignment": map[string]any{"cluster_name": "credence_xds", "endpoints": []any{map[string]any{"lb_endpoints": []any{
				map[string]any{"endpoint": map[string]any{"address": map[string]any{"socket_address": map[string]any{"address": host, "port_value": json.Number(port)}}}}}}}},
		}}},
	})
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// connection is one keep-alive connection of a client.
type connection struct {
	testing.TB
	conn *tls.Conn
	in   *bufio.Reader
}

func open(t testing.TB, addr string, pool *x509.CertPool) *connection {
	t.Helper()
	d := tls.Dialer{Config: &tls.Config{RootCAs: pool}}
	c, err := d.DialContext(t.Context(), "tcp", addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return &connection{t, c.(*tls.Conn), bufio.NewReader(c)}
}

func (c *connection) get() (int, error) {
	if _, err := fmt.Fprintf(c.conn, "GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"); err != nil {
		return 0, err
	}
	r, err := http.ReadResponse(c.in, nil)
	if err != nil {
		return 0, err
	}
	defer func() { _ = r.Body.Close() }()
	if _, err := bufio.NewReader(r.Body).WriteTo(discard{}); err != nil {
		return 0, err
	}
	if r.Close {
		return r.StatusCode, errors.New("the connection is to be closed")
	}
	return r.StatusCode, nil
}

type discard struct{}

func (discard) Write(b []byte) (int, error) { return len(b), nil }

func (c *connection) eventually(code int) {
	c.Helper()
	envoytest.Eventually(c, fmt.Sprintf("answer %d on the same connection", code), func() error {
		got, err := c.get()
		if err != nil {
			c.Fatalf("the connection did not live through the edit: %v", err)
		}
		if got != code {
			return fmt.Errorf("answer %d", got)
		}
		return nil
	})
}

// TestEnvoy: a real Envoy gets all types over mutual TLS. A policy edit reaches an open connection and does not close it; a cluster is
// replaced, a certificate rotated, without a failed request.
func TestEnvoy(t *testing.T) {
	t.Parallel()
	for _, api := range []string{"DELTA_GRPC", "GRPC"} {
		t.Run(api, func(t *testing.T) {
			t.Parallel()
			envoytest.Path(t)
			ca := envoytest.NewCA(t, "test")
			secrets := &oneSecret{pair: ca.Issue(t, "")}
			f := start(t, mutualTLS(ca, ca.Issue(t, "spiffe://cluster.local/credence/server")), func(o *Options) { o.Secrets = secrets })
			backend, addr := envoytest.Backend(t, "b"), envoytest.FreeAddr(t)
			allow, deny := policyEdit(t, rbacconfigv3.RBAC_ALLOW), policyEdit(t, rbacconfigv3.RBAC_DENY)
			f.publish("a", append(service(t, addr, backend, "one"), allow)...)
			e := envoytest.Start(t, bootstrap(t, f.addr, ca.Write(t, ca.Issue(t, sa(t, "a").String())), api), envoytest.Options{})
			c := open(t, addr, ca.Pool())
			c.eventually(200)
			f.publish("a", append(service(t, addr, backend, "one"), deny)...)
			c.eventually(403)
			f.publish("a", append(service(t, addr, backend, "one"), allow)...)
			c.eventually(200)
			f.inStep()

			for n := range 10 {
				name := fmt.Sprint("next", n)
				f.publish("a", append(service(t, addr, backend, name), allow)...)
				for {
					if code, err := c.get(); err != nil || code != 200 {
						t.Fatalf("a request while the cluster was replaced: %d %v", code, err)
					}
					if s := f.status.Proxies(); len(s) == 1 && s[0].InStep {
						break
					}
				}
			}
			envoytest.Eventually(t, "the old cluster is gone", func() error {
				if out := e.Clusters(t); strings.Contains("\n"+out, "\none::") {
					return errors.New("still there")
				}
				return nil
			})
			if n := e.Stat(t, "listener_manager.listener_modified"); n != 0 {
				t.Errorf("the listener was modified %d times", n)
			}
			if n := e.Stat(t, "cluster_manager.cds.update_rejected") + e.Stat(t, "listener_manager.lds.update_rejected"); n != 0 {
				t.Errorf("Envoy refused %d updates", n)
			}
			rotated := ca.Issue(t, "")
			secrets.rotate(rotated)
			envoytest.Eventually(t, "new connections get the rotated certificate", func() error {
				if got := open(t, addr, ca.Pool()).conn.ConnectionState().PeerCertificates[0]; !got.Equal(rotated.TLS.Leaf) {
					return errors.New("the old one")
				}
				return nil
			})
			c.eventually(200)
		})
	}
}

// TestEnvoyRefuses: the refusal of a real Envoy is traced to the resource and the file that caused it, and the rest advances.
func TestEnvoyRefuses(t *testing.T) {
	t.Parallel()
	envoytest.Path(t)
	ca := envoytest.NewCA(t, "test")
	f := start(t, mutualTLS(ca, ca.Issue(t, "spiffe://cluster.local/credence/server")), func(o *Options) { o.Secrets = &oneSecret{pair: ca.Issue(t, "")} })
	backend, addr := envoytest.Backend(t, "b"), envoytest.FreeAddr(t)
	allow := policyEdit(t, rbacconfigv3.RBAC_ALLOW)
	f.publish("a", append(service(t, addr, backend, "one"), allow)...)
	e := envoytest.Start(t, bootstrap(t, f.addr, ca.Write(t, ca.Issue(t, sa(t, "a").String())), "DELTA_GRPC"), envoytest.Options{})
	f.inStep()
	bad := pack(t, resource.Cluster, "bad", &clusterv3.Cluster{Name: "bad", LbPolicy: clusterv3.Cluster_CLUSTER_PROVIDED})
	f.publish("a", append(service(t, addr, backend, "one"), allow, bad, res(t, resource.Cluster, "good", 1))...)
	f.until("the refusal", func() bool { s := f.status.Proxies(); return len(s) == 1 && s[0].Nack != nil })
	n := f.status.Proxies()[0].Nack
	if len(n.Resources) != 1 || n.Resources[0] != "bad" || len(n.Sources) != 1 || n.Sources[0] != "Test bad (bad.yaml:1)" {
		t.Fatalf("%+v", n)
	}
	envoytest.Eventually(t, "the good cluster is there", func() error {
		if !strings.Contains(e.Clusters(t), "good::") {
			return errors.New("not yet")
		}
		return nil
	})
}

// TestEnvoyOutlivesTheServer: while the server is away everything goes on; when it is back, what did not change is not sent, and what did is
// in force. Versions are made of content, so that a new process knows what an old one sent.
func TestEnvoyOutlivesTheServer(t *testing.T) {
	t.Parallel()
	envoytest.Path(t)
	ca := envoytest.NewCA(t, "test")
	config := mutualTLS(ca, ca.Issue(t, "spiffe://cluster.local/credence/server"))
	secrets := func(o *Options) { o.Secrets = &oneSecret{pair: ca.Issue(t, "")} }
	f := start(t, config, secrets)
	backend, addr := envoytest.Backend(t, "b"), envoytest.FreeAddr(t)
	f.publish("a", append(service(t, addr, backend, "one"), policyEdit(t, rbacconfigv3.RBAC_ALLOW))...)
	e := envoytest.Start(t, bootstrap(t, f.addr, ca.Write(t, ca.Issue(t, sa(t, "a").String())), "DELTA_GRPC"), envoytest.Options{})
	c := open(t, addr, ca.Pool())
	c.eventually(200)
	f.inStep()
	f.stop()
	c.eventually(200)
	updates := e.Stat(t, "listener_manager.lds.update_success")
	again := startAt(t, f.addr, config, secrets)
	again.publish("a", append(service(t, addr, backend, "one"), policyEdit(t, rbacconfigv3.RBAC_DENY))...)
	c.eventually(403)
	again.inStep()
	if n := e.Stat(t, "listener_manager.listener_modified") + e.Stat(t, "cluster_manager.cluster_modified"); n != 0 {
		t.Errorf("%d listeners and clusters were modified by the restart", n)
	}
	if n := e.Stat(t, "listener_manager.lds.update_success"); n > updates+1 {
		t.Errorf("%d updates of listeners: only the empty answer may come", n-updates)
	}
}

func (f *fixture) inStep() {
	f.Helper()
	f.until("every proxy in step", func() bool {
		s := f.status.Proxies()
		for _, p := range s {
			if !p.InStep || len(p.Types) == 0 {
				return false
			}
		}
		return len(s) > 0
	})
}
