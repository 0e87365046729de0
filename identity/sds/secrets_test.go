package sds

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"path/filepath"
	"strings"
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
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/ca"
	"github.com/credence-mesh/credence/identity/state"
	"github.com/credence-mesh/credence/policy"
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
		time.Sleep(26 * time.Minute)
		synctest.Wait()
		if told.Load() != 0 || get(t, s, who, id, Own) != first {
			t.Error("rotated too early")
		}
		time.Sleep(8 * time.Minute)
		synctest.Wait()
		second := get(t, s, who, id, Own)
		if told.Load() != 1 || second == first || second.Version == first.Version {
			t.Errorf("told %d times", told.Load())
		}
		if left := time.Until(leafOf(t, first).NotAfter); left < 25*time.Minute {
			t.Errorf("the old one had only %s left", left)
		}
		time.Sleep(24 * time.Hour)
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
		time.Sleep(10 * time.Hour)
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
		time.Sleep(59 * time.Minute)
		synctest.Wait()
		if get(t, s, who, id, Own) != first || told.Load() != 0 {
			t.Error("the last good SVID does not stand")
		}
		if n := failed.Load(); n < 20 || n > 60 {
			t.Errorf("%d attempts in half an hour", n)
		}
		time.Sleep(2 * time.Minute)
		if r, ok, err := s.Secret(t.Context(), who, id, Own); ok || err == nil {
			t.Errorf("an SVID that has ended is given: %v, %v", r, err)
		}
		i.broken.Store(false)
		time.Sleep(2 * time.Minute)
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
		time.Sleep(5 * time.Second)
		synctest.Wait()
		if told.Load() != 1 {
			t.Errorf("told %d times", told.Load())
		}
	})
}

// certificateData is what a Secret of kubernetes.io/tls holds.
func certificateData(t testing.TB, i *issuer) map[string]policy.Private {
	t.Helper()
	svid, err := i.Authority.Mint(context.Background(), ca.Request{ID: edgeID, DNS: []string{"shop.example"}})
	if err != nil {
		t.Fatal(err)
	}
	chain, key, err := svid.Marshal()
	if err != nil {
		t.Fatal(err)
	}
	return map[string]policy.Private{"tls.crt": policy.NewPrivate(chain), "tls.key": policy.NewPrivate(key)}
}

func object(kind policy.Kind, ns, name string, digest uint64) policy.Object {
	return policy.Object{Key: policy.Key{Kind: kind, Namespace: ns, Name: name}, Digest: digest}
}

func ptr[T any](v T) *T { return &v }

func gateway(refs ...gatewayv1.SecretObjectReference) *policy.Gateway {
	return &policy.Gateway{Object: object(policy.KindGateway, "production", "edge", uint64(len(refs))), Spec: &gatewayv1.GatewaySpec{
		Listeners: []gatewayv1.Listener{{Name: "http"}, {Name: "https", TLS: &gatewayv1.ListenerTLSConfig{CertificateRefs: refs}}},
	}}
}

func ref(ns, name string) gatewayv1.SecretObjectReference {
	r := gatewayv1.SecretObjectReference{Name: gatewayv1.ObjectName(name)}
	if ns != "" {
		r.Namespace = ptr(gatewayv1.Namespace(ns))
	}
	return r
}

func grant(ns string, edit func(*gatewayv1.ReferenceGrantSpec)) *policy.ReferenceGrant {
	spec := &gatewayv1.ReferenceGrantSpec{
		From: []gatewayv1.ReferenceGrantFrom{{Group: gatewayv1.GroupName, Kind: "Gateway", Namespace: "production"}},
		To:   []gatewayv1.ReferenceGrantTo{{Kind: "Secret"}},
	}
	edit(spec)
	return &policy.ReferenceGrant{Object: object(policy.KindReferenceGrant, ns, "grant", 1), Spec: spec}
}

func TestCertificatesOfGateways(t *testing.T) {
	t.Parallel()
	i := newIssuer(t)
	data := certificateData(t, i)
	secret := func(ns, name string, data map[string]policy.Private) *policy.Secret {
		return &policy.Secret{Object: object(policy.KindSecret, ns, name, 1), Type: "kubernetes.io/tls", Data: data}
	}
	crossed := map[string]policy.Private{"tls.crt": data["tls.crt"], "tls.key": certificateData(t, i)["tls.key"]}
	same := func(*gatewayv1.ReferenceGrantSpec) {}
	void := secret("production", "cert", data)
	void.Void = true
	for _, c := range []struct {
		name  string
		put   []policy.Resource
		asks  string
		wrong string // in the error; empty: given
	}{
		{"own namespace", []policy.Resource{gateway(ref("", "cert")), secret("production", "cert", data)}, "production/cert", ""},
		{"own namespace, spelled", []policy.Resource{gateway(ref("production", "cert")), secret("production", "cert", data)}, "production/cert", ""},
		{"second of two", []policy.Resource{gateway(ref("", "a"), ref("", "cert")), secret("production", "cert", data)}, "production/cert", ""},
		{"not referenced", []policy.Resource{gateway(ref("", "other")), secret("production", "cert", data)}, "production/cert", "no listener"},
		{"the same name elsewhere", []policy.Resource{gateway(ref("", "cert")), secret("vault", "cert", data), grant("vault", same)}, "vault/cert", "no listener"},
		{"across namespaces without a grant", []policy.Resource{gateway(ref("vault", "cert")), secret("vault", "cert", data)}, "vault/cert", "ReferenceGrant"},
		{"across namespaces with a grant", []policy.Resource{gateway(ref("vault", "cert")), secret("vault", "cert", data), grant("vault", same)}, "vault/cert", ""},
		{"a grant by name", []policy.Resource{gateway(ref("vault", "cert")), secret("vault", "cert", data),
			grant("vault", func(g *gatewayv1.ReferenceGrantSpec) { g.To[0].Name = ptr(gatewayv1.ObjectName("cert")) })}, "vault/cert", ""},
		{"a grant of another name", []policy.Resource{gateway(ref("vault", "cert")), secret("vault", "cert", data),
			grant("vault", func(g *gatewayv1.ReferenceGrantSpec) { g.To[0].Name = ptr(gatewayv1.ObjectName("x")) })}, "vault/cert", "ReferenceGrant"},
		{"a grant to routes", []policy.Resource{gateway(ref("vault", "cert")), secret("vault", "cert", data),
			grant("vault", func(g *gatewayv1.ReferenceGrantSpec) { g.From[0].Kind = "HTTPRoute" })}, "vault/cert", "ReferenceGrant"},
		{"a grant to another namespace", []policy.Resource{gateway(ref("vault", "cert")), secret("vault", "cert", data),
			grant("vault", func(g *gatewayv1.ReferenceGrantSpec) { g.From[0].Namespace = "staging" })}, "vault/cert", "ReferenceGrant"},
		{"a grant for services", []policy.Resource{gateway(ref("vault", "cert")), secret("vault", "cert", data),
			grant("vault", func(g *gatewayv1.ReferenceGrantSpec) { g.To[0].Kind = "Service" })}, "vault/cert", "ReferenceGrant"},
		{"a grant of the gateway's namespace", []policy.Resource{gateway(ref("vault", "cert")), secret("vault", "cert", data), grant("production", same)}, "vault/cert", "ReferenceGrant"},
		{"missing", []policy.Resource{gateway(ref("", "cert"))}, "production/cert", "not there"},
		{"refused", []policy.Resource{gateway(ref("", "cert")), void}, "production/cert", "refused"},
		{"no key", []policy.Resource{gateway(ref("", "cert")), secret("production", "cert", map[string]policy.Private{"tls.crt": data["tls.crt"]})}, "production/cert", "tls.key"},
		{"another's key", []policy.Resource{gateway(ref("", "cert")), secret("production", "cert", crossed)}, "production/cert", "private key"},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s := New(Config{Issuer: i, Roots: i, Domain: domain})
			s.Update(policy.NewSet(policy.Mesh{}).Apply(c.put, nil))
			if c.wrong != "" {
				why := refusal(t, s, edge, edgeID, Kubernetes+c.asks).Error()
				if !strings.Contains(why, c.wrong) || strings.Contains(why, "PRIVATE") {
					t.Errorf("got %s", why)
				}
				return
			}
			r, _, err := s.Secret(t.Context(), edge, edgeID, Kubernetes+c.asks)
			if err != nil || !r.Private || leafOf(t, r).DNSNames[0] != "shop.example" {
				t.Errorf("got %v", err)
			}
			if _, ok, _ := s.Secret(t.Context(), who, id, Kubernetes+c.asks); ok {
				t.Error("a sidecar gets the gateway's key")
			}
		})
	}
}

func TestGatewaysAreToldOfWhatConcernsThem(t *testing.T) {
	i := newIssuer(t)
	data := certificateData(t, i)
	set := policy.NewSet(policy.Mesh{}).Apply([]policy.Resource{
		gateway(ref("vault", "cert")), grant("vault", func(*gatewayv1.ReferenceGrantSpec) {}),
		&policy.Secret{Object: object(policy.KindSecret, "vault", "cert", 1), Data: data},
	}, nil)
	other := gateway()
	other.Key.Name = "other"
	for _, c := range []struct {
		name string
		next *policy.Set
		want int64
	}{
		{"nothing", set.Apply(nil, nil), 0},
		{"the Secret", set.Apply([]policy.Resource{&policy.Secret{Object: object(policy.KindSecret, "vault", "cert", 2), Data: data}}, nil), 1},
		{"another Secret", set.Apply([]policy.Resource{&policy.Secret{Object: object(policy.KindSecret, "vault", "x", 2), Data: data}}, nil), 0},
		{"the grant is taken back", set.Apply(nil, []policy.Key{{Kind: policy.KindReferenceGrant, Namespace: "vault", Name: "grant"}}), 1},
		{"the gateway", set.Apply([]policy.Resource{gateway(ref("", "x"), ref("", "y"))}, nil), 1},
		{"another gateway", set.Apply([]policy.Resource{other}, nil), 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := New(Config{Issuer: i, Roots: i, Domain: domain})
				s.Update(set)
				told, stop := running(t, s, edge, edgeID, Kubernetes+"vault/cert")
				defer stop()
				synctest.Wait()
				before := told.Load()
				s.Update(c.next)
				synctest.Wait()
				if n := told.Load() - before; n != c.want {
					t.Errorf("told %d times", n)
				}
			})
		})
	}
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
