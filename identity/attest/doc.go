// Package attest is how a proxy proves who it is. It joins once with a single-use token and gets a channel credential: a client certificate
// of an authority that only the control plane trusts, bound to one workload. With it, or with an X.509-SVID of the mesh, it opens every
// later connection; FromContext tells a gRPC handler who its peer has proved to be.
package attest
