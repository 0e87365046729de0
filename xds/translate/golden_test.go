package translate_test

import (
	"bytes"
	"cmp"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"
	"google.golang.org/protobuf/encoding/protojson"
	"sigs.k8s.io/yaml"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/source/file"
	"github.com/credence-mesh/credence/xds/compile"
	"github.com/credence-mesh/credence/xds/resource"
	"github.com/credence-mesh/credence/xds/translate"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// TestGolden compiles what a user wrote, and compares all that Envoy gets, and all problems told, with what stands in the same file. Real
// Envoy validates every case.
func TestGolden(t *testing.T) {
	t.Parallel()
	cases, err := filepath.Glob("testdata/*.txtar")
	if err != nil || len(cases) == 0 {
		t.Fatalf("no golden files: %v", err)
	}
	for _, path := range cases {
		t.Run(strings.TrimSuffix(filepath.Base(path), ".txtar"), func(t *testing.T) {
			t.Parallel()
			archive, err := txtar.ParseFile(path)
			if err != nil {
				t.Fatal(err)
			}
			given, _ := split(archive)
			set, problems := load(t, given)
			built := build(t, set, problems)
			got := built.render(t)
			if *update {
				out := &txtar.Archive{Comment: archive.Comment, Files: append(slices.Clone(given), got...)}
				if err := os.WriteFile(path, txtar.Format(out), 0o600); err != nil {
					t.Fatal(err)
				}
			} else {
				compare(t, archive, got)
			}
			for _, w := range built.workloads {
				envoytest.Validate(t, bootstrap(t, built.of(w)))
			}
		})
	}
}

// split tells what a user wrote from what was made of it, below want/.
func split(a *txtar.Archive) (given, want []txtar.File) {
	for _, f := range a.Files {
		if strings.HasPrefix(f.Name, "want/") {
			want = append(want, f)
		} else {
			given = append(given, f)
		}
	}
	return given, want
}

func compare(t *testing.T, a *txtar.Archive, got []txtar.File) {
	t.Helper()
	_, want := split(a)
	have := map[string][]byte{}
	for _, f := range want {
		have[f.Name] = f.Data
	}
	for _, f := range got {
		if w, ok := have[f.Name]; !ok {
			t.Errorf("%s is new", f.Name)
		} else if !bytes.Equal(w, f.Data) {
			t.Errorf("%s differs: run with -update and read the diff", f.Name)
		}
		delete(have, f.Name)
	}
	for name := range have {
		t.Errorf("%s is no longer made", name)
	}
}

// load writes documents to a directory and reads them as the product does. mesh.yaml is the mesh's own settings.
func load(t testing.TB, files []txtar.File) (*policy.Set, []policy.Problem) {
	t.Helper()
	return loadIn(t, t.TempDir(), files)
}

// loadIn is load with a directory of the caller's: an object that is written elsewhere counts as changed.
func loadIn(t testing.TB, dir string, files []txtar.File) (*policy.Set, []policy.Problem) {
	t.Helper()
	mesh := policy.DefaultMesh()
	for _, f := range files {
		if f.Name == "mesh.yaml" {
			if err := yaml.UnmarshalStrict(f.Data, &mesh); err != nil {
				t.Fatal(err)
			}
			continue
		}
		if f.Name == "profile" {
			mesh.Profile = policy.Profile(bytes.TrimSpace(f.Data))
			continue
		}
		if err := os.WriteFile(filepath.Join(dir, f.Name), f.Data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	set, problems, err := file.Load(mesh, dir)
	if err != nil {
		t.Fatal(err)
	}
	return set, problems
}

// relative names a problem's file as the golden file does.
func relative(p policy.Problem) policy.Problem {
	p.At.File = filepath.Base(p.At.File)
	return p
}

// result is everything that was made of a Set.
type result struct {
	workloads []*policy.Workload
	parts     map[compile.PartKey][]*resource.Resource
	keys      map[string][]compile.PartKey // by workload
	problems  []policy.Problem
}

func build(t testing.TB, set *policy.Set, problems []policy.Problem) *result {
	t.Helper()
	b := translate.NewBuilder()
	r := &result{parts: map[compile.PartKey][]*resource.Resource{}, keys: map[string][]compile.PartKey{}, problems: slices.Clone(problems)}
	for w := range set.Workloads() {
		r.workloads = append(r.workloads, w)
		r.keys[w.String()] = b.Parts(set, w)
		for _, k := range r.keys[w.String()] {
			if _, done := r.parts[k]; done {
				continue
			}
			made, told, err := b.Build(set, k)
			if err != nil {
				t.Fatal(err)
			}
			r.parts[k] = made
			r.problems = append(r.problems, told...)
		}
	}
	slices.SortFunc(r.problems, policy.Problem.Compare)
	r.problems = slices.Compact(r.problems)
	return r
}

// of is all resources of a workload.
func (r *result) of(w *policy.Workload) []*resource.Resource {
	var out []*resource.Resource
	for _, k := range r.keys[w.String()] {
		out = append(out, r.parts[k]...)
	}
	return out
}

// render gives one file a part and type, and one for the problems.
func (r *result) render(t testing.TB) []txtar.File {
	t.Helper()
	var out []txtar.File
	var told bytes.Buffer
	for _, p := range r.problems {
		told.WriteString(relative(p).String() + "\n")
	}
	if told.Len() > 0 {
		out = append(out, txtar.File{Name: "want/problems", Data: told.Bytes()})
	}
	keys := slices.SortedFunc(maps.Keys(r.parts), func(a, b compile.PartKey) int { return cmp.Compare(a.String(), b.String()) })
	for _, k := range keys {
		byType := map[resource.Type]*bytes.Buffer{}
		for _, m := range r.parts[k] {
			if byType[m.Type] == nil {
				byType[m.Type] = &bytes.Buffer{}
			}
			byType[m.Type].WriteString("---\n")
			byType[m.Type].Write(asYAML(t, m))
		}
		for kind := range resource.NumTypes {
			if b := byType[kind]; b != nil {
				out = append(out, txtar.File{Name: "want/" + k.String() + "/" + kind.String() + ".yaml", Data: b.Bytes()})
			}
		}
	}
	return out
}

func asYAML(t testing.TB, r *resource.Resource) []byte {
	t.Helper()
	m, err := r.Body.UnmarshalNew()
	if err != nil {
		t.Fatal(err)
	}
	text, err := protojson.MarshalOptions{UseProtoNames: true}.Marshal(m)
	if err != nil {
		t.Fatal(err)
	}
	out, err := yaml.JSONToYAML(text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}
