package sds

import (
	"crypto/tls"
	"strings"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/resource"
)

// parseKubernetes reads kubernetes://NAMESPACE/NAME.
func parseKubernetes(name string) (policy.Key, bool) {
	ns, secret, ok := strings.Cut(strings.TrimPrefix(name, Kubernetes), "/")
	if !ok || ns == "" || secret == "" || strings.ContainsAny(ns+secret, "/*") {
		return policy.Key{}, false
	}
	return policy.Key{Kind: policy.KindSecret, Namespace: ns, Name: secret}, true
}

// forGateway is the certificate of a Secret, for a gateway that a listener entitles to it.
func forGateway(set *policy.Set, who identity.Workload, name string) (*resource.Resource, error) {
	key, ok := parseKubernetes(name)
	if !ok {
		return nil, none("%q is not %sNAMESPACE/NAME", name, Kubernetes)
	}
	w, ok := set.Workload(who.Namespace, who.Name)
	if !ok || w.Gateway == nil {
		return nil, none("%s asks for %s, but it is not a gateway", who, key)
	}
	if !references(w.Gateway, key) {
		return nil, none("%s asks for %s, but no listener of it references that Secret", who, key)
	}
	if key.Namespace != who.Namespace && !granted(set, who.Namespace, key) {
		return nil, none("%s references %s, but no ReferenceGrant in namespace %s allows Gateways of namespace %s to", who, key, key.Namespace, who.Namespace)
	}
	secret, ok := policy.Get[*policy.Secret](set, key.Namespace, key.Name)
	if !ok || secret.Void {
		return nil, none("%s references %s, which is not there or was refused", who, key)
	}
	return keyPair(secret, name)
}

// keyPair checks what Envoy would refuse: a listener with a certificate that does not belong to its key.
func keyPair(secret *policy.Secret, name string) (*resource.Resource, error) {
	chain, key := secret.Data["tls.crt"].Reveal(), secret.Data["tls.key"].Reveal()
	if len(chain) == 0 || len(key) == 0 {
		return nil, none("%s has no tls.crt and tls.key", secret.Key)
	}
	if _, err := tls.X509KeyPair(chain, key); err != nil {
		return nil, none("%s: tls.crt and tls.key are not a certificate and its private key, both in PEM", secret.Key)
	}
	return tlsCertificate(name, chain, key)
}

func references(g *policy.Gateway, key policy.Key) bool {
	for _, l := range g.Spec.Listeners {
		if l.TLS == nil {
			continue
		}
		for _, ref := range l.TLS.CertificateRefs {
			if refersTo(ref, g.Key.Namespace, key) {
				return true
			}
		}
	}
	return false
}

// refersTo reads a reference with the defaults of the Gateway API: a core Secret of the gateway's own namespace.
func refersTo(ref gatewayv1.SecretObjectReference, own string, key policy.Key) bool {
	ns := own
	if ref.Namespace != nil {
		ns = string(*ref.Namespace)
	}
	return (ref.Group == nil || *ref.Group == "") && (ref.Kind == nil || *ref.Kind == "Secret") && ns == key.Namespace && string(ref.Name) == key.Name
}

// granted looks for a ReferenceGrant in the Secret's namespace: only its owners may lend it.
func granted(set *policy.Set, from string, key policy.Key) bool {
	for g := range policy.In[*policy.ReferenceGrant](set, key.Namespace) {
		if g.Spec != nil && !g.Void && grantsFrom(g.Spec, from) && grantsTo(g.Spec, key.Name) {
			return true
		}
	}
	return false
}

func grantsFrom(spec *gatewayv1.ReferenceGrantSpec, namespace string) bool {
	for _, f := range spec.From {
		if f.Group == gatewayv1.GroupName && f.Kind == "Gateway" && string(f.Namespace) == namespace {
			return true
		}
	}
	return false
}

func grantsTo(spec *gatewayv1.ReferenceGrantSpec, name string) bool {
	for _, t := range spec.To {
		if t.Group == "" && t.Kind == "Secret" && (t.Name == nil || string(*t.Name) == name) {
			return true
		}
	}
	return false
}

// touched is what changed of the objects that decide about the certificates of gateways.
type touched map[policy.Key]bool

func changes(diff []policy.Change) touched {
	out := touched{}
	for _, c := range diff {
		r := c.New
		if r == nil {
			r = c.Old
		}
		switch k := r.Meta().Key; k.Kind {
		case policy.KindSecret, policy.KindGateway, policy.KindWorkloadEntry:
			out[k] = true
		case policy.KindReferenceGrant:
			out[policy.Key{Kind: k.Kind, Namespace: k.Namespace}] = true // any grant of the namespace may matter
		}
	}
	return out
}

func (t touched) touch(w watched) bool {
	key, ok := parseKubernetes(w.name)
	if !ok || !strings.HasPrefix(w.name, Kubernetes) {
		return false
	}
	return t[key] ||
		t[policy.Key{Kind: policy.KindGateway, Namespace: w.who.Namespace, Name: w.who.Name}] ||
		t[policy.Key{Kind: policy.KindWorkloadEntry, Namespace: w.who.Namespace, Name: w.who.Name}] ||
		t[policy.Key{Kind: policy.KindReferenceGrant, Namespace: key.Namespace}]
}
