package server

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	discoveryv3 "github.com/envoyproxy/go-control-plane/envoy/service/discovery/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/resource"
)

// fails waits for the end of the stream.
func (c *client) fails(want codes.Code) {
	c.Helper()
	stop := time.AfterFunc(patience, func() { c.Error("the stream goes on") })
	defer stop.Stop()
	for {
		r, err := c.stream.Recv()
		if err == nil {
			c.note(r)
			continue
		}
		if status.Code(err) != want {
			c.Fatalf("%v, want %s", err, want)
		}
		return
	}
}

// F72: a proxy is who it proved to be, on every message.
func TestNodeIsBound(t *testing.T) {
	t.Parallel()
	cases := []struct {
		name    string
		node    string
		headers []string
		want    codes.Code
	}{
		{"another workload", "prod/b~1", []string{"sa", "a"}, codes.PermissionDenied},
		{"no such workload", "prod/c~1", []string{"sa", "a"}, codes.PermissionDenied},
		{"a credential of another workload with the same identity", "prod/a~1", []string{"sa", "a", "workload", "b"}, codes.PermissionDenied},
		{"no id", "", []string{"sa", "a"}, codes.InvalidArgument},
		{"no namespace", "a~1", []string{"sa", "a"}, codes.InvalidArgument},
		{"too many names", "prod/a/b~1", []string{"sa", "a"}, codes.InvalidArgument},
		{"too long", "prod/a~" + strings.Repeat("x", maxNodeID), []string{"sa", "a"}, codes.InvalidArgument},
	}
	f := start(t)
	f.publish("a", res(t, resource.Cluster, "ca", 1))
	f.publish("b", res(t, resource.Cluster, "cb", 1))
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			x := f.deltaAs(c.node, c.headers...)
			x.subscribe(resource.Cluster)
			x.fails(c.want)
			if len(x.holds[resource.Cluster]) != 0 {
				t.Errorf("and yet it got %v", x.holds)
			}
		})
	}
	t.Run("a node that changes", func(t *testing.T) {
		x := f.deltaAs("prod/a~1", "sa", "a", "workload", "a")
		x.subscribe(resource.Cluster)
		x.next()
		x.node = &corev3.Node{Id: "prod/b~1"}
		x.subscribe(resource.Endpoints, "e")
		x.fails(codes.PermissionDenied)
	})
}

// A stream does not outlive what it was opened for.
func TestStreamEnds(t *testing.T) {
	t.Parallel()
	t.Run("revoked", func(t *testing.T) {
		t.Parallel()
		f := start(t)
		f.publish("a", res(t, resource.Cluster, "c", 1))
		c := f.delta("prod/a~1")
		c.subscribe(resource.Cluster)
		c.next()
		if n := f.server.Disconnect(func(p identity.Proven) bool { return p.ID == sa(t, "a") }); n != 1 {
			t.Errorf("%d streams", n)
		}
		c.fails(codes.PermissionDenied)
	})
	t.Run("the workload is gone", func(t *testing.T) {
		t.Parallel()
		f := start(t)
		f.publish("a", res(t, resource.Cluster, "c", 1))
		c := f.delta("prod/a~1")
		c.subscribe(resource.Cluster)
		c.next()
		f.pipeline.Put(f.set.Apply(nil, []policy.Key{entry("a").Key}), nil)
		c.fails(codes.PermissionDenied)
	})
	t.Run("the workload is somebody else now", func(t *testing.T) {
		t.Parallel()
		f := start(t)
		f.publish("a", res(t, resource.Cluster, "c", 1))
		c := f.delta("prod/a~1")
		c.subscribe(resource.Cluster)
		c.next()
		other := entry("a")
		other.Spec.ServiceAccount, other.Digest = "b", 2
		f.pipeline.Put(f.set.Apply([]policy.Resource{other}, nil), nil)
		c.fails(codes.PermissionDenied)
	})
	t.Run("the credential ends", func(t *testing.T) {
		t.Parallel()
		f := start(t, func(o *Options) {
			o.Authenticate = func(context.Context) (identity.Proven, error) {
				return identity.Proven{ID: sa(t, "a"), NotAfter: time.Now().Add(300 * time.Millisecond)}, nil
			}
		})
		f.publish("a", res(t, resource.Cluster, "c", 1))
		c := f.delta("prod/a~1")
		c.subscribe(resource.Cluster)
		c.next()
		c.fails(codes.Unauthenticated)
	})
}

// A stream that does not begin as it must gets nothing.
func TestStreamDoesNotBegin(t *testing.T) {
	t.Parallel()
	t.Run("nobody proved anything", func(t *testing.T) {
		t.Parallel()
		f := start(t, func(o *Options) {
			o.Authenticate = func(context.Context) (identity.Proven, error) { return identity.Proven{}, errors.New("no certificate") }
		})
		f.publish("a", res(t, resource.Cluster, "c", 1))
		c := f.delta("prod/a~1")
		c.subscribe(resource.Cluster)
		c.fails(codes.Unauthenticated)
	})
	t.Run("before the configuration is read", func(t *testing.T) {
		t.Parallel()
		f := start(t)
		c := f.delta("prod/a~1")
		c.subscribe(resource.Cluster)
		c.fails(codes.Unavailable)
	})
	t.Run("no request comes", func(t *testing.T) {
		t.Parallel()
		f := start(t, func(o *Options) { o.Limits.FirstRequest = 50 * time.Millisecond })
		c := f.delta("prod/a~1")
		c.fails(codes.DeadlineExceeded)
	})
}

// F74: what is too much is refused, and the server goes on.
func TestTooMuch(t *testing.T) {
	t.Parallel()
	f := start(t)
	f.publish("a", res(t, resource.Cluster, "c", 1))
	names := func(n int, name string) []string {
		out := make([]string, n)
		for i := range out {
			out[i] = fmt.Sprint(name, i)
		}
		return out
	}
	cases := []struct {
		name string
		r    *discoveryv3.DeltaDiscoveryRequest
		want codes.Code
	}{
		{"unknown type", &discoveryv3.DeltaDiscoveryRequest{TypeUrl: "type.googleapis.com/x"}, codes.InvalidArgument},
		{"no type", &discoveryv3.DeltaDiscoveryRequest{}, codes.InvalidArgument},
		{"a million names", &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.Endpoints.URL(), ResourceNamesSubscribe: names(1_000_000, "")}, codes.ResourceExhausted},
		{"100,000 names", &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.Endpoints.URL(), ResourceNamesSubscribe: names(100_000, "")}, codes.ResourceExhausted},
		{"64 MB", &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.Endpoints.URL(), ResourceNamesSubscribe: []string{strings.Repeat("x", 64<<20)}}, codes.ResourceExhausted},
		{"a long name", &discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.Endpoints.URL(), ResourceNamesSubscribe: []string{strings.Repeat("x", 5000)}}, codes.InvalidArgument},
	}
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			x := f.delta("prod/a~1")
			// The server may end the stream before all of the request is sent: its answer counts.
			c.r.Node = x.node
			_ = x.stream.Send(c.r)
			x.fails(c.want)
		})
	}
	t.Run("the unary methods are not offered", func(t *testing.T) {
		err := f.dial(insecure.NewCredentials()).Invoke(t.Context(), "/envoy.service.cluster.v3.ClusterDiscoveryService/FetchClusters", &discoveryv3.DiscoveryRequest{}, &discoveryv3.DiscoveryResponse{})
		if status.Code(err) != codes.Unimplemented {
			t.Error(err)
		}
	})
	t.Run("and the server lives", func(t *testing.T) {
		x := f.delta("prod/a~1")
		x.subscribe(resource.Cluster)
		x.want(x.next(), resource.Cluster, []string{"c"}, nil)
	})
}

// F74: garbage and slow peers before the handshake cost a connection for a bounded time, and keep nobody out.
func TestHandshakes(t *testing.T) {
	t.Parallel()
	ca := envoytest.NewCA(t, "test")
	f := start(t, mutualTLS(ca, ca.Issue(t, "spiffe://cluster.local/credence/server")), func(o *Options) {
		o.Limits.Handshakes, o.Limits.Handshake = 1, 500*time.Millisecond
	})
	f.publish("a", res(t, resource.Cluster, "c", 1))
	var d net.Dialer
	slow := make([]net.Conn, 20)
	for i := range slow {
		conn, err := d.DialContext(t.Context(), "tcp", f.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = conn.Close() }()
		slow[i] = conn
		if _, err := conn.Write([]byte{22, 3, 1}[:i%4]); err != nil { // nothing, or the beginning of a ClientHello
			t.Fatal(err)
		}
	}
	garbage, err := d.DialContext(t.Context(), "tcp", f.addr)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = garbage.Close() }()
	if _, err := garbage.Write([]byte(strings.Repeat("GET / HTTP/1.1\r\n", 1000))); err != nil {
		t.Fatal(err)
	}
	pair := ca.Issue(t, sa(t, "a").String())
	cc := f.dial(credentials.NewTLS(&tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{pair.TLS}}))
	st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(cc).DeltaAggregatedResources(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "prod/a~1"}, TypeUrl: resource.Cluster.URL()}); err != nil {
		t.Fatal(err)
	}
	if r, err := st.Recv(); err != nil || len(r.Resources) != 1 {
		t.Fatal(r, err)
	}
	for _, c := range slow {
		if err := c.SetReadDeadline(time.Now().Add(patience)); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Read(make([]byte, 64)); err == nil {
			t.Error("a slow peer was answered")
		} else if ne := net.Error(nil); errors.As(err, &ne) && ne.Timeout() {
			t.Error("a slow peer was kept")
		}
	}
	stranger := envoytest.NewCA(t, "stranger").Issue(t, sa(t, "a").String())
	cc = f.dial(credentials.NewTLS(&tls.Config{RootCAs: ca.Pool(), Certificates: []tls.Certificate{stranger.TLS}}))
	st, err = discoveryv3.NewAggregatedDiscoveryServiceClient(cc).DeltaAggregatedResources(t.Context())
	if err == nil {
		_, err = st.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("a stranger's certificate: %v", err)
	}
}

// F77: a proxy that does not read is dropped at a deadline, and others do not notice.
func TestStalledReader(t *testing.T) {
	t.Parallel()
	f := start(t, func(o *Options) { o.Limits.Send = 300 * time.Millisecond })
	big := func(name string, n int) *resource.Resource {
		return pack(t, resource.Cluster, name, &clusterv3.Cluster{Name: name, AltStatName: strings.Repeat(fmt.Sprint(n), 1<<20)})
	}
	endpoints := func() (out []*resource.Resource) {
		for n := range 40 {
			out = append(out, pack(t, resource.Endpoints, fmt.Sprint("e", n), &clusterv3.Cluster{AltStatName: strings.Repeat("x", 1<<16)}))
		}
		return out
	}()
	f.publish("a", append(endpoints, big("c", 1))...)
	cc, err := grpc.NewClient("passthrough:///"+f.addr, grpc.WithTransportCredentials(insecure.NewCredentials()), grpc.WithStaticStreamWindowSize(65535), grpc.WithStaticConnWindowSize(65535))
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = cc.Close() }()
	st, err := discoveryv3.NewAggregatedDiscoveryServiceClient(cc).DeltaAggregatedResources(metadata.AppendToOutgoingContext(t.Context(), "sa", "a"))
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Send(&discoveryv3.DeltaDiscoveryRequest{Node: &corev3.Node{Id: "prod/a~stalled"}, TypeUrl: resource.Cluster.URL()}); err != nil {
		t.Fatal(err)
	}
	if err := st.Send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.Endpoints.URL(), ResourceNamesSubscribe: []string{"*"}}); err != nil {
		t.Fatal(err)
	}
	f.until("it is connected", func() bool { return len(f.status.Proxies()) == 1 })
	good := f.delta("prod/a~good")
	good.subscribe(resource.Cluster)
	good.next()
	f.until("the stalled one is dropped", func() bool {
		s := f.status.Proxies()
		return len(s) == 1 && s[0].Instance == "good"
	})
	f.publish("a", append(endpoints, big("c", 2))...)
	good.want(good.next(), resource.Cluster, []string{"c"}, nil)
}

// F79: a proxy that comes back gets its secrets again, whatever it says it holds; nobody gets them by a wildcard.
func TestSecrets(t *testing.T) {
	t.Parallel()
	ca := envoytest.NewCA(t, "test")
	secrets := &oneSecret{pair: ca.Issue(t, "")}
	f := start(t, func(o *Options) { o.Secrets = secrets })
	f.publish("a", res(t, resource.Listener, "l", 1))
	c := f.delta("prod/a~1")
	c.subscribe(resource.Secret, "*")
	c.subscribe(resource.Secret)
	c.subscribe(resource.Endpoints, "fence")
	c.want(c.next(), resource.Endpoints, nil, []string{"fence"})
	c.subscribe(resource.Secret, "default", "of-another")
	first := c.next()
	c.want(first, resource.Secret, []string{"default"}, []string{"of-another"})
	secrets.rotate(ca.Issue(t, ""))
	second := c.next()
	c.want(second, resource.Secret, []string{"default"}, []string{"of-another"})
	if second.Resources[0].Version == first.Resources[0].Version {
		t.Error("not the rotated one")
	}
	again := f.delta("prod/a~1")
	again.send(&discoveryv3.DeltaDiscoveryRequest{TypeUrl: resource.Secret.URL(), ResourceNamesSubscribe: []string{"default"},
		InitialResourceVersions: map[string]string{"default": second.Resources[0].Version}})
	again.want(again.next(), resource.Secret, []string{"default"}, nil)
	again.subscribe(resource.Listener)
	again.want(again.next(), resource.Listener, []string{"l"}, nil)
	again.want(again.next(), resource.Secret, []string{"default"}, nil) // with its listener
}
