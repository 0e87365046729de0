package file

import (
	"fmt"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/kinds"
)

// good are valid objects named as those of the refused documents, one of each kind.
func good(kind policy.Kind) (string, bool) {
	istio := func(group, spec string) (string, bool) {
		return fmt.Sprintf("apiVersion: %s\nkind: %s\nmetadata: {name: p, namespace: shop}\nspec: %s\n", group, kind, spec), true
	}
	switch kind {
	case policy.KindAuthorizationPolicy:
		return istio("security.istio.io/v1", "{action: DENY, rules: [{}]}")
	case policy.KindRequestAuthentication:
		return istio("security.istio.io/v1", "{jwtRules: [{issuer: a, jwksUri: 'https://a.test/keys'}]}")
	case policy.KindPeerAuthentication:
		return istio("security.istio.io/v1", "{mtls: {mode: STRICT}}")
	case policy.KindServiceEntry:
		return istio("networking.istio.io/v1", "{hosts: [a.test], ports: [{number: 80, name: http}]}")
	case policy.KindWorkloadEntry:
		return istio("networking.istio.io/v1", "{address: 10.0.0.1}")
	case policy.KindSidecar:
		return istio("networking.istio.io/v1", "{egress: [{hosts: ['./*']}]}")
	case policy.KindEnvoyFilter:
		return istio("networking.istio.io/v1alpha3", "{}")
	case policy.KindTelemetry:
		return istio("telemetry.istio.io/v1", "{}")
	case policy.KindGateway:
		return istio("gateway.networking.k8s.io/v1", "{gatewayClassName: credence, listeners: [{name: a, port: 80, protocol: HTTP}]}")
	case policy.KindHTTPRoute:
		return istio("gateway.networking.k8s.io/v1", "{parentRefs: [{name: edge}]}")
	case policy.KindReferenceGrant:
		return istio("gateway.networking.k8s.io/v1beta1", "{from: [{group: a, kind: B, namespace: c}], to: [{group: '', kind: Secret}]}")
	case policy.KindService:
		return istio("v1", "{ports: [{port: 80}]}")
	}
	return "", false
}

// TestTheLastGoodOneOutlivesEveryRefusedDocument overwrites a good object by each refused document of package kinds, every one in a namespace
// of its own: the good one stays in force, and the problem says so.
func TestTheLastGoodOneOutlivesEveryRefusedDocument(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	bad := map[policy.Key]string{}
	for _, doc := range refusedDocuments(t) {
		r := kinds.Decode("f.yaml", "f.yaml", doc.Data)
		if len(r.Refused) != 1 || !strings.Contains(string(doc.Data), "name: p, namespace: shop}") {
			continue
		}
		key := r.Refused[0].Key
		text, ok := good(key.Kind)
		if !ok || key.Namespace != "shop" || key.Name != "p" {
			continue
		}
		key.Namespace = fmt.Sprintf("c%d", len(bad))
		bad[key] = strings.Replace(string(doc.Data), "namespace: shop", "namespace: "+key.Namespace, 1)
		write(t, strings.Replace(text, "namespace: shop", "namespace: "+key.Namespace, 1), dir, key.Namespace+".yaml")
	}
	if len(bad) < 200 {
		t.Fatalf("only %d documents", len(bad))
	}
	f := follow(t, dir)
	before := f.until(t, "all good objects", func(s state) bool { return s.set.Len() == len(bad) }).set
	for key, text := range bad {
		write(t, text, dir, key.Namespace+".yaml")
	}
	after := f.until(t, "every refusal", func(s state) bool {
		n := 0
		for _, code := range s.codes() {
			if code == CodeLastGood {
				n++
			}
		}
		return n >= len(bad)
	}).set
	for key := range bad {
		was, _ := before.Lookup(key)
		is, ok := after.Lookup(key)
		if !ok || is.Meta().Void || is.Meta().Digest != was.Meta().Digest {
			t.Errorf("%s is not in force any more, after\n%s", key, bad[key])
		}
	}
}

func refusedDocuments(t *testing.T) []txtar.File {
	t.Helper()
	files, err := filepath.Glob(filepath.Join("..", "..", "kinds", "testdata", "refused", "*.txtar"))
	must(t, err)
	var out []txtar.File
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		must(t, err)
		for _, doc := range ar.Files {
			if doc.Name != "want" {
				out = append(out, doc)
			}
		}
	}
	return out
}
