package policy

// Profile decides where safety and Istio's verdict differ. The zero value is ProfileStrict.
type Profile string

// The profiles of credence.yaml.
const (
	ProfileStrict Profile = "strict" // what two servers could read differently is refused; the default
	ProfileIstio  Profile = "istio"  // Istio's verdict, also where it is the less safe one
)

// Istio tells whether Istio's verdict is wanted where safety would have another.
func (p Profile) Istio() bool { return p == ProfileIstio }

// Valid tells whether the profile is one that we know; the empty one stands for the default.
func (p Profile) Valid() bool { return p == "" || p == ProfileStrict || p == ProfileIstio }

// PathNormalization is Istio's MeshConfig.pathNormalization.
type PathNormalization struct {
	// Normalization is NONE, BASE, MERGE_SLASHES, DECODE_AND_MERGE_SLASHES, DEFAULT (Istio's: BASE), or STRICT, which Istio lacks. Empty: STRICT
	// under profile strict, BASE under profile istio.
	Normalization Normalization `json:"normalization"`
}

// Normalization is how far the path of a request is made canonical before any rule sees it.
type Normalization string

// The normalizations. All but NormalizationStrict are Istio's.
const (
	NormalizationStrict         Normalization = "STRICT" // MERGE_SLASHES, and what is still ambiguous after it is answered with 400
	NormalizationDefault        Normalization = "DEFAULT"
	NormalizationNone           Normalization = "NONE"
	NormalizationBase           Normalization = "BASE"
	NormalizationMergeSlashes   Normalization = "MERGE_SLASHES"
	NormalizationDecodeAndMerge Normalization = "DECODE_AND_MERGE_SLASHES"
)

// Valid tells whether the normalization is one that we know; the empty one stands for the default.
func (n Normalization) Valid() bool {
	switch n {
	case "", NormalizationStrict, NormalizationDefault, NormalizationNone, NormalizationBase, NormalizationMergeSlashes, NormalizationDecodeAndMerge:
		return true
	default:
		return false
	}
}

// Paths is the normalization in force: what is said, or else the default of the profile. What nobody knows counts as STRICT.
func (m Mesh) Paths() Normalization {
	switch n := m.PathNormalization.Normalization; {
	case n == NormalizationDefault, n == "" && m.Profile.Istio():
		return NormalizationBase
	case n == "" || !n.Valid():
		return NormalizationStrict
	default:
		return n
	}
}
