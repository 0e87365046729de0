// Package validate gathers everything that can be found wrong or surprising in resources without running them: it reads, lints, compiles and
// translates them as the control plane would.
package validate

import (
	"slices"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/limit"
	"github.com/credence-mesh/credence/policy/lint"
	"github.com/credence-mesh/credence/policy/opa"
	"github.com/credence-mesh/credence/policy/source/file"
	"github.com/credence-mesh/credence/snapshot"
	"github.com/credence-mesh/credence/xds/compile"
	"github.com/credence-mesh/credence/xds/translate"
)

// Paths finds what is wrong in files and directories. decision is the OPA decision of the settings.
func Paths(mesh policy.Mesh, decision string, paths ...string) ([]policy.Problem, error) {
	set, problems, err := file.Load(mesh, paths...)
	if err != nil {
		return nil, err
	}
	_, limits := limit.ConfigsIn(set)
	problems = append(problems, limits...)
	decisions, err := opa.New(opa.Options{Decision: decision}, prometheus.NewRegistry())
	if err != nil {
		return nil, err
	}
	problems = append(problems, decisions.Update(set)...)
	problems = append(problems, built(set)...)
	return Sorted(Merged(lint.Ignored(set, problems), lint.Set(set))), nil
}

// built finds what is wrong by building every part of every workload.
func built(set *policy.Set) []policy.Problem {
	b := translate.NewBuilder()
	done := map[compile.PartKey]bool{}
	var out []policy.Problem
	for w := range set.Workloads() {
		for _, k := range b.Parts(set, w) {
			if done[k] {
				continue
			}
			done[k] = true
			_, problems, err := b.Build(set, k)
			out = append(out, problems...)
			if err != nil {
				out = append(out, policy.Problem{
					At: w.Meta().At, Object: snapshot.PartName(k), Code: "BUILD_FAILED_WITHHELD", Says: err.Error(),
					Try: "correct the object that the error names",
				})
			}
		}
	}
	return out
}

// Sorted is problems in the order in which they are shown, each once.
func Sorted(problems []policy.Problem) []policy.Problem {
	problems = slices.Clone(problems)
	slices.SortFunc(problems, policy.Problem.Compare)
	return slices.Compact(problems)
}
