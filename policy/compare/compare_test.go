package compare_test

import (
	"bytes"
	"context"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/credence-mesh/credence/internal/offline"
	"github.com/credence-mesh/credence/internal/settings"
	"github.com/credence-mesh/credence/policy/compare"
)

const base = `apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: orders, namespace: shop}
spec: {address: 127.0.0.9, serviceAccount: orders, ports: {http: 8080}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: default, namespace: istio-system}
spec: {mtls: {mode: STRICT}}
---
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: jwt, namespace: shop}
spec:
  jwtRules:
  - issuer: https://auth.example.com
    jwksUri: https://auth.example.com/jwks.json
---
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: orders, namespace: shop}
spec:
  rules:
  - from:
    - source: {principals: [cluster.local/ns/shop/sa/web]}
    to:
    - operation: {methods: [GET], paths: ["/orders/*"]}
  - to:
    - operation: {methods: [PUT], paths: ["/items"]}
    when:
    - {key: "request.auth.claims[role]", values: [admin]}
`

func open(t *testing.T, text string) *offline.Mesh {
	t.Helper()
	dir := t.TempDir()
	if err := os.WriteFile(filepath.Join(dir, "mesh.yaml"), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	m, problems, err := offline.Open(settings.Defaults(), dir)
	if err != nil || len(problems) > 0 {
		t.Fatal(err, problems)
	}
	return m
}

func TestSets(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name, old, new string
		want           []string // "effect caller request", in any order, among what changes
		none           bool     // nothing opens or closes
	}{
		{"nothing", "", "", nil, true},
		{"a narrower path", `"/orders/*"`, `"/orders/v1/*"`, []string{"closes spiffe://cluster.local/ns/shop/sa/web GET /orders/probe"}, false},
		{"a wider path", `"/orders/*"`, `"/*"`, []string{"opens spiffe://cluster.local/ns/shop/sa/web GET /probe"}, false},
		{"another caller", "sa/web]", "sa/job]", []string{
			"opens spiffe://cluster.local/ns/shop/sa/job GET /orders/probe", "closes spiffe://cluster.local/ns/shop/sa/web GET /orders/probe",
		}, false},
		{"a wildcard for a caller", "cluster.local/ns/shop/sa/web", "cluster.local/ns/shop/*", []string{"opens spiffe://cluster.local/ns/shop/sa/probe GET /orders/probe"}, false},
		{"another claim", "values: [admin]", "values: [admin, user]", []string{`"role":"user"`}, false},
		{"another method", "methods: [GET]", "methods: [GET, DELETE]", []string{"opens spiffe://cluster.local/ns/shop/sa/web DELETE /orders/probe"}, false},
		{"plaintext", "STRICT", "PERMISSIVE", []string{`opens plaintext token {"iss":"https://auth.example.com","role":"admin","sub":"probe"} PUT /items`}, false},
		{"another issuer", "issuer: https://auth.example.com\n", "issuer: https://new.example.com\n", []string{`"iss":"https://auth.example.com","role":"admin"`, `"iss":"https://new.example.com"`}, false},
		{"a new port", "{http: 8080}", "{http: 8080, http-more: 9090}", []string{"opens spiffe://cluster.local/ns/shop/sa/web GET /orders/probe"}, false},
		{"no workload", "name: orders, namespace: shop}\nspec: {address", "name: other, namespace: shop}\nspec: {address", []string{"closes spiffe://cluster.local/ns/shop/sa/web GET /orders/probe"}, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			changed := strings.Replace(base, tt.old, tt.new, 1)
			if tt.old != "" && changed == base {
				t.Fatalf("%q is not in the base", tt.old)
			}
			r, err := compare.Sets(context.Background(), open(t, base), open(t, changed))
			if err != nil {
				t.Fatal(err)
			}
			if r.Matters() == tt.none || r.Asked == 0 {
				t.Fatalf("asked %d: %+v", r.Asked, r.Changes)
			}
			var told []string
			for _, c := range r.Changes {
				for _, q := range c.Requests {
					told = append(told, c.Effect()+" "+c.Caller+" "+q)
				}
			}
			for _, want := range tt.want {
				if !slices.ContainsFunc(told, func(s string) bool { return strings.Contains(s, want) }) {
					t.Errorf("no %q in\n%s", want, strings.Join(told, "\n"))
				}
			}
		})
	}
}

func TestTable(t *testing.T) {
	t.Parallel()
	r, err := compare.Sets(context.Background(), open(t, base), open(t, strings.Replace(base, "methods: [GET]", "methods: [GET, DELETE]", 1)))
	if err != nil {
		t.Fatal(err)
	}
	var out bytes.Buffer
	if err := compare.Table(&out, r); err != nil {
		t.Fatal(err)
	}
	want := "opens   shop/orders  8080  spiffe://cluster.local/ns/shop/sa/web  DELETE /orders/probe, DELETE /orders/  deny 403  allow 200 (shop/orders rule 0)"
	if !strings.Contains(out.String(), want) {
		t.Errorf("got\n%s", &out)
	}
}
