// Package proxy is the companion of one Envoy: it obtains the credential by which the proxy reaches the control plane, writes Envoy's
// bootstrap, runs Envoy, keeps the credential fresh, and drains Envoy when it is asked to stop.
package proxy

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"strconv"
	"strings"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/types/known/durationpb"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/attest"
)

// The static clusters of every bootstrap. Both reach the control plane; they are apart so that a burst of decisions never queues behind
// configuration, and the other way round.
const (
	ClusterXDS      = "credence_xds"      // ADS
	ClusterServices = "credence_services" // ext_authz and rate limit
)

// Options say what a bootstrap is for.
type Options struct {
	XDSAddr  string            // HOST:PORT of the control plane
	Workload identity.Workload // who the proxy is
	Instance string            // tells replicas of a workload apart; part of the node id
	// Credential is inlined where SDSDir is empty; otherwise only its trust domain is used.
	Credential attest.Credential
	// SDSDir is a directory that has the files which WriteSDS writes: Envoy follows them, so that a fresh credential needs no restart.
	// Empty: everything inline, and the bootstrap is one self-contained file with a private key in it.
	SDSDir string
	// Admin is where Envoy's admin interface listens: "unix:/path", or a loopback "127.0.0.1:9901". Empty: a free port on loopback, which
	// Envoy logs when it starts. The interface has no authentication, so no other address is accepted.
	Admin string
	// MaxConnections is how many downstream connections Envoy takes before it refuses new ones. 0: 50,000.
	MaxConnections int64
}

const defaultMaxConnections = 50_000

// Bootstrap is a complete Envoy bootstrap as JSON, which is YAML too, in which no name can be misread: YAML 1.1 takes an unquoted `no` or
// `n` for a boolean.
func Bootstrap(o Options) ([]byte, error) {
	if err := o.check(); err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	admin, err := adminAddress(o.Admin)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	clusters, err := staticClusters(o)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	overload, err := overloadManager(o.MaxConnections)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	b := &bootstrapv3.Bootstrap{
		Node: &corev3.Node{
			Id:      NodeID(o.Workload, o.Instance),
			Cluster: o.Workload.Name + "." + o.Workload.Namespace,
		},
		Admin:            &bootstrapv3.Admin{Address: admin},
		StaticResources:  &bootstrapv3.Bootstrap_StaticResources{Clusters: clusters},
		DynamicResources: dynamicResources(),
		LayeredRuntime:   layeredRuntime(),
		OverloadManager:  overload,
	}
	return render(b)
}

// NodeID is the id under which a proxy asks for its configuration; the control plane holds it against the credential.
func NodeID(w identity.Workload, instance string) string { return w.String() + "~" + instance }

func (o Options) check() error {
	var errs []error
	if o.Workload.Namespace == "" || o.Workload.Name == "" || strings.ContainsAny(o.Workload.Namespace+o.Workload.Name, "/~") {
		errs = append(errs, fmt.Errorf("workload %q is not NAMESPACE/NAME", o.Workload))
	}
	if o.Instance == "" {
		errs = append(errs, errors.New("no instance name"))
	}
	if o.Credential.ID.IsZero() || o.Credential.Workload != o.Workload {
		errs = append(errs, fmt.Errorf("the credential is of %q, not of %s", o.Credential.Workload, o.Workload))
	}
	return errors.Join(errs...)
}

// dynamicResources: everything comes over one ADS stream. The initial fetch has no time limit, so that Envoy never begins to serve with
// half of its configuration because the control plane was slow; it stays unready instead.
func dynamicResources() *bootstrapv3.Bootstrap_DynamicResources {
	ads := &corev3.ConfigSource{
		ConfigSourceSpecifier: &corev3.ConfigSource_Ads{Ads: &corev3.AggregatedConfigSource{}},
		ResourceApiVersion:    corev3.ApiVersion_V3,
		InitialFetchTimeout:   durationpb.New(0),
	}
	return &bootstrapv3.Bootstrap_DynamicResources{
		LdsConfig: ads,
		CdsConfig: ads,
		AdsConfig: &corev3.ApiConfigSource{
			ApiType:                   corev3.ApiConfigSource_DELTA_GRPC,
			TransportApiVersion:       corev3.ApiVersion_V3,
			SetNodeOnFirstMessageOnly: true,
			GrpcServices: []*corev3.GrpcService{{
				TargetSpecifier: &corev3.GrpcService_EnvoyGrpc_{EnvoyGrpc: &corev3.GrpcService_EnvoyGrpc{
					ClusterName: ClusterXDS,
					RetryPolicy: reconnect(),
				}},
			}},
		},
	}
}

func adminAddress(admin string) (*corev3.Address, error) {
	if path, ok := strings.CutPrefix(admin, "unix:"); ok {
		return &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: path, Mode: 0o600}}}, nil
	}
	if admin == "" {
		admin = "127.0.0.1:0"
	}
	ap, err := netip.ParseAddrPort(admin)
	if err != nil {
		return nil, fmt.Errorf("admin address: %w", err)
	}
	if !ap.Addr().IsLoopback() {
		return nil, fmt.Errorf("admin address %s is not on loopback: whoever reaches it controls the proxy", admin)
	}
	return socketAddress(ap.Addr().String(), uint32(ap.Port())), nil
}

func socketAddress(host string, port uint32) *corev3.Address {
	return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{
		Address: host, PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port},
	}}}
}

func hostPort(a *corev3.SocketAddress) string {
	return net.JoinHostPort(a.GetAddress(), strconv.FormatUint(uint64(a.GetPortValue()), 10))
}

// target splits HOST:PORT and says how Envoy finds HOST.
func target(addr string) (host string, port uint32, discovery clusterv3.Cluster_DiscoveryType, err error) {
	host, p, err := net.SplitHostPort(addr)
	if err != nil {
		return "", 0, 0, fmt.Errorf("address of the control plane: %w", err)
	}
	n, err := strconv.ParseUint(p, 10, 16)
	if err != nil || n == 0 || host == "" {
		return "", 0, 0, fmt.Errorf("address of the control plane: %q is not HOST:PORT", addr)
	}
	if _, err := netip.ParseAddr(host); err == nil {
		return host, uint32(n), clusterv3.Cluster_STATIC, nil
	}
	return host, uint32(n), clusterv3.Cluster_LOGICAL_DNS, nil
}

// render checks the message as Envoy would and writes it with stable white space, which protojson alone does not promise.
func render(b *bootstrapv3.Bootstrap) ([]byte, error) {
	if err := b.ValidateAll(); err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	raw, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(b)
	if err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	var out bytes.Buffer
	if err := json.Indent(&out, raw, "", "  "); err != nil {
		return nil, fmt.Errorf("bootstrap: %w", err)
	}
	out.WriteByte('\n')
	return out.Bytes(), nil
}
