package policy

import "testing"

func TestPaths(t *testing.T) {
	t.Parallel()
	for _, tt := range []struct {
		name    string
		profile Profile
		said    Normalization
		want    Normalization
	}{
		{"nothing said", "", "", NormalizationStrict},
		{"strict", ProfileStrict, "", NormalizationStrict},
		{"istio", ProfileIstio, "", NormalizationBase},
		{"Istio's default by name", ProfileStrict, NormalizationDefault, NormalizationBase},
		{"said under strict", ProfileStrict, NormalizationNone, NormalizationNone},
		{"said under istio", ProfileIstio, NormalizationStrict, NormalizationStrict},
		{"unknown", ProfileIstio, "LOOSE", NormalizationStrict},
	} {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			m := Mesh{Profile: tt.profile, PathNormalization: PathNormalization{Normalization: tt.said}}
			if got := m.Paths(); got != tt.want {
				t.Errorf("got %s, want %s", got, tt.want)
			}
		})
	}
}
