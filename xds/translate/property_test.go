package translate_test

import (
	"bytes"
	"math/rand/v2"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/compile"
	"github.com/credence-mesh/credence/xds/translate"
)

// TestOrderOfDocumentsDoesNotMatter writes the documents of every golden case in another order and expects the same bytes.
func TestOrderOfDocumentsDoesNotMatter(t *testing.T) {
	t.Parallel()
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, path := range cases {
		t.Run(filepath.Base(path), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			given, _ := split(archive)
			want := packages(t, given)
			for range 3 {
				if got := packages(t, shuffled(given)); !slices.Equal(got, want) {
					t.Fatalf("another order gives other resources:\n%s\nwant\n%s", strings.Join(got, "\n"), strings.Join(want, "\n"))
				}
			}
		})
	}
}

func shuffled(files []txtar.File) []txtar.File {
	var out []txtar.File
	for _, f := range files {
		if f.Name != "mesh.yaml" {
			docs := bytes.Split(f.Data, []byte("---\n"))
			rand.Shuffle(len(docs), func(i, j int) { docs[i], docs[j] = docs[j], docs[i] })
			f.Data = bytes.Join(docs, []byte("---\n"))
		}
		out = append(out, f)
	}
	return out
}

// packages is "part type name version" of everything, sorted.
func packages(t *testing.T, files []txtar.File) []string {
	t.Helper()
	set, problems := load(t, files)
	r := build(t, set, problems)
	var out []string
	for k, list := range r.parts {
		for _, m := range list {
			out = append(out, strings.Join([]string{k.String(), m.Type.String(), m.Name, m.Version}, " "))
		}
	}
	slices.Sort(out)
	return out
}

const policed = `
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: app-1, namespace: shop}
spec: {address: 127.0.1.1, serviceAccount: app, labels: {app: app}, ports: {http: 8080}}
`

const edited = `
apiVersion: security.istio.io/v1
kind: AuthorizationPolicy
metadata: {name: p, namespace: shop}
spec: {action: ACTION, rules: [{to: [{operation: {paths: [/a]}}]}]}
`

const authenticated = `
apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: p, namespace: shop}
spec: {jwtRules: [{issuer: "https://a.example.com", jwksUri: "https://a.example.com/keys", outputPayloadToHeader: HEADER}]}
`

const buffered = `
apiVersion: networking.istio.io/v1alpha3
kind: EnvoyFilter
metadata: {name: p, namespace: shop}
spec:
  configPatches:
  - applyTo: HTTP_FILTER
    match: {context: SIDECAR_INBOUND}
    patch:
      operation: INSERT_BEFORE
      value:
        name: envoy.filters.http.buffer
        typed_config: {"@type": type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer, max_request_bytes: BYTES}
`

// TestPolicyEditsChangeNoListener: the first policy, an edit of it and the last one going away touch extensions and routes alone. A listener
// that changes is drained, and drops connections.
func TestPolicyEditsChangeNoListener(t *testing.T) {
	t.Parallel()
	set := func(docs ...string) *policy.Set {
		s, problems := load(t, []txtar.File{{Name: "in.yaml", Data: []byte(strings.Join(docs, "\n---\n"))}})
		for _, p := range problems {
			if p.Severity == policy.Error {
				t.Fatal(p)
			}
		}
		return s
	}
	deny, allow, custom := strings.ReplaceAll(edited, "ACTION", "DENY"), strings.ReplaceAll(edited, "ACTION", "ALLOW"), strings.ReplaceAll(edited, "ACTION", "CUSTOM, provider: {name: opa}")
	for _, c := range []struct{ name, from, to string }{
		{"first deny", "", deny}, {"deny becomes allow", deny, allow}, {"allow becomes custom", allow, custom}, {"last goes", custom, ""},
		{"first issuer", "", strings.ReplaceAll(authenticated, "HEADER", "x-a")},
		{"issuer edited", strings.ReplaceAll(authenticated, "HEADER", "x-a"), strings.ReplaceAll(authenticated, "HEADER", "x-b")},
		{"inserted filter edited", strings.ReplaceAll(buffered, "BYTES", "1"), strings.ReplaceAll(buffered, "BYTES", "2")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			old, next := set(policed, c.from), set(policed, c.to)
			b := translate.NewBuilder()
			key := compile.PartKey{Kind: compile.InboundPart, Namespace: "shop", Name: "app-1"}
			if a := b.Affected(old, next, policy.Diff(old, next)); !a.Parts[key] && !a.Inbound {
				t.Errorf("the part is not among what is affected: %+v", a)
			}
			before, after := versions(t, b, old, key), versions(t, b, next, key)
			changed := false
			for name, v := range after {
				if before[name] != v {
					changed = true
					if !strings.HasPrefix(name, "ecds ") && !strings.HasPrefix(name, "rds ") {
						t.Errorf("%s changed", name)
					}
				}
			}
			if !changed {
				t.Error("nothing changed at all")
			}
		})
	}
}

func versions(t testing.TB, b *translate.Builder, set *policy.Set, key compile.PartKey) map[string]string {
	t.Helper()
	list, _, err := b.Build(set, key)
	if err != nil {
		t.Fatal(err)
	}
	out := map[string]string{}
	for _, r := range list {
		out[r.Type.String()+" "+r.Name] = r.Version
	}
	return out
}
