package attest

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"net"
	"time"

	"github.com/spiffe/go-spiffe/v2/svid/x509svid"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/attest/attestv1"
)

// ErrNotProven says that the peer showed no certificate.
var ErrNotProven = errors.New("the peer did not prove who it is: a client certificate is needed")

// proof is the authenticated peer of a connection. Only the handshake below makes one.
type proof struct {
	credentials.TLSInfo
	proven identity.Proven
	leaf   *x509.Certificate // nil where the peer showed no certificate
}

// serverCredentials verifies every client by Trust. A client without a certificate gets in, as nobody: the interceptors let it Join only.
type serverCredentials struct {
	credentials.TransportCredentials
	config *tls.Config
	trust  Trust
}

// Credentials are the transport credentials of the control plane's gRPC server. svid is its own identity and is asked for at every handshake.
func Credentials(svid x509svid.Source, trust Trust) credentials.TransportCredentials {
	config := &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"h2"},
		ClientAuth: tls.RequestClientCert, // verified by VerifyConnection, against what is trusted now
		// A resumed session would carry what was verified before: every connection is verified anew.
		SessionTicketsDisabled: true,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
			return serverCertificate(svid, trust)
		},
	}
	return &serverCredentials{TransportCredentials: credentials.NewTLS(config), config: config, trust: trust}
}

// serverCertificate includes the roots of the mesh: a proxy that joins knows only the fingerprint of one.
func serverCertificate(source x509svid.Source, trust Trust) (*tls.Certificate, error) {
	svid, err := source.GetX509SVID()
	if err != nil {
		return nil, err
	}
	bundle, err := trust.Mesh.GetX509BundleForTrustDomain(trust.Domain)
	if err != nil {
		return nil, err
	}
	cert := &tls.Certificate{PrivateKey: svid.PrivateKey, Leaf: svid.Certificates[0]}
	for _, c := range svid.Certificates {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	for _, c := range bundle.X509Authorities() {
		cert.Certificate = append(cert.Certificate, c.Raw)
	}
	return cert, nil
}

// ServerHandshake proves who the client is.
func (c *serverCredentials) ServerHandshake(raw net.Conn) (net.Conn, credentials.AuthInfo, error) {
	var p proof
	config := c.config.Clone()
	config.VerifyConnection = func(cs tls.ConnectionState) (err error) {
		if len(cs.PeerCertificates) == 0 {
			return nil
		}
		p.proven, err = c.trust.Verify(cs.PeerCertificates)
		p.leaf = cs.PeerCertificates[0]
		return err
	}
	conn, info, err := credentials.NewTLS(config).ServerHandshake(raw)
	if err != nil {
		return nil, nil, err
	}
	tlsInfo, ok := info.(credentials.TLSInfo)
	if !ok {
		_ = conn.Close()
		return nil, nil, errors.New("the handshake was not TLS")
	}
	p.TLSInfo = tlsInfo
	return conn, p, nil
}

// Clone makes a copy, as gRPC wants.
func (c *serverCredentials) Clone() credentials.TransportCredentials {
	return &serverCredentials{TransportCredentials: c.TransportCredentials.Clone(), config: c.config.Clone(), trust: c.trust}
}

// FromContext is who the peer of a gRPC call has proved to be in its handshake.
func FromContext(ctx context.Context) (identity.Proven, error) {
	p, err := proofOf(ctx)
	return p.proven, err
}

func proofOf(ctx context.Context) (proof, error) {
	peer, ok := peer.FromContext(ctx)
	if !ok {
		return proof{}, ErrNotProven
	}
	p, ok := peer.AuthInfo.(proof)
	if !ok || p.leaf == nil {
		return proof{}, ErrNotProven
	}
	return p, nil
}

// guard refuses calls of peers that have not proved, or no longer prove, who they are. Join alone needs no proof: its token is one.
func (t Trust) guard(ctx context.Context, method string) error {
	if method == attestv1.Attestation_Join_FullMethodName {
		return nil
	}
	p, err := FromContext(ctx)
	switch {
	case err != nil:
		return status.Error(codes.Unauthenticated, err.Error())
	case time.Now().After(p.NotAfter):
		return status.Errorf(codes.Unauthenticated, "the certificate of %s has ended: connect anew", p.ID)
	case t.Revoked != nil && t.Revoked(p):
		return status.Errorf(codes.PermissionDenied, "the certificate of %s was revoked", p.ID)
	}
	return nil
}

// Unary guards every unary method of a server.
func (t Trust) Unary(ctx context.Context, req any, info *grpc.UnaryServerInfo, next grpc.UnaryHandler) (any, error) {
	if err := t.guard(ctx, info.FullMethod); err != nil {
		return nil, err
	}
	return next(ctx, req)
}

// Stream guards every streaming method of a server, at its beginning: a stream that lives on is closed by its handler at Proven.NotAfter.
func (t Trust) Stream(srv any, stream grpc.ServerStream, info *grpc.StreamServerInfo, next grpc.StreamHandler) error {
	if err := t.guard(stream.Context(), info.FullMethod); err != nil {
		return err
	}
	return next(srv, stream)
}
