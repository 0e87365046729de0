package limit

import (
	"context"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// anybody lets every caller ask about everything, as one workload. Who may in production is tested in callers_test.go.
var anybody = identity.Callers{
	Authenticate: func(context.Context) (identity.Proven, error) {
		return identity.Proven{Workload: identity.Workload{Namespace: "a", Name: "gateway"}}, nil
	},
	May: func(context.Context, identity.Workload, string) bool { return true },
}

func rateLimit(name, text string) *policy.RateLimit {
	return &policy.RateLimit{
		Object: policy.Object{Key: policy.Key{Kind: policy.KindRateLimit, Name: name}, At: policy.Origin{File: name + ".yaml", Line: 1}},
		Config: text,
	}
}

func setOf(objects ...policy.Resource) *policy.Set {
	return policy.NewSet(policy.DefaultMesh()).Apply(objects, nil)
}

// seed reads a file of the seeds, and skips the test where they are not at hand.
func seed(t *testing.T, path string) string {
	t.Helper()
	for _, root := range []string{"../../../shared/seeds", "../../shared/seeds"} {
		if b, err := os.ReadFile(filepath.Join(root, path)); err == nil {
			return string(b)
		}
	}
	t.Skipf("the seeds are not beside this repository: no %s", path)
	return ""
}
