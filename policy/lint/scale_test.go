package lint_test

import (
	"fmt"
	"strings"
	"testing"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/kinds"
	"github.com/credence-mesh/credence/policy/lint"
)

// BenchmarkManyPolicies lints 2,000 policies of one namespace, which is the dear case: each is compared with all that may cover it.
func BenchmarkManyPolicies(b *testing.B) {
	var text strings.Builder
	for i := range 2000 {
		text.WriteString(authorization(fmt.Sprintf("p%d", i), fmt.Sprintf(
			"selector: {matchLabels: {app: a%d}}, rules: [{from: [{source: {principals: [cluster.local/ns/shop/sa/s%d]}}], to: [{operation: {paths: [/a%d/*], methods: [GET]}}]}]", i%100, i, i)))
	}
	set := policy.NewSet(policy.DefaultMesh()).Apply(kinds.Decode("f.yaml", "f.yaml", []byte(text.String())).Objects, nil)
	for b.Loop() {
		if found := lint.Set(set); len(found) == 0 {
			b.Fatal("nothing was found")
		}
	}
}
