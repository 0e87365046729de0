package translate_test

import (
	"bytes"
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/compile"
	"github.com/credence-mesh/credence/xds/translate"
)

// TestAffectedNamesEnough takes each document of every golden case away, and puts it back: whatever then differs must have been named by
// Affected, or proxies would keep what is no longer true.
func TestAffectedNamesEnough(t *testing.T) {
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
			dir := t.TempDir()
			full, _ := loadIn(t, dir, given)
			for i, f := range given {
				docs := bytes.Split(f.Data, []byte("---\n"))
				if f.Name == "mesh.yaml" {
					continue
				}
				for n := range docs {
					files := slices.Clone(given)
					files[i].Data = bytes.Join(slices.Delete(slices.Clone(docs), n, n+1), []byte("---\n"))
					less, _ := loadIn(t, dir, files)
					enough(t, fmt.Sprintf("without document %d", n), full, less)
					enough(t, fmt.Sprintf("with document %d", n), less, full)
				}
			}
		})
	}
}

func enough(t *testing.T, what string, old, next *policy.Set) {
	t.Helper()
	b := translate.NewBuilder()
	a := b.Affected(old, next, policy.Diff(old, next))
	before, after := partsOf(b, old), partsOf(b, next)
	for k := range after {
		if !slices.Equal(before[k], after[k]) && !a.Workloads[k] {
			t.Errorf("%s: the parts of %s differ, and it is not named", what, k)
		}
	}
	for k := range before {
		if _, stays := after[k]; !stays && !a.Workloads[k] {
			t.Errorf("%s: %s is gone, and it is not named", what, k)
		}
	}
	for _, list := range after {
		for _, k := range list {
			if a.Touches(k) {
				continue
			}
			if !maps.Equal(versions(t, b, old, k), versions(t, b, next, k)) {
				t.Errorf("%s: %s differs, and it is not named", what, k)
			}
		}
	}
}

func partsOf(b *translate.Builder, set *policy.Set) map[policy.Key][]compile.PartKey {
	out := map[policy.Key][]compile.PartKey{}
	for w := range set.Workloads() {
		out[w.Meta().Key] = b.Parts(set, w)
	}
	return out
}
