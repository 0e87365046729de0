// Package mint writes an X.509-SVID to files, for operators and tests.
package mint

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
)

// The files that Write writes.
const (
	SVIDFile   = "svid.pem"   // the certificate and its intermediate
	KeyFile    = "key.pem"    // PKCS #8, readable by its owner only
	BundleFile = "bundle.pem" // the roots of the mesh
)

// file is one file, on the disk under a temporary name.
type file struct{ temp, target string }

// Write makes the directory where there is none and puts the three files into it. None is replaced before all are on the disk, and each is
// replaced as a whole.
func Write(dir string, svid *x509svid.SVID, bundle *x509bundle.Bundle) error {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return fmt.Errorf("svid: %w", err)
	}
	chain, key, err := svid.Marshal()
	if err != nil {
		return fmt.Errorf("svid: %w", err)
	}
	roots, err := bundle.Marshal()
	if err != nil {
		return fmt.Errorf("svid: %w", err)
	}
	var files []file
	defer func() {
		for _, f := range files {
			_ = os.Remove(f.temp) // what was renamed is not there any more
		}
	}()
	for _, f := range []struct {
		name    string
		content []byte
		mode    os.FileMode
	}{{BundleFile, roots, 0o644}, {KeyFile, key, 0o600}, {SVIDFile, chain, 0o644}} {
		files = append(files, file{filepath.Join(dir, ".new-"+rand.Text()), filepath.Join(dir, f.name)})
		if err := put(files[len(files)-1].temp, f.content, f.mode); err != nil {
			return fmt.Errorf("svid: %w", err)
		}
	}
	for _, f := range files {
		if err := os.Rename(f.temp, f.target); err != nil {
			return fmt.Errorf("svid: %w", err)
		}
	}
	return flush(dir)
}

func put(path string, content []byte, mode os.FileMode) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, mode)
	if err != nil {
		return err
	}
	_, err = f.Write(content)
	return errors.Join(err, f.Sync(), f.Close())
}

func flush(dir string) error {
	f, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("svid: %w", err)
	}
	return errors.Join(f.Sync(), f.Close())
}
