// Package demo is the story that `make demo` plays: a gateway and three sidecars on real Envoys, small back ends, a token issuer, and a table
// of what was tried, expected and seen. The mesh directory beside this file is all that a user would have to write.
package demo

import (
	"embed"
	"io/fs"
	"os"
	"path/filepath"
)

//go:embed mesh
var meshFiles embed.FS

// The addresses that the files of the mesh directory name.
const (
	gatewayAddr      = "127.0.0.1:24443"
	orderInbound     = "127.0.0.1:24101"
	paymentInbound   = "127.0.0.1:24102"
	intruderInbound  = "127.0.0.1:24103"
	orderBackend     = "127.0.0.1:24201"
	paymentBackend   = "127.0.0.1:24202"
	intruderBackend  = "127.0.0.1:24203"
	orderEgress      = "127.0.0.1:24301"
	paymentEgress    = "127.0.0.1:24302"
	intruderEgress   = "127.0.0.1:24303"
	issuerName       = "https://auth.example.com"
	issuerKeysURI    = "https://auth.example.com/.well-known/jwks.json"
	audience         = "api.example.com"
	gatewayWorkload  = "production/edge"
	orderWorkload    = "production/order-1"
	paymentWorkload  = "production/payment-1"
	intruderWorkload = "production/intruder-1"
)

// copyMesh writes the files of the mesh directory to dir, where the story edits them.
func copyMesh(dir string) error {
	return fs.WalkDir(meshFiles, "mesh", func(path string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := meshFiles.ReadFile(path)
		if err != nil {
			return err
		}
		return os.WriteFile(filepath.Join(dir, filepath.Base(path)), data, 0o600)
	})
}
