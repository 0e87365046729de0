package translate

import (
	"fmt"
	"slices"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/compile"
	"github.com/credence-mesh/credence/xds/filter"
	"github.com/credence-mesh/credence/xds/patch"
	"github.com/credence-mesh/credence/xds/resource"
)

// Builder is the whole way from a Set to finished resources: compile, translate, patch, check, pack. It is safe for concurrent use.
type Builder struct {
	compiler *compile.Compiler
	tables   tables
}

// NewBuilder is a Builder that remembers nothing.
func NewBuilder() *Builder {
	return &Builder{compiler: compile.New(), tables: tables{last: map[tableKey]*packedTable{}}}
}

// Parts lists the parts of a workload.
func (b *Builder) Parts(set *policy.Set, w *policy.Workload) []compile.PartKey {
	return b.compiler.Parts(set, w)
}

// Affected tells what the changes from old to new touch. It may name too much, never too little.
func (b *Builder) Affected(old, new *policy.Set, changes []policy.Change) compile.Affected {
	return b.compiler.Affected(old, new, changes)
}

// Build makes all resources of a part. On an error nothing of it may be published.
func (b *Builder) Build(set *policy.Set, key compile.PartKey) ([]*resource.Resource, []policy.Problem, error) {
	messages, problems, err := b.messages(set, key)
	if err != nil {
		return nil, problems, fmt.Errorf("%s: %w", key, err)
	}
	slices.SortFunc(problems, policy.Problem.Compare)
	if err := b.tables.pack(key, messages.Tables); err != nil {
		return nil, problems, fmt.Errorf("%s: %w", key, err)
	}
	packed, err := messages.Pack()
	return packed, slices.Compact(problems), err
}

func (b *Builder) messages(set *policy.Set, key compile.PartKey) (*Resources, []policy.Problem, error) {
	part, problems := b.compiler.Build(set, key)
	if part == nil {
		return &Resources{}, problems, nil
	}
	messages, err := Part(part)
	if err != nil {
		return nil, problems, err
	}
	if err := Check(messages); err != nil {
		return nil, problems, fmt.Errorf("refused by the last check: %w", err)
	}
	messages, told := patch.Apply(messages, compile.PatchesOf(set, key), patch.Settings{
		Direction: part.Direction, RootNamespace: set.Mesh().RootNamespace, Check: Check, Weaker: Weaker,
		Limits: func() map[string][]filter.Limit { return limitsOf(set) },
	})
	return messages, append(problems, told...), nil
}
