package jwks

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/credence-mesh/credence/policy/jwt"
)

// store keeps the last good keys of each place in a directory. They are public; nobody else may write them.
type store struct{ dir string }

// kept is a file of the store.
type kept struct {
	URI      string    `json:"uri"`
	Fetched  time.Time `json:"fetched"`
	Document string    `json:"document"`
}

func (s store) file(uri string) string {
	sum := sha256.Sum256([]byte(uri))
	return filepath.Join(s.dir, hex.EncodeToString(sum[:])+".json")
}

// load is what was kept; a file that is missing, damaged or of another place is as good as none.
func (s store) load(uri string) known {
	if s.dir == "" {
		return known{}
	}
	f, err := os.Open(s.file(uri))
	if err != nil {
		return known{}
	}
	defer func() { _ = f.Close() }() // only read
	b, err := bounded(f)
	if err != nil {
		return known{}
	}
	var k kept
	if err := json.Unmarshal(b, &k); err != nil || k.URI != uri || k.Fetched.After(time.Now()) {
		return known{}
	}
	document, err := jwt.PublicKeys([]byte(k.Document))
	if err != nil {
		return known{}
	}
	return known{document: document, fetched: k.Fetched, saved: k.Fetched}
}

// save replaces the file of a place in one step.
func (s store) save(uri string, k known) (err error) {
	if s.dir == "" {
		return nil
	}
	b, err := json.Marshal(kept{URI: uri, Fetched: k.fetched, Document: k.document})
	if err != nil {
		return err
	}
	if err := os.MkdirAll(s.dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(s.dir, ".new-*")
	if err != nil {
		return err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, os.Remove(f.Name()))
		}
	}()
	_, err = f.Write(b)
	if err = errors.Join(err, f.Sync(), f.Close()); err != nil {
		return fmt.Errorf("%s: %w", f.Name(), err)
	}
	return os.Rename(f.Name(), s.file(uri))
}
