package file

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/credence-mesh/credence/policy"
)

// seedsDir is where the articles' files lie beside a development checkout; elsewhere the test is skipped.
func seedsDir(t *testing.T) string {
	dir := filepath.Join("..", "..", "..", "..", "shared", "seeds")
	if _, err := os.Stat(dir); err != nil {
		t.Skip("the seeds are not beside this checkout")
	}
	return dir
}

func TestSeedsAreAcceptedVerbatim(t *testing.T) {
	t.Parallel()
	set, problems, err := Load(policy.DefaultMesh(), seedsDir(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, p := range problems {
		if p.Severity == policy.Error {
			t.Errorf("refused: %s", p)
		} else {
			t.Log(p)
		}
	}
	if set.Len() != 21 {
		t.Errorf("%d objects, want 21", set.Len())
	}
}
