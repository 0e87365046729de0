package sds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	tlsv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/transport_sockets/tls/v3"
	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"go.uber.org/goleak"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/ca"
	"github.com/credence-mesh/credence/identity/state"
	"github.com/credence-mesh/credence/xds/resource"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var (
	domain = spiffeid.RequireTrustDomainFromString("cluster.local")
	who    = identity.Workload{Namespace: "production", Name: "orders"}
	id     = spiffeid.RequireFromString("spiffe://cluster.local/ns/production/sa/orders")
	edge   = identity.Workload{Namespace: "production", Name: "edge"}
	edgeID = spiffeid.RequireFromString("spiffe://cluster.local/ns/production/sa/edge")
)

// issuer counts, and can be told to fail.
type issuer struct {
	*ca.Authority
	minted atomic.Int64
	broken atomic.Bool
}

func (i *issuer) Mint(ctx context.Context, r ca.Request) (*x509svid.SVID, error) {
	if i.broken.Load() {
		return nil, errors.New("the disk is full")
	}
	i.minted.Add(1)
	return i.Authority.Mint(ctx, r)
}

func newIssuer(t testing.TB) *issuer {
	t.Helper()
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	a, err := ca.Open(context.Background(), dir, domain)
	if err != nil {
		t.Fatal(err)
	}
	return &issuer{Authority: a}
}

func newSecrets(t testing.TB) (*Secrets, *issuer) {
	t.Helper()
	i := newIssuer(t)
	return New(Config{Issuer: i, Roots: i, Domain: domain}), i
}

// refusal asks for a secret that is not to be given, and is why it was not.
func refusal(t *testing.T, s *Secrets, w identity.Workload, id identity.ID, name string) error {
	t.Helper()
	var why error
	s.config.Refused = func(gotWho identity.Workload, gotID identity.ID, gotName string, err error) {
		if gotWho == w && gotID == id && gotName == name {
			why = err
		}
	}
	r, ok, err := s.Secret(t.Context(), w, id, name)
	if ok || r != nil || err != nil || !errors.Is(why, ErrNone) {
		t.Fatalf("got %v, %v, %v, %v", r != nil, ok, err, why)
	}
	return why
}

func get(t *testing.T, s *Secrets, w identity.Workload, id identity.ID, name string) *resource.Resource {
	t.Helper()
	r, ok, err := s.Secret(t.Context(), w, id, name)
	if err != nil || !ok {
		t.Fatalf("%s: %v", name, err)
	}
	return r
}

func secretOf(t *testing.T, r *resource.Resource) *tlsv3.Secret {
	t.Helper()
	var m tlsv3.Secret
	if err := r.Body.UnmarshalTo(&m); err != nil {
		t.Fatal(err)
	}
	if m.Name != r.Name {
		t.Errorf("the secret %s is called %s", m.Name, r.Name)
	}
	return &m
}

func leafOf(t *testing.T, r *resource.Resource) *x509.Certificate {
	t.Helper()
	c := secretOf(t, r).GetTlsCertificate()
	pair, err := tls.X509KeyPair(c.GetCertificateChain().GetInlineBytes(), c.GetPrivateKey().GetInlineBytes())
	if err != nil {
		t.Fatal(err)
	}
	return pair.Leaf
}

func TestOwnSVIDAndBundle(t *testing.T) {
	t.Parallel()
	s, i := newSecrets(t)
	own := get(t, s, who, id, Own)
	svid := leafOf(t, own)
	chain, err := x509.ParseCertificates(pemBytes(secretOf(t, own).GetTlsCertificate().GetCertificateChain().GetInlineBytes()))
	if err != nil {
		t.Fatal(err)
	}
	if got, _, err := x509svid.Verify(chain, i); err != nil || got != id || !svid.Equal(chain[0]) {
		t.Errorf("got %s, %v", got, err)
	}
	if !own.Private || own.Type != resource.Secret {
		t.Error("a key is not marked as private")
	}
	bundle := get(t, s, who, id, Bundle)
	roots, err := x509bundle.Parse(domain, secretOf(t, bundle).GetValidationContext().GetTrustedCa().GetInlineBytes())
	if err != nil || !roots.Equal(i.Bundle()) || bundle.Private {
		t.Errorf("got %v, %v", roots, err)
	}
	if get(t, s, who, id, Own) != own || get(t, s, edge, edgeID, Bundle) != bundle {
		t.Error("replicas do not share resources")
	}
	neighbour := identity.Workload{Namespace: "production", Name: "orders-2"}
	if get(t, s, neighbour, id, Own) == own {
		t.Error("two workloads of one identity share a key")
	}
}

func pemBytes(b []byte) (der []byte) {
	for block, rest := pem.Decode(b); block != nil; block, rest = pem.Decode(rest) {
		der = append(der, block.Bytes...)
	}
	return der
}

func TestNamesThatAreNobodys(t *testing.T) {
	t.Parallel()
	s, i := newSecrets(t)
	for _, c := range []struct {
		name   string
		who    identity.Workload
		id     identity.ID
		secret string
	}{
		{"nobody", identity.Workload{}, identity.ID{}, Own},
		{"no identity", who, identity.ID{}, Bundle},
		{"wildcard", who, id, "*"},
		{"empty", who, id, ""},
		{"another's SVID by its ID", who, id, "spiffe://cluster.local/ns/production/sa/payments"},
		{"the control plane", who, identity.ServerID(domain), Own},
		{"below the control plane", who, spiffeid.RequireFromString("spiffe://cluster.local/credence/server/x"), Own},
		{"another trust domain", who, spiffeid.RequireFromString("spiffe://evil.example/ns/production/sa/orders"), Own},
		{"a Secret for a sidecar", who, id, "kubernetes://production/edge-cert"},
		{"a wildcard of Secrets", edge, edgeID, "kubernetes://production/*"},
		{"no namespace", edge, edgeID, "kubernetes://edge-cert"},
		{"a path", edge, edgeID, "kubernetes://production/../edge-cert"},
	} {
		t.Run(c.name, func(t *testing.T) {
			refusal(t, s, c.who, c.id, c.secret)
		})
	}
	if n := i.minted.Load(); n != 0 {
		t.Errorf("%d SVIDs were made", n)
	}
}

func TestACrowdOfReplicasMakesOneSVID(t *testing.T) {
	t.Parallel()
	s, i := newSecrets(t)
	var all sync.WaitGroup
	for range 50 {
		all.Go(func() {
			if _, _, err := s.Secret(t.Context(), who, id, Own); err != nil {
				t.Error(err)
			}
		})
	}
	all.Wait()
	if n := i.minted.Load(); n != 1 {
		t.Errorf("%d SVIDs were made", n)
	}
}

func TestAnEmptyBundleIsNeverGiven(t *testing.T) {
	t.Parallel()
	s := New(Config{Issuer: newIssuer(t), Roots: x509bundle.New(domain), Domain: domain})
	if r, ok, err := s.Secret(t.Context(), who, id, Bundle); ok || err == nil {
		t.Errorf("got %v", r)
	}
}

// running runs s in the bubble of a synctest and returns a counter of notifications.
func running(t *testing.T, s *Secrets, w identity.Workload, id identity.ID, name string) (told *atomic.Int64, stop func()) {
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() { defer close(done); _ = s.Run(ctx) }()
	told = &atomic.Int64{}
	unwatch := s.Watch(w, id, name, func() {
		told.Add(1)
		_, _, _ = s.Secret(ctx, w, id, name) // as the xDS server may
	})
	return told, func() { unwatch(); cancel(); <-done }
}

func TestRotationAtHalfLife(t *testing.T) {
	i := newIssuer(t)
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Issuer: i, Roots: i, Domain: domain})
		told, stop := running(t, s, who, id, Own)
		defer stop()
		first := get(t, s, who, id, Own)
		<-time.After(26 * time.Minute)
		synctest.Wait()
		if told.Load() != 0 || get(t, s, who, id, Own) != first {
			t.Error("rotated too early")
		}
		<-time.After(8 * time.Minute)
		synctest.Wait()
		second := get(t, s, who, id, Own)
		if told.Load() != 1 || second == first || second.Version == first.Version {
			t.Errorf("told %d times", told.Load())
		}
		if left := time.Until(leafOf(t, first).NotAfter); left < 25*time.Minute {
			t.Errorf("the old one had only %s left", left)
		}
		<-time.After(24 * time.Hour)
		synctest.Wait()
		if n := told.Load(); n < 44 || n > 56 {
			t.Errorf("%d rotations in a day", n)
		}
		if leafOf(t, get(t, s, who, id, Own)).NotAfter.Before(time.Now().Add(25 * time.Minute)) {
			t.Error("an old SVID is given")
		}
	})
	if i.minted.Load() < 44 {
		t.Error("no SVIDs were made")
	}
}

func TestWhatNobodyWatchesIsForgotten(t *testing.T) {
	i := newIssuer(t)
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Issuer: i, Roots: i, Domain: domain})
		_, stop := running(t, s, edge, edgeID, Own)
		defer stop()
		get(t, s, who, id, Own)
		<-time.After(10 * time.Hour)
		synctest.Wait()
		s.mu.Lock()
		defer s.mu.Unlock()
		if len(s.own) != 0 || len(s.queue) != 0 || i.minted.Load() != 1 {
			t.Errorf("%d kept, %d queued, %d made", len(s.own), len(s.queue), i.minted.Load())
		}
	})
}

func TestABrokenAuthorityCostsNothingUntilTheSVIDEnds(t *testing.T) {
	i := newIssuer(t)
	var failed atomic.Int64
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Issuer: i, Roots: i, Domain: domain, Failed: func(identity.Workload, identity.ID, time.Time, error) { failed.Add(1) }})
		told, stop := running(t, s, who, id, Own)
		defer stop()
		first := get(t, s, who, id, Own)
		i.broken.Store(true)
		<-time.After(59 * time.Minute)
		synctest.Wait()
		if get(t, s, who, id, Own) != first || told.Load() != 0 {
			t.Error("the last good SVID does not stand")
		}
		if n := failed.Load(); n < 20 || n > 60 {
			t.Errorf("%d attempts in half an hour", n)
		}
		<-time.After(2 * time.Minute)
		if r, ok, err := s.Secret(t.Context(), who, id, Own); ok || err == nil {
			t.Errorf("an SVID that has ended is given: %v, %v", r, err)
		}
		i.broken.Store(false)
		<-time.After(2 * time.Minute)
		synctest.Wait()
		if told.Load() != 1 || get(t, s, who, id, Own) == first {
			t.Errorf("told %d times after the repair", told.Load())
		}
	})
}

func TestWhoGotAnErrorIsTold(t *testing.T) {
	i := newIssuer(t)
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Issuer: i, Roots: i, Domain: domain})
		told, stop := running(t, s, who, id, Own)
		defer stop()
		i.broken.Store(true)
		if _, ok, _ := s.Secret(t.Context(), who, id, Own); ok {
			t.Fatal("given")
		}
		i.broken.Store(false)
		<-time.After(5 * time.Second)
		synctest.Wait()
		if told.Load() != 1 {
			t.Errorf("told %d times", told.Load())
		}
	})
}

func TestChangedBundle(t *testing.T) {
	i := newIssuer(t)
	roots := i.Bundle()
	synctest.Test(t, func(t *testing.T) {
		s := New(Config{Issuer: i, Roots: roots, Domain: domain})
		told, stop := running(t, s, who, id, Bundle)
		first := get(t, s, who, id, Bundle)
		roots.AddX509Authority(i.ChannelRoot())
		s.BundleChanged()
		synctest.Wait()
		if told.Load() != 1 || get(t, s, who, id, Bundle) == first {
			t.Error("the new bundle is not given")
		}
		stop()
		s.BundleChanged()
		synctest.Wait()
		if told.Load() != 1 {
			t.Error("told after the end")
		}
	})
}
