// Package envoy finds an Envoy binary of a supported version and runs it as a child that dies with its parent. The companion and the
// tests share it, so both run Envoy in the same way.
package envoy

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"time"
)

// The supported versions are 1.OldestMinor to 1.NewestMinor; hack/fetch-envoy has the same list.
const (
	OldestMinor = 37
	NewestMinor = 40
)

// ErrNotFound says that there is no Envoy of a supported version where Locate looks.
var ErrNotFound = errors.New("no supported Envoy found")

// Version is an Envoy version.
type Version struct{ Major, Minor, Patch int }

// String is "1.40.0".
func (v Version) String() string { return fmt.Sprintf("%d.%d.%d", v.Major, v.Minor, v.Patch) }

// Supported tells whether Credence is tested with this version.
func (v Version) Supported() bool {
	return v.Major == 1 && v.Minor >= OldestMinor && v.Minor <= NewestMinor
}

// Binary is an Envoy that Locate found.
type Binary struct {
	Path    string
	Version Version
}

// Locate finds Envoy: named is a path that the user gave (the flag or ENVOY_PATH) and must be good when it is not empty; then the `envoy`
// on PATH if its version is supported; then what `make envoy` fetched, looked for upwards from the working directory.
func Locate(ctx context.Context, named string) (Binary, error) {
	if named != "" {
		return probe(ctx, named)
	}
	var tried []error
	for _, path := range candidates() {
		b, err := probe(ctx, path)
		if err == nil {
			return b, nil
		}
		tried = append(tried, err)
	}
	return Binary{}, errors.Join(append([]error{fmt.Errorf(
		"%w: install Envoy 1.%d to 1.%d, set ENVOY_PATH, or run `make envoy` in a checkout", ErrNotFound, OldestMinor, NewestMinor)}, tried...)...)
}

func candidates() []string {
	var paths []string
	if p, err := exec.LookPath("envoy"); err == nil {
		paths = append(paths, p)
	}
	dir, err := os.Getwd()
	if err != nil {
		return paths
	}
	for {
		// Only a checkout has a trusted .tools: a directory above that merely contains one is somebody else's.
		if _, err := os.Stat(filepath.Join(dir, "go.mod")); err == nil {
			if p := filepath.Join(dir, ".tools", "envoy"); isFile(p) {
				paths = append(paths, p)
			}
			return paths
		}
		if parent := filepath.Dir(dir); parent != dir {
			dir = parent
			continue
		}
		return paths
	}
}

func isFile(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.Mode().IsRegular()
}

func probe(ctx context.Context, path string) (Binary, error) {
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	var out bytes.Buffer
	cmd := exec.CommandContext(ctx, path, "--version")
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		return Binary{}, fmt.Errorf("%s --version: %w", path, err)
	}
	v, err := ParseVersion(out.String())
	if err != nil {
		return Binary{}, fmt.Errorf("%s: %w", path, err)
	}
	if !v.Supported() {
		return Binary{}, fmt.Errorf("%s is Envoy %s; 1.%d to 1.%d are supported", path, v, OldestMinor, NewestMinor)
	}
	return Binary{Path: path, Version: v}, nil
}

var versionLine = regexp.MustCompile(`version: [0-9a-f]+/(\d+)\.(\d+)\.(\d+)(?:-[^/]*)?/`)

// ParseVersion reads what `envoy --version` prints: "envoy  version: <commit>/1.40.0/Clean/RELEASE/BoringSSL".
func ParseVersion(printed string) (Version, error) {
	m := versionLine.FindStringSubmatch(printed)
	if m == nil {
		return Version{}, fmt.Errorf("not an Envoy version: %.80q", strings.TrimSpace(printed))
	}
	var n [3]int
	for i, s := range m[1:] {
		v, err := strconv.Atoi(s)
		if err != nil {
			return Version{}, fmt.Errorf("not an Envoy version: %w", err)
		}
		n[i] = v
	}
	return Version{n[0], n[1], n[2]}, nil
}
