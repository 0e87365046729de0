package attest

import (
	"encoding/base64"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/internal/envoytest"
)

// tunnel is an Envoy that carries TCP to the control plane, over TLS with a channel credential.
func tunnel(t *testing.T, to string, c Credential) []byte {
	t.Helper()
	host, port, err := net.SplitHostPort(to)
	if err != nil {
		t.Fatal(err)
	}
	key, err := c.KeyPEM()
	if err != nil {
		t.Fatal(err)
	}
	text := base64.StdEncoding.EncodeToString
	return fmt.Appendf(nil, `
static_resources:
  listeners:
  - name: in
    address: {socket_address: {address: 127.0.0.1, port_value: 0}}
    filter_chains:
    - filters:
      - name: tcp
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy, stat_prefix: in, cluster: plane}
  clusters:
  - name: plane
    type: STATIC
    load_assignment: {cluster_name: plane, endpoints: [{lb_endpoints: [{endpoint: {address: {socket_address: {address: %s, port_value: %s}}}}]}]}
    transport_socket:
      name: tls
      typed_config:
        "@type": type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext
        common_tls_context:
          tls_params: {tls_minimum_protocol_version: TLSv1_3, tls_maximum_protocol_version: TLSv1_3}
          alpn_protocols: ["h2"]
          tls_certificates: [{certificate_chain: {inline_bytes: "%s"}, private_key: {inline_bytes: "%s"}}]
          validation_context:
            trusted_ca: {inline_bytes: "%s"}
            match_typed_subject_alt_names: [{san_type: URI, matcher: {exact: "%s"}}]
`, host, port, text(c.ChainPEM()), text(key), text(c.BundlePEM()), c.ServerID())
}

// Envoy opens its channel with a credential as we issue it, also where the workload's name is longer than what X.520 gives a common name; and
// it verifies the server as we present it, root included.
func TestEnvoyOpensItsChannel(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	long := identity.Workload{Namespace: strings.Repeat("n", 63), Name: strings.Repeat("w", 253)}
	id := spiffeid.RequireFromSegments(domain, "ns", long.Namespace, "sa", long.Name)
	key := newTestKey(t)
	chain, err := p.ca.IssueChannel(t.Context(), long, id, key.Public(), time.Hour)
	if err != nil {
		t.Fatal(err)
	}
	e := envoytest.Start(t, tunnel(t, p.addr, Credential{Workload: long, ID: id, Chain: chain, Key: key, Bundle: p.ca.Bundle()}), envoytest.Options{})
	conn, err := grpc.NewClient("passthrough:///"+e.Listener(t, "in"), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	if err := check(t, conn); err != nil {
		t.Fatal(err)
	}
	if got := <-p.seen; got.Workload != long || got.ID != id {
		t.Errorf("Envoy proves %+v", got)
	}
	if err := p.revoked.Add(t.Context(), Revocation{Workload: long.String()}); err != nil {
		t.Fatal(err)
	}
	if err := check(t, conn); err == nil {
		t.Error("a revoked Envoy is still served")
	}
}
