package proxy

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	bootstrapv3 "github.com/envoyproxy/go-control-plane/envoy/config/bootstrap/v3"
	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"
	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/attest"
	"github.com/credence-mesh/credence/xds/resource"
)

// DefaultBareTTL is how long the credential in a self-contained bootstrap lives: nobody renews it while Envoy runs, so it is long.
const DefaultBareTTL = 90 * 24 * time.Hour

// Bare says what self-contained bootstrap is wanted.
type Bare struct {
	XDSAddr        string
	Workload       identity.Workload
	Token          string
	TTL            time.Duration // of the credential; 0: DefaultBareTTL, or what the server allows
	Admin          string        // as Options.Admin
	MaxConnections int64         // as Options.MaxConnections
}

// CreateBootstrap joins and writes a bootstrap that a bare `envoy -c` runs, readable by its owner only, for it holds a private key. The
// token is used only once it is known that the file can be written. It returns when the credential ends.
func CreateBootstrap(ctx context.Context, path string, b Bare) (until time.Time, err error) {
	var credential attest.Credential
	ctx, cancel := context.WithTimeout(ctx, joinTime)
	defer cancel()
	err = replace(path, func() ([]byte, error) {
		ttl := b.TTL
		if ttl == 0 {
			ttl = DefaultBareTTL
		}
		if credential, err = attest.Join(ctx, b.XDSAddr, b.Token, b.Workload, ttl); err != nil {
			return nil, err
		}
		return Bootstrap(Options{
			XDSAddr: b.XDSAddr, Workload: b.Workload, Instance: NewInstance(), Credential: credential, Admin: b.Admin,
			MaxConnections: b.MaxConnections,
		})
	})
	if err != nil {
		return time.Time{}, err
	}
	return credential.NotAfter(), nil
}

// RenewBootstrap replaces the credential in a bootstrap that CreateBootstrap wrote and leaves the rest of it as it is. An Envoy that runs
// has its old credential until it is restarted.
func RenewBootstrap(ctx context.Context, path string) (until time.Time, err error) {
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	err = replace(path, func() ([]byte, error) {
		b, err := readBootstrap(path)
		if err != nil {
			return nil, err
		}
		old, addr, err := bareCredential(b)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		fresh, err := attest.Renew(ctx, addr, old, 0)
		if err != nil {
			return nil, err
		}
		until = fresh.NotAfter()
		if err := setCredential(b, fresh); err != nil {
			return nil, fmt.Errorf("%s: %w", path, err)
		}
		return render(b)
	})
	return until, err
}

func readBootstrap(path string) (*bootstrapv3.Bootstrap, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	json, err := yaml.YAMLToJSON(raw)
	if err != nil {
		return nil, fmt.Errorf("%s is not YAML", path) // the cause could quote the key
	}
	b := &bootstrapv3.Bootstrap{}
	if protojson.Unmarshal(json, b) != nil {
		return nil, fmt.Errorf("%s is not an Envoy bootstrap, or has extensions that credence does not know", path)
	}
	return b, nil
}

var errNotOurs = errors.New("this is no bootstrap of credence bootstrap: the cluster " + ClusterXDS + " with an inline credential is missing")

// bareCredential finds the inlined credential, and where to renew it.
func bareCredential(b *bootstrapv3.Bootstrap) (attest.Credential, string, error) {
	for _, c := range b.GetStaticResources().GetClusters() {
		if c.GetName() != ClusterXDS {
			continue
		}
		context, err := tlsContext(c)
		if err != nil {
			return attest.Credential{}, "", err
		}
		pairs := context.GetCommonTlsContext().GetTlsCertificates()
		addr := firstAddress(c)
		if len(pairs) != 1 || addr == "" {
			return attest.Credential{}, "", errNotOurs
		}
		old, err := credentialOf(pairs[0], context.GetCommonTlsContext().GetValidationContext())
		return old, addr, err
	}
	return attest.Credential{}, "", errNotOurs
}

func firstAddress(c *clusterv3.Cluster) string {
	for _, l := range c.GetLoadAssignment().GetEndpoints() {
		for _, e := range l.GetLbEndpoints() {
			if a := e.GetEndpoint().GetAddress().GetSocketAddress(); a != nil {
				return hostPort(a)
			}
		}
	}
	return ""
}

func tlsContext(c *clusterv3.Cluster) (*tlsv3.UpstreamTlsContext, error) {
	context := &tlsv3.UpstreamTlsContext{}
	if packed := c.GetTransportSocket().GetTypedConfig(); packed == nil || packed.UnmarshalTo(context) != nil {
		return nil, errNotOurs
	}
	return context, nil
}

func setCredential(b *bootstrapv3.Bootstrap, fresh attest.Credential) error {
	pair, err := certificate(fresh)
	if err != nil {
		return err
	}
	for _, c := range b.GetStaticResources().GetClusters() {
		if c.GetName() != ClusterXDS && c.GetName() != ClusterServices {
			continue
		}
		context, err := tlsContext(c)
		if err != nil {
			return err
		}
		common := context.GetCommonTlsContext()
		if common.GetValidationContext() == nil {
			return errNotOurs
		}
		common.TlsCertificates = []*tlsv3.TlsCertificate{pair}
		common.GetValidationContext().TrustedCa = inline(fresh.BundlePEM())
		packed, err := resource.Pack(context)
		if err != nil {
			return err
		}
		c.GetTransportSocket().ConfigType = &corev3.TransportSocket_TypedConfig{TypedConfig: packed}
	}
	return nil
}

// replace writes a file as a whole, for its owner only. Content is made once it is clear that it can be written.
func replace(path string, content func() ([]byte, error)) (err error) {
	f, err := os.CreateTemp(filepath.Dir(path), ".credence-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, ignoreMissing(os.Remove(f.Name())))
		}
	}()
	b, err := content()
	if err != nil {
		return errors.Join(err, f.Close())
	}
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

func ignoreMissing(err error) error {
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
