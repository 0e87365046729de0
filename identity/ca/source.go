package ca

import (
	"context"
	"crypto/x509"
	"sync"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"
	"github.com/spiffe/go-spiffe/v2/svid/x509svid"

	"github.com/credence-mesh/credence/identity"
)

// Source keeps one X.509-SVID of the authority current. It is an identity.Source.
type Source struct {
	authority *Authority
	request   Request
	updated   chan struct{}

	mu   sync.Mutex
	svid *x509svid.SVID
}

var _ identity.Source = (*Source)(nil)

// NewSource mints the first SVID. The key of the request is ignored: every SVID gets its own.
func NewSource(ctx context.Context, a *Authority, r Request) (*Source, error) {
	svid, err := a.Mint(ctx, r)
	if err != nil {
		return nil, err
	}
	return &Source{authority: a, request: r, updated: make(chan struct{}, 1), svid: svid}, nil
}

// Run replaces the SVID at half of its life until ctx ends.
func (s *Source) Run(ctx context.Context) error {
	for {
		wait := time.Until(HalfLife(s.current().Certificates[0]))
		if wait <= 0 { // the authority did not answer the last time
			wait = time.Second
		}
		timer := time.NewTimer(wait)
		select {
		case <-ctx.Done():
			timer.Stop()
			return nil
		case <-timer.C:
			_, _ = s.GetX509SVID() // who asks for the SVID once it has ended gets the error
		}
	}
}

// GetX509SVID is the current SVID: a new one when half of its life is over, the old one as long as none can be made and it has not ended.
func (s *Source) GetX509SVID() (*x509svid.SVID, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if time.Now().Before(HalfLife(s.svid.Certificates[0])) {
		return s.svid, nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	svid, err := s.authority.Mint(ctx, s.request)
	switch {
	case err == nil:
		s.svid = svid
		select {
		case s.updated <- struct{}{}:
		default:
		}
	case time.Now().After(s.svid.Certificates[0].NotAfter):
		return nil, err
	}
	return s.svid, nil
}

func (s *Source) current() *x509svid.SVID {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.svid
}

// GetX509BundleForTrustDomain is what the trust domain trusts.
func (s *Source) GetX509BundleForTrustDomain(td identity.TrustDomain) (*x509bundle.Bundle, error) {
	return s.authority.GetX509BundleForTrustDomain(td)
}

// Updated gets a value after the SVID was replaced.
func (s *Source) Updated() <-chan struct{} { return s.updated }

// HalfLife is when half of the time for which a certificate of this authority was asked is over; Backdate does not count.
func HalfLife(c *x509.Certificate) time.Time {
	from := c.NotBefore.Add(Backdate)
	return from.Add(c.NotAfter.Sub(from) / 2)
}
