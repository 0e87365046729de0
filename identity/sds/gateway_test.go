package sds

import (
	"context"
	"strings"
	"testing"
	"testing/synctest"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/credence-mesh/credence/identity/ca"
	"github.com/credence-mesh/credence/policy"
)

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
