package e2e

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/service/cluster/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	endpointv3 "github.com/envoyproxy/go-control-plane/envoy/service/endpoint/v3"
	extensionv3 "github.com/envoyproxy/go-control-plane/envoy/service/extension/v3"
	listenerv3 "github.com/envoyproxy/go-control-plane/envoy/service/listener/v3"
	routev3 "github.com/envoyproxy/go-control-plane/envoy/service/route/v3"
	secretv3 "github.com/envoyproxy/go-control-plane/envoy/service/secret/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/status"

	"github.com/credence-mesh/credence/identity/attest/attestv1"
	"github.com/credence-mesh/credence/internal/envoytest"
)

// TestBareEnvoy runs an Envoy that nobody supervises, on a bootstrap that `credence bootstrap` wrote, and asks the control plane as clients
// do that are not who they say.
func TestBareEnvoy(t *testing.T) {
	t.Parallel()
	app := envoytest.Backend(t, "called")
	ca := envoytest.NewCA(t, "public")
	w := start(t, "", map[string]string{
		"strict.yaml":  strict,
		"called.yaml":  docs(workload("called", "127.0.79.2", envoytest.FreePort(t), httpPort(8080, app)), service("called", httpPort(8080, ""))),
		"caller.yaml":  workload("caller", "127.0.79.1", envoytest.FreePort(t), httpPort(8080, app)),
		"gateway.yaml": gateway("127.0.79.5", "{name: https, port: 8443, protocol: HTTPS, tls: {certificateRefs: [{name: edge-tls}]}}"),
		"secret.yaml":  tlsSecret("shop", "edge-tls", ca.Issue(t, "")),
	})
	t.Run("it runs", func(t *testing.T) { w.in(t).bareRuns() })
	t.Run("tokens", func(t *testing.T) { w.in(t).bareTokens() })
	t.Run("who may ask", func(t *testing.T) { w.in(t).askers() })
	t.Run("secrets", func(t *testing.T) { w.in(t).askSecrets() })
	t.Run("unary calls", func(t *testing.T) { w.in(t).unary() })
	w.quiet()
}

// bootstrap writes a bootstrap for a workload, with a token.
func (w *world) bootstrap(workload, token string, more ...string) (string, error) {
	out := filepath.Join(w.t.TempDir(), "envoy.yaml")
	_, err := w.Run(w.ctx, append([]string{"bootstrap", "--xds-addr", w.XDS, "--token", token, "--workload", workload, "--out", out}, more...)...)
	return out, err
}

func (w *world) token(workload string, more ...string) string {
	w.t.Helper()
	out, err := w.Run(w.ctx, append([]string{"token", "create", "--state", w.State(), "--workload", workload}, more...)...)
	if err != nil {
		w.t.Fatal(err)
	}
	return strings.TrimSpace(out)
}

func (w *world) bareRuns() {
	file, err := w.bootstrap("shop/called", w.token("shop/called"))
	if err != nil {
		w.t.Fatal(err)
	}
	info, err := os.Stat(file)
	if err != nil || info.Mode().Perm() != 0o600 {
		w.t.Errorf("the bootstrap holds a key and has mode %v (%v), want 0600", info.Mode(), err)
	}
	text, err := os.ReadFile(file)
	if err != nil {
		w.t.Fatal(err)
	}
	e := envoytest.Start(w.t, text, envoytest.Options{})
	c := dial("https://127.0.79.2:8080", w.svid(callerID))
	w.answers(c, ask{path: "/x"}, 200)
	w.Server().Kill()
	w.expect(c, ask{path: "/x"}, 200)
	w.restart()
	w.until("the bare Envoy to be in step", w.inStep("shop/called"))
	w.write("policy.yaml", denyPaths("guard", "called", "/guarded"))
	w.answers(c, ask{path: "/guarded"}, 403)
	if _, err := w.Run(w.ctx, "bootstrap", "--renew", "--out", file); err != nil {
		w.t.Error(err)
	}
	fresh, err := os.ReadFile(file)
	if err != nil || string(fresh) == string(text) {
		w.t.Errorf("--renew left the file as it was (%v)", err)
	}
	e.Stop() // the next one is another process, with the renewed credential
	envoytest.Start(w.t, fresh, envoytest.Options{})
	w.answers(dial("https://127.0.79.2:8080", w.svid(callerID)), ask{path: "/guarded"}, 403)
}

func (w *world) bareTokens() {
	used := w.token("shop/caller")
	if _, err := w.bootstrap("shop/caller", used); err != nil {
		w.t.Fatal(err)
	}
	short := w.token("shop/caller", "--ttl", "1s")
	w.until("the token to end", func() (bool, error) {
		_, err := w.bootstrap("shop/called", short) // the wrong workload: asking does not use it up
		return err != nil && strings.Contains(err.Error(), "expired"), err
	})
	own := w.token("shop/caller")
	for _, tt := range []struct{ name, workload, token, says string }{
		{"used before", "shop/caller", used, "used before"},
		{"expired", "shop/caller", short, "expired"},
		{"of another workload", "shop/called", own, "another workload"},
		{"cut", "shop/caller", own[:len(own)-3], "not a join token"},
		{"with another root's fingerprint", "shop/caller", otherRoot(own), ""},
		{"for a workload that does not exist", "shop/nobody", w.token("shop/nobody"), "no workload"},
	} {
		w.t.Run(tt.name, func(t *testing.T) {
			file, err := w.in(t).bootstrap(tt.workload, tt.token)
			if err == nil || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("got %v, want an error that says %q", err, tt.says)
			}
			if err != nil && strings.Contains(err.Error(), tt.token) {
				t.Error("the error shows the token")
			}
			if _, err := os.Stat(file); !errors.Is(err, os.ErrNotExist) {
				t.Errorf("a file was left: %v", err)
			}
			if left, _ := filepath.Glob(filepath.Join(filepath.Dir(file), ".*")); len(left) > 0 {
				t.Errorf("left behind: %v", left)
			}
		})
	}
	if _, err := w.bootstrap("shop/caller", own); err != nil {
		w.t.Errorf("the attempts above used up a good token: %v", err)
	}
}

// otherRoot is a token that would trust another server.
func otherRoot(token string) string {
	prefix, rest, _ := strings.Cut(token, ".")
	flipped := "A"
	if rest[0] == 'A' {
		flipped = "B"
	}
	return prefix + "." + flipped + rest[1:]
}

// channel opens a connection to the control plane, showing certificates.
func (w *world) channel(certs ...tls.Certificate) *grpc.ClientConn {
	w.t.Helper()
	conn, err := grpc.NewClient(w.XDS, grpc.WithTransportCredentials(credentials.NewTLS(&tls.Config{
		InsecureSkipVerify: true, Certificates: certs, NextProtos: []string{"h2"}, MinVersion: tls.VersionTLS13,
	})))
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = conn.Close() })
	return conn
}

const typeURL = "type.googleapis.com/envoy.config."

// askADS asks for clusters as a node, by delta or state of the world, and gives the error that the stream ended with, nil where it was answered.
func (w *world) askADS(conn *grpc.ClientConn, node string, delta bool) error {
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	ads := discoveryv3.NewAggregatedDiscoveryServiceClient(conn)
	n := &corev3.Node{Id: node}
	if delta {
		s, err := ads.DeltaAggregatedResources(ctx)
		if err != nil {
			return err
		}
		if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{Node: n, TypeUrl: typeURL + "cluster.v3.Cluster"}); err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		_, err = s.Recv()
		return err
	}
	s, err := ads.StreamAggregatedResources(ctx)
	if err != nil {
		return err
	}
	if err := s.Send(&discoveryv3.DiscoveryRequest{Node: n, TypeUrl: typeURL + "cluster.v3.Cluster"}); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	_, err = s.Recv()
	return err
}

// askers: a client is whom its certificate says, whatever it says of itself.
func (w *world) askers() {
	foreign := envoytest.NewCA(w.t, "foreign").Issue(w.t, callerID).TLS
	mesh := w.steal("mesh-intermediate.pem")
	svid := w.svid(callerID).Certificates[0]
	if _, err := w.bootstrap("shop/caller", w.token("shop/caller")); err != nil {
		w.t.Fatal(err)
	}
	w.proxy("shop/caller")
	own := w.channelCredential("shop/caller")
	for _, tt := range []struct {
		name  string
		certs []tls.Certificate
		node  string
		want  []codes.Code
	}{
		{"an SVID, as its own workload", []tls.Certificate{svid}, "shop/caller~1", []codes.Code{codes.OK}},
		{"a channel credential, as its own workload", []tls.Certificate{own}, "shop/caller~1", []codes.Code{codes.OK}},
		{"an SVID of another workload", []tls.Certificate{svid}, "shop/called~1", []codes.Code{codes.PermissionDenied}},
		{"a channel credential of another workload", []tls.Certificate{own}, "shop/called~1", []codes.Code{codes.PermissionDenied}},
		{"an SVID, as a workload that does not exist", []tls.Certificate{svid}, "shop/nobody~1", []codes.Code{codes.PermissionDenied}},
		{"an SVID, as the gateway", []tls.Certificate{svid}, "shop/edge~1", []codes.Code{codes.PermissionDenied}},
		{"an SVID, as nobody", []tls.Certificate{svid}, "", []codes.Code{codes.InvalidArgument, codes.PermissionDenied}},
		{"an SVID, as a crooked name", []tls.Certificate{svid}, "shop/caller/../called~1", []codes.Code{codes.InvalidArgument, codes.PermissionDenied}},
		{"no certificate", nil, "shop/caller~1", []codes.Code{codes.Unauthenticated, codes.Unavailable}},
		{"a foreign CA", []tls.Certificate{foreign}, "shop/caller~1", []codes.Code{codes.Unauthenticated, codes.Unavailable}},
		{"the server's own identity, as a workload", []tls.Certificate{mesh.sign(w.t, []string{"spiffe://cluster.local/credence/server"})}, "shop/caller~1", []codes.Code{codes.PermissionDenied, codes.Unauthenticated, codes.Unavailable}},
	} {
		for _, delta := range []bool{true, false} {
			w.t.Run(fmt.Sprintf("%s/delta %t", tt.name, delta), func(t *testing.T) {
				w := w.in(t)
				err := w.askADS(w.channel(tt.certs...), tt.node, delta)
				for _, want := range tt.want {
					if status.Code(err) == want {
						return
					}
				}
				t.Errorf("got %v, want %v", err, tt.want)
			})
		}
	}
	w.t.Run("a node that changes its name on the way", func(t *testing.T) { w.in(t).changesNode(svid) })
}

func (w *world) changesNode(svid tls.Certificate) {
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(w.channel(svid)).DeltaAggregatedResources(ctx)
	if err != nil {
		w.t.Fatal(err)
	}
	send := func(node string) {
		if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: node}, TypeUrl: typeURL + "cluster.v3.Cluster"}); err != nil && !errors.Is(err, io.EOF) {
			w.t.Fatal(err)
		}
	}
	send("shop/caller~1")
	if _, err := s.Recv(); err != nil {
		w.t.Fatal(err)
	}
	send("shop/called~1")
	for {
		if _, err = s.Recv(); err != nil {
			break
		}
	}
	if status.Code(err) != codes.PermissionDenied {
		w.t.Errorf("got %v, want PermissionDenied", err)
	}
}

const secretType = "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret"

// askSecrets: a workload gets its own SVID and the bundle, and nothing that is another's; a wildcard gives none.
func (w *world) askSecrets() {
	svid := w.svid(callerID).Certificates[0]
	ctx, cancel := context.WithTimeout(w.ctx, 20*time.Second)
	defer cancel()
	for _, tt := range []struct {
		name string
		ask  []string
		want []string
	}{
		{"its own", []string{"default", "ROOTCA"}, []string{"default", "ROOTCA"}},
		{"a gateway's", []string{"kubernetes://shop/edge-tls", "default"}, []string{"default"}},
		{"another workload's", []string{"spiffe://cluster.local/ns/shop/sa/called", "shop/called", "default"}, []string{"default"}},
		{"by a wildcard", []string{"*", "default"}, []string{"default"}},
	} {
		w.t.Run(tt.name, func(t *testing.T) {
			w := w.in(t)
			s, err := discoveryv3.NewAggregatedDiscoveryServiceClient(w.channel(svid)).DeltaAggregatedResources(ctx)
			if err != nil {
				t.Fatal(err)
			}
			if err := s.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "shop/caller~1"}, TypeUrl: secretType, ResourceNamesSubscribe: tt.ask}); err != nil {
				t.Fatal(err)
			}
			got := map[string]bool{}
			for len(got) < len(tt.want) {
				r, err := s.Recv()
				if err != nil {
					t.Fatalf("after %v: %v", got, err)
				}
				for _, res := range r.GetResources() {
					got[res.GetName()] = res.GetResource() != nil
				}
			}
			for _, name := range tt.want {
				if !got[name] {
					t.Errorf("%s was not given: %v", name, got)
				}
				delete(got, name)
			}
			for name, there := range got {
				if there {
					t.Errorf("%s was given", name)
				}
			}
		})
	}
}

// unary: the REST-like Fetch calls go past what streams check, so there are none; and without a certificate only Join is open.
func (w *world) unary() {
	svid := w.svid(callerID).Certificates[0]
	for name, certs := range map[string][]tls.Certificate{"with an SVID": {svid}, "without a certificate": nil} {
		conn := w.channel(certs...)
		ctx, cancel := context.WithTimeout(w.ctx, 20*time.Second)
		defer cancel()
		r := &discoveryv3.DiscoveryRequest{Node: &corev3.Node{Id: "shop/caller~1"}, ResourceNames: []string{"default"}}
		calls := map[string]func() error{
			"clusters": func() error {
				_, err := clusterv3.NewClusterDiscoveryServiceClient(conn).FetchClusters(ctx, r)
				return err
			},
			"endpoints": func() error {
				_, err := endpointv3.NewEndpointDiscoveryServiceClient(conn).FetchEndpoints(ctx, r)
				return err
			},
			"listeners": func() error {
				_, err := listenerv3.NewListenerDiscoveryServiceClient(conn).FetchListeners(ctx, r)
				return err
			},
			"routes": func() error { _, err := routev3.NewRouteDiscoveryServiceClient(conn).FetchRoutes(ctx, r); return err },
			"extensions": func() error {
				_, err := extensionv3.NewExtensionConfigDiscoveryServiceClient(conn).FetchExtensionConfigs(ctx, r)
				return err
			},
			"secrets": func() error {
				_, err := secretv3.NewSecretDiscoveryServiceClient(conn).FetchSecrets(ctx, r)
				return err
			},
			"renew": func() error {
				_, err := attestv1.NewAttestationClient(conn).Renew(ctx, &attestv1.RenewRequest{})
				return err
			},
		}
		for call, do := range calls {
			switch code := status.Code(do()); code {
			case codes.Unimplemented, codes.Unauthenticated, codes.PermissionDenied:
			default:
				w.t.Errorf("%s, %s: %s", call, name, code)
			}
		}
	}
}
