// Package attestv1 is the protocol between a proxy that joins the mesh and the control plane, generated from attest.proto.
package attestv1

//go:generate ./generate.sh
