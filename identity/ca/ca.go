// Package ca is the embedded certificate authority. It keeps two hierarchies in one state directory: the mesh (root, intermediate, and the
// X.509-SVIDs that peers trust), and the channel authority, whose certificates open the channel to the control plane and nothing else.
package ca

import (
	"context"
	"crypto/ecdsa"
	"crypto/x509"
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"sync/atomic"
	"time"

	"github.com/spiffe/go-spiffe/v2/bundle/x509bundle"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/state"
)

// Lifetimes.
const (
	RootTTL         = 10 * 365 * 24 * time.Hour
	IntermediateTTL = 365 * 24 * time.Hour
	DefaultTTL      = time.Hour           // of an X.509-SVID, and of the channel credential of a supervised proxy
	MaxChannelTTL   = 90 * 24 * time.Hour // of a channel credential
	// Backdate is how far before its making a certificate begins, for peers whose clocks are late.
	Backdate = 5 * time.Minute
	// renewAt is the part of the intermediate's life after which it is replaced: with IntermediateTTL, four months before its end.
	renewAt = 2.0 / 3
)

// The files of an authority in the state directory: each holds a private key and its certificate, so that both change at once.
const (
	rootFile         = "mesh-root.pem"
	intermediateFile = "mesh-intermediate.pem"
	channelFile      = "channel-ca.pem"
)

// ErrNoAuthority says that a state directory has no authority yet and that no trust domain was given to make one for.
var ErrNoAuthority = errors.New("the state directory holds no certificate authority yet: start credence serve on it first, or name a trust domain")

// Authority issues certificates. It may be used by many goroutines, and by many processes that share a state directory.
type Authority struct {
	dir          *state.Dir
	domain       identity.TrustDomain
	root         signer
	channel      signer
	intermediate atomic.Pointer[stamped]
	renewing     sync.Mutex
}

// signer is a certificate that may sign others.
type signer struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

// stamped is the intermediate as it was read, and what its file looked like then.
type stamped struct {
	signer
	stamp state.Stamp
}

// Open reads the authority of a state directory, or makes one for a trust domain where there is none; of several processes that do so at
// once, one makes it and the others read it. With a zero trust domain it only reads.
func Open(ctx context.Context, dir *state.Dir, domain identity.TrustDomain) (*Authority, error) {
	unlock, err := dir.Lock(ctx)
	if err != nil {
		return nil, err
	}
	defer unlock()
	if err := dir.Sweep("."); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	a := &Authority{dir: dir, domain: domain}
	for _, f := range []func() error{a.openRoot, a.openChannel, a.openIntermediate} {
		if err := f(); err != nil {
			return nil, err
		}
	}
	return a, nil
}

func (a *Authority) openRoot() error {
	root, err := load(a.dir, rootFile)
	if errors.Is(err, fs.ErrNotExist) {
		return a.createRoot()
	}
	if err != nil {
		return err
	}
	domain, err := checkRoot(root.cert)
	if err != nil {
		return fmt.Errorf("%s: %w", rootFile, err)
	}
	if !a.domain.IsZero() && a.domain != domain {
		return fmt.Errorf("the state directory %s belongs to the trust domain %s, not to %s: use another state directory for another trust domain",
			a.dir.Path(), domain.Name(), a.domain.Name())
	}
	a.domain, a.root = domain, root
	return nil
}

// createRoot begins a mesh. The root is written first: where it is missing and something else is there, it was lost, and a new one would
// silently cut off every workload.
func (a *Authority) createRoot() error {
	if a.domain.IsZero() {
		return ErrNoAuthority
	}
	for _, name := range []string{intermediateFile, channelFile} {
		if a.dir.Stamp(name) != (state.Stamp{}) {
			return fmt.Errorf("the state directory %s holds %s but no %s: restore it from a backup, or start anew with an empty directory",
				a.dir.Path(), name, rootFile)
		}
	}
	root, err := newRoot(a.domain)
	if err != nil {
		return err
	}
	a.root = root
	return store(a.dir, rootFile, root)
}

func (a *Authority) openChannel() error {
	channel, err := load(a.dir, channelFile)
	if errors.Is(err, fs.ErrNotExist) {
		if a.channel, err = newChannel(); err != nil {
			return err
		}
		return store(a.dir, channelFile, a.channel)
	}
	if err != nil {
		return err
	}
	a.channel = channel
	if err := checkSelfSigned(channel.cert); err != nil {
		return fmt.Errorf("%s: %w", channelFile, err)
	}
	return nil
}

// openIntermediate is called with the lock held.
func (a *Authority) openIntermediate() error {
	stamp := a.dir.Stamp(intermediateFile)
	s, err := load(a.dir, intermediateFile)
	switch {
	case err == nil:
		if err := s.cert.CheckSignatureFrom(a.root.cert); err != nil {
			return fmt.Errorf("%s was not signed by %s: %w", intermediateFile, rootFile, err)
		}
		if !due(s.cert) {
			a.intermediate.Store(&stamped{signer: s, stamp: stamp})
			return nil
		}
	case !errors.Is(err, fs.ErrNotExist):
		return err
	}
	if s, err = newIntermediate(a.domain, a.root); err != nil {
		return err
	}
	if err := store(a.dir, intermediateFile, s); err != nil {
		return err
	}
	a.intermediate.Store(&stamped{signer: s, stamp: a.dir.Stamp(intermediateFile)})
	return nil
}

// due tells whether an intermediate is to be replaced.
func due(c *x509.Certificate) bool {
	life := c.NotAfter.Sub(c.NotBefore)
	return time.Since(c.NotBefore) > time.Duration(float64(life)*renewAt)
}

// current is the intermediate to sign with: the one that another process may have made since, or a new one when it is time.
func (a *Authority) current(ctx context.Context) (signer, error) {
	if s := a.intermediate.Load(); a.fresh(s) {
		return s.signer, nil
	}
	a.renewing.Lock()
	defer a.renewing.Unlock()
	s := a.intermediate.Load()
	if a.fresh(s) {
		return s.signer, nil
	}
	err := a.renew(ctx)
	if err == nil {
		return a.intermediate.Load().signer, nil
	}
	if time.Now().Before(s.cert.NotAfter) {
		return s.signer, nil // months are left to repair the state directory; Check says what is wrong with it
	}
	return signer{}, err
}

func (a *Authority) renew(ctx context.Context) error {
	unlock, err := a.dir.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return a.openIntermediate()
}

func (a *Authority) fresh(s *stamped) bool {
	return !due(s.cert) && s.stamp == a.dir.Stamp(intermediateFile)
}

// Check tells what will stop the authority from issuing, early enough to repair it.
func (a *Authority) Check(ctx context.Context) error {
	if s := a.intermediate.Load(); !a.fresh(s) {
		if err := a.renew(ctx); err != nil {
			return err
		}
	}
	for name, c := range map[string]*x509.Certificate{rootFile: a.root.cert, channelFile: a.channel.cert} {
		if left := time.Until(c.NotAfter); left < IntermediateTTL {
			return fmt.Errorf("%s ends on %s: plan its replacement", name, c.NotAfter.Format(time.DateOnly))
		}
	}
	return nil
}

// TrustDomain of the mesh.
func (a *Authority) TrustDomain() identity.TrustDomain { return a.domain }

// Root is the certificate that every workload of the mesh trusts.
func (a *Authority) Root() *x509.Certificate { return a.root.cert }

// ChannelRoot is the certificate of the channel authority. Only the control plane trusts it.
func (a *Authority) ChannelRoot() *x509.Certificate { return a.channel.cert }

// Bundle is what workloads of the trust domain trust.
func (a *Authority) Bundle() *x509bundle.Bundle {
	return x509bundle.FromX509Authorities(a.domain, []*x509.Certificate{a.root.cert})
}

// GetX509BundleForTrustDomain makes the Authority an x509bundle.Source.
func (a *Authority) GetX509BundleForTrustDomain(td identity.TrustDomain) (*x509bundle.Bundle, error) {
	return a.Bundle().GetX509BundleForTrustDomain(td)
}
