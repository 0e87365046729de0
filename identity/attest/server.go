package attest

import (
	"context"
	"crypto"
	"crypto/x509"
	"errors"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/attest/attestv1"
	"github.com/credence-mesh/credence/identity/ca"
)

// Issuer signs channel credentials.
type Issuer interface {
	IssueChannel(ctx context.Context, w identity.Workload, id identity.ID, key crypto.PublicKey, ttl time.Duration) ([]*x509.Certificate, error)
	Bundle() *x509bundle.Bundle
}

// ServerConfig is what a Server needs.
type ServerConfig struct {
	Issuer Issuer
	Tokens *Tokens
	// Workload is the identity of a workload as policies name it now; false where there is no such workload.
	Workload func(identity.Workload) (identity.ID, bool)
	// MaxTTL bounds every credential; zero is ca.MaxChannelTTL.
	MaxTTL time.Duration
	// Audit is told of every answer, to log it; err is nil where a credential was given. May be nil.
	Audit func(w identity.Workload, from string, err error)
}

// Server is the Attestation service.
type Server struct {
	attestv1.UnimplementedAttestationServer
	config  ServerConfig
	limiter *limiter
}

// The attempts to join that one address has: as many at once as a large host has proxies, then a steady trickle.
const (
	joinRate  = 10
	joinBurst = 100
)

// NewServer makes the service.
func NewServer(c ServerConfig) *Server {
	if c.MaxTTL <= 0 {
		c.MaxTTL = ca.MaxChannelTTL
	}
	if c.Audit == nil {
		c.Audit = func(identity.Workload, string, error) {}
	}
	return &Server{config: c, limiter: newLimiter(joinRate, joinBurst)}
}

// Join exchanges a join token for a channel credential. The token is used up last, when nothing else can be refused any more.
func (s *Server) Join(ctx context.Context, r *attestv1.JoinRequest) (*attestv1.JoinResponse, error) {
	w := identity.Workload{Namespace: r.GetWorkloadNamespace(), Name: r.GetWorkloadName()}
	c, err := s.join(ctx, w, r)
	s.config.Audit(w, from(ctx), err)
	if err != nil {
		return nil, err
	}
	return &attestv1.JoinResponse{Credential: c}, nil
}

func (s *Server) join(ctx context.Context, w identity.Workload, r *attestv1.JoinRequest) (*attestv1.Credential, error) {
	if p, ok := peer.FromContext(ctx); !ok || !s.limiter.allow(p.Addr) {
		return nil, status.Error(codes.ResourceExhausted, "too many attempts to join from this address: wait a few seconds")
	}
	if _, err := parseToken(r.GetToken()); err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	// Only a token that could be used learns which workloads exist.
	if err := s.config.Tokens.Check(r.GetToken(), w); err != nil {
		return nil, refused(err)
	}
	id, err := s.identify(w)
	if err != nil {
		return nil, err
	}
	key, err := ca.KeyOfRequest(r.GetCsr(), id)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	if err := s.config.Tokens.Consume(r.GetToken(), w); err != nil {
		return nil, refused(err)
	}
	ttl := ca.DefaultTTL
	if r.GetTtl() != nil {
		ttl = r.GetTtl().AsDuration()
	}
	return s.issue(ctx, w, id, key, min(ttl, s.config.MaxTTL))
}

// Renew replaces the channel credential that the call came with by one of the same workload, which lives no longer than the old one did: a
// credential of an hour that was stolen does not become one of months.
func (s *Server) Renew(ctx context.Context, r *attestv1.RenewRequest) (*attestv1.RenewResponse, error) {
	p, err := proofOf(ctx)
	if err != nil {
		return nil, status.Error(codes.Unauthenticated, err.Error())
	}
	c, err := s.renew(ctx, p, r)
	s.config.Audit(p.proven.Workload, from(ctx), err)
	if err != nil {
		return nil, err
	}
	return &attestv1.RenewResponse{Credential: c}, nil
}

func (s *Server) renew(ctx context.Context, p proof, r *attestv1.RenewRequest) (*attestv1.Credential, error) {
	w := p.proven.Workload
	if w == (identity.Workload{}) {
		return nil, status.Error(codes.PermissionDenied, "only a channel credential can be renewed: an X.509-SVID names no workload")
	}
	id, err := s.identify(w)
	if err != nil {
		return nil, err
	}
	key, err := ca.KeyOfRequest(r.GetCsr(), id)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	longest := p.leaf.NotAfter.Sub(p.leaf.NotBefore.Add(ca.Backdate))
	ttl := longest
	if r.GetTtl() != nil {
		ttl = min(ttl, r.GetTtl().AsDuration())
	}
	return s.issue(ctx, w, id, key, min(ttl, s.config.MaxTTL))
}

// identify is the identity that a workload has now.
func (s *Server) identify(w identity.Workload) (identity.ID, error) {
	id, ok := s.config.Workload(w)
	switch {
	case !ok:
		return identity.ID{}, status.Errorf(codes.NotFound,
			"there is no workload %s: a WorkloadEntry or a Gateway of that name is needed in the configuration", w)
	case identity.Reserved(id):
		return identity.ID{}, status.Errorf(codes.PermissionDenied, "the identity %s is kept for the control plane", id)
	}
	return id, nil
}

func (s *Server) issue(ctx context.Context, w identity.Workload, id identity.ID, key crypto.PublicKey, ttl time.Duration) (*attestv1.Credential, error) {
	if ttl <= 0 {
		return nil, status.Error(codes.InvalidArgument, "the lifetime of a credential must be positive")
	}
	chain, err := s.config.Issuer.IssueChannel(ctx, w, id, key, ttl)
	if err != nil {
		return nil, hidden{codes.Internal, "no credential could be issued", err}
	}
	out := &attestv1.Credential{}
	for _, c := range chain {
		out.Chain = append(out.Chain, c.Raw)
	}
	for _, c := range s.config.Issuer.Bundle().X509Authorities() {
		out.Bundle = append(out.Bundle, c.Raw)
	}
	return out, nil
}

// refused is the status of a refused token.
func refused(err error) error {
	switch {
	case errors.Is(err, ErrTokenMalformed):
		return status.Error(codes.InvalidArgument, err.Error())
	case errors.Is(err, ErrTokenUnknown), errors.Is(err, ErrTokenUsed), errors.Is(err, ErrTokenExpired), errors.Is(err, ErrTokenWorkload):
		return status.Error(codes.PermissionDenied, err.Error())
	default:
		return hidden{codes.Unavailable, "the join token could not be checked: try again", err}
	}
}

// hidden is an error whose cause is for the operator (see Audit), not for the client.
type hidden struct {
	code  codes.Code
	says  string
	cause error
}

func (h hidden) Error() string { return h.says + ": " + h.cause.Error() }

func (h hidden) Unwrap() error { return h.cause }

// GRPCStatus is what the client gets.
func (h hidden) GRPCStatus() *status.Status { return status.New(h.code, h.says) }

func from(ctx context.Context) string {
	if p, ok := peer.FromContext(ctx); ok && p.Addr != nil {
		return p.Addr.String()
	}
	return ""
}
