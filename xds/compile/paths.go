package compile

import (
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/ir"
)

// pathsOf is how the mesh makes paths canonical.
func pathsOf(set *policy.Set) ir.Paths {
	switch set.Mesh().Paths() {
	case policy.NormalizationNone:
		return ir.PathsNone
	case policy.NormalizationBase:
		return ir.PathsBase
	case policy.NormalizationMergeSlashes:
		return ir.PathsMergeSlashes
	case policy.NormalizationDecodeAndMerge:
		return ir.PathsDecodeAndMerge
	default:
		return ir.PathsStrict
	}
}
