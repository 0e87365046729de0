// Package sds gives proxies their secrets as Envoy wants them: their own X.509-SVID, what the mesh trusts, and the certificates that a
// gateway's listeners name. It knows who may have which; how they travel is the xDS server's business.
package sds

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/ca"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/resource"
)

// The names of secrets, as Istio has them.
const (
	Own        = "default"       // the proxy's own X.509-SVID and key
	Bundle     = "ROOTCA"        // what it verifies its peers by
	Kubernetes = "kubernetes://" // followed by NAMESPACE/NAME: the certificate of a Secret, for a gateway
)

// ErrNone says that there is no secret of that name for that workload.
var ErrNone = errors.New("no such secret for this workload")

func none(format string, args ...any) error {
	return fmt.Errorf("%w: %s", ErrNone, fmt.Sprintf(format, args...))
}

// Issuer makes X.509-SVIDs.
type Issuer interface {
	Mint(ctx context.Context, r ca.Request) (*x509svid.SVID, error)
}

// Config is what Secrets needs. Failed and Refused are for logging: they must not call Secrets, and may be nil.
type Config struct {
	Issuer Issuer
	Roots  x509bundle.Source
	Domain identity.TrustDomain
	TTL    time.Duration // of an X.509-SVID; zero is ca.DefaultTTL
	// Failed is told when an SVID could not be renewed: proxies keep the old one until ends; zero where there is none.
	Failed func(who identity.Workload, id identity.ID, ends time.Time, err error)
	// Refused is told why a secret was not given: it wraps ErrNone.
	Refused func(who identity.Workload, id identity.ID, name string, why error)
}

// Secrets gives secrets to proxies and keeps their SVIDs fresh. All replicas of a workload share one SVID, so that they share one resource
// too; workloads never do, even where they have the same ID.
type Secrets struct {
	config   Config
	policies atomic.Pointer[policy.Set]
	wake     chan struct{} // one slot: Run looks again

	mu      sync.Mutex
	own     map[owner]*certificate
	queue   queue
	watches map[watched]map[*watch]struct{}
	pending map[watched]struct{} // to be notified by Run
	root    *resource.Resource   // of rootPEM
	rootPEM string
}

type owner struct {
	who identity.Workload
	id  identity.ID
}

type watched struct {
	owner
	name string
}

type watch struct{ notify func() }

// New makes Secrets. Until Run is called nothing is renewed and nobody is notified.
func New(c Config) *Secrets {
	if c.TTL <= 0 {
		c.TTL = ca.DefaultTTL
	}
	if c.Failed == nil {
		c.Failed = func(identity.Workload, identity.ID, time.Time, error) {}
	}
	if c.Refused == nil {
		c.Refused = func(identity.Workload, identity.ID, string, error) {}
	}
	s := &Secrets{
		config: c, wake: make(chan struct{}, 1),
		own: map[owner]*certificate{}, watches: map[watched]map[*watch]struct{}{}, pending: map[watched]struct{}{},
	}
	s.policies.Store(policy.NewSet(policy.Mesh{}))
	return s
}

// Secret is the secret of that name for a workload, now. False without an error: there is none, or it is not this workload's, and what the
// proxy may have had is void. An error is temporary: what the proxy has stands.
func (s *Secrets) Secret(ctx context.Context, who identity.Workload, id identity.ID, name string) (*resource.Resource, bool, error) {
	r, err := s.find(ctx, who, id, name)
	if errors.Is(err, ErrNone) {
		s.config.Refused(who, id, name, err)
		return nil, false, nil
	}
	return r, err == nil, err
}

func (s *Secrets) find(ctx context.Context, who identity.Workload, id identity.ID, name string) (*resource.Resource, error) {
	switch {
	case who == identity.Workload{} || id.IsZero():
		return nil, none("nobody asks for %q", name)
	case name == Own:
		return s.svid(ctx, owner{who, id})
	case name == Bundle:
		return s.bundle()
	case strings.HasPrefix(name, Kubernetes):
		return forGateway(s.policies.Load(), who, name)
	default:
		return nil, none("%q is not a name of a secret: %s, %s or %sNAMESPACE/NAME is", name, Own, Bundle, Kubernetes)
	}
}

// bundle is the same resource for everybody, made again only when the roots change.
func (s *Secrets) bundle() (*resource.Resource, error) {
	b, err := s.config.Roots.GetX509BundleForTrustDomain(s.config.Domain)
	if err != nil {
		return nil, fmt.Errorf("the roots of %s: %w", s.config.Domain.Name(), err)
	}
	if b.Empty() {
		return nil, fmt.Errorf("the roots of %s: there are none", s.config.Domain.Name()) // an empty trusted_ca would trust everybody
	}
	pem, err := b.Marshal()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.root != nil && s.rootPEM == string(pem) {
		return s.root, nil
	}
	r, err := resource.New(resource.Secret, Bundle, &tlsv3.Secret{Name: Bundle, Type: &tlsv3.Secret_ValidationContext{
		ValidationContext: &tlsv3.CertificateValidationContext{TrustedCa: inline(pem)},
	}})
	if err != nil {
		return nil, err
	}
	s.root, s.rootPEM = r, string(pem)
	return r, nil
}

// BundleChanged notifies every proxy that the roots may have changed.
func (s *Secrets) BundleChanged() {
	s.notify(func(w watched) bool { return w.name == Bundle })
}

// Watch has notify called when a secret may have changed: after a renewal, after the roots or the objects that it depends on changed. notify
// is called from Run, must not block, and is not called any more once stop has returned and Run has come round.
func (s *Secrets) Watch(who identity.Workload, id identity.ID, name string, notify func()) (stop func()) {
	key, w := watched{owner{who, id}, name}, &watch{notify: notify}
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.watches[key] == nil {
		s.watches[key] = map[*watch]struct{}{}
	}
	s.watches[key][w] = struct{}{}
	return func() {
		s.mu.Lock()
		defer s.mu.Unlock()
		delete(s.watches[key], w)
		if len(s.watches[key]) == 0 {
			delete(s.watches, key)
		}
	}
}

// Update takes the policies that are in force and notifies the gateways whose certificates may have changed.
func (s *Secrets) Update(set *policy.Set) {
	changed := changes(policy.Diff(s.policies.Swap(set), set))
	if len(changed) == 0 {
		return
	}
	s.notify(func(w watched) bool { return changed.touch(w) })
}

func (s *Secrets) notify(concerns func(watched) bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for w := range s.watches {
		if concerns(w) {
			s.pending[w] = struct{}{}
		}
	}
	s.poke()
}

// poke has Run look again.
func (s *Secrets) poke() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func tlsCertificate(name string, chain, key []byte) (*resource.Resource, error) {
	r, err := resource.New(resource.Secret, name, &tlsv3.Secret{Name: name, Type: &tlsv3.Secret_TlsCertificate{
		TlsCertificate: &tlsv3.TlsCertificate{CertificateChain: inline(chain), PrivateKey: inline(key)},
	}})
	if err != nil {
		return nil, fmt.Errorf("secret %s cannot be encoded", name) // without the cause: it could quote the key
	}
	r.Private = true
	return r, nil
}

func inline(b []byte) *corev3.DataSource {
	return &corev3.DataSource{Specifier: &corev3.DataSource_InlineBytes{InlineBytes: b}}
}
