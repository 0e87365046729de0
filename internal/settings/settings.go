// Package settings is credence.yaml: what is said once for the process and the mesh, beside the directory of resources.
package settings

import (
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/strict"
)

// Settings is the whole file. Every field may be left out.
type Settings struct {
	// Profile is strict (the default) or istio: what happens where safety and Istio's verdict differ. It is carried in Mesh.
	Profile  policy.Profile `json:"profile"`
	Mesh     policy.Mesh    `json:"mesh"`
	JWKS     []JWKS         `json:"jwks"`
	Server   Server         `json:"server"`
	Identity Identity       `json:"identity"`
	OPA      OPA            `json:"opa"`
	Log      Log            `json:"log"`
}

// JWKS says where the keys of a jwksUri really come from: a file, or another URL; for air-gapped use, and for issuers behind a private CA.
type JWKS struct {
	URI    string `json:"uri"`    // as the RequestAuthentication has it
	File   string `json:"file"`   // relative to credence.yaml
	URL    string `json:"url"`    // fetched instead of uri; may be an internal address, because you said so here
	CAFile string `json:"caFile"` // PEM bundle that the server's certificate must chain to; relative to credence.yaml
}

// Server is how proxies reach us.
type Server struct {
	Names []string `json:"names"` // DNS names and IP addresses of the server certificate, beside localhost and the loopback addresses
}

// Identity is the lifetime of what we issue.
type Identity struct {
	SVIDTTL       time.Duration `json:"svidTTL"`       // default 1h; rotated at half life
	CredentialTTL time.Duration `json:"credentialTTL"` // the longest channel credential that a bootstrap may ask for; default 2160h (90 days)
}

// OPA is the embedded decision service.
type OPA struct {
	Decision string `json:"decision"` // the rule that decides: "envoy/authz/allow"; default: the one package that has an `allow`, envoy.authz first
}

// Log is what is logged.
type Log struct {
	Level  string            `json:"level"`  // debug, info (default), warn, error
	Levels map[string]string `json:"levels"` // of single components
}

// Defaults are the settings of an empty file.
func Defaults() Settings {
	return Settings{
		Mesh:     policy.DefaultMesh(),
		Identity: Identity{SVIDTTL: time.Hour, CredentialTTL: 90 * 24 * time.Hour},
		Log:      Log{Level: "info"},
	}
}

// Load reads a settings file; an empty path gives the defaults. Problems that are errors mean that the settings must not be used.
func Load(path string) (Settings, []policy.Problem, error) {
	s := Defaults()
	if path == "" {
		return s, nil, nil
	}
	data, err := os.ReadFile(path)
	if err != nil {
		return s, nil, fmt.Errorf("settings: %w", err)
	}
	problems := strict.File(path, data, &s)
	s.Mesh.Profile = s.Profile
	problems = append(problems, s.check(path)...)
	dir := filepath.Dir(path)
	for i := range s.JWKS {
		s.JWKS[i].File = beside(dir, s.JWKS[i].File)
		s.JWKS[i].CAFile = beside(dir, s.JWKS[i].CAFile)
	}
	return s, problems, nil
}

func beside(dir, file string) string {
	if file == "" || filepath.IsAbs(file) {
		return file
	}
	return filepath.Join(dir, file)
}

// The bounds of lifetimes: below, rotation would be all that we do; above, a stolen key lives too long.
const (
	minSVIDTTL       = 10 * time.Second
	maxSVIDTTL       = 24 * time.Hour
	maxCredentialTTL = 366 * 24 * time.Hour
)

func (s *Settings) check(path string) []policy.Problem {
	var out []policy.Problem
	bad := func(field, says, try string) {
		out = append(out, policy.Problem{At: policy.Origin{File: path}, Object: "credence.yaml", Field: field, Code: "SETTING_INVALID", Says: says, Try: try})
	}
	if _, err := spiffeid.TrustDomainFromString(s.Mesh.TrustDomain); err != nil {
		bad("mesh.trustDomain", err.Error(), "a DNS-like name in lower case, such as example.org")
	}
	if !s.Profile.Valid() {
		bad("profile", fmt.Sprintf("there is no profile %q", s.Profile), "strict or istio")
	}
	if n := s.Mesh.PathNormalization.Normalization; !n.Valid() {
		bad("mesh.pathNormalization.normalization", fmt.Sprintf("there is no normalization %q", n), "STRICT, NONE, BASE, MERGE_SLASHES or DECODE_AND_MERGE_SLASHES")
	}
	for i, j := range s.JWKS {
		field := fmt.Sprintf("jwks[%d]", i)
		if j.URI == "" {
			bad(field+".uri", "no uri: which jwksUri is meant?", "the jwksUri as the RequestAuthentication has it")
		}
		if (j.File == "") == (j.URL == "") {
			bad(field, "needs either file or url", "file: keys.json")
		}
	}
	if d := s.Identity.SVIDTTL; d < minSVIDTTL || d > maxSVIDTTL {
		bad("identity.svidTTL", fmt.Sprintf("%s is not between %s and %s", d, minSVIDTTL, maxSVIDTTL), "1h")
	}
	if d := s.Identity.CredentialTTL; d < time.Minute || d > maxCredentialTTL {
		bad("identity.credentialTTL", fmt.Sprintf("%s is not between 1m and %s", d, maxCredentialTTL), "2160h")
	}
	return out
}
