package identity

import (
	"context"
	"errors"
	"fmt"
)

// ErrRefused says that a caller may not ask what it asked: see Callers.
var ErrRefused = errors.New("this caller may not ask this")

// Callers says which proxies a service of the control plane answers, and about what. The zero value refuses everybody.
type Callers struct {
	// Authenticate is who the peer of a call has proved to be: attest.FromContext in production.
	Authenticate func(context.Context) (Proven, error)
	// May tells whether the configuration of a workload makes its proxies ask about this; what it names is the service's to say.
	May func(ctx context.Context, w Workload, what string) bool
}

// Admit is the caller, where it may ask. Only a channel credential is one workload's: an X.509-SVID is shown to every peer of the mesh, may be
// shared by workloads, and serves between them, not here.
func (c Callers) Admit(ctx context.Context, what string) (Proven, error) {
	if c.Authenticate == nil || c.May == nil {
		return Proven{}, ErrRefused
	}
	p, err := c.Authenticate(ctx)
	switch {
	case err != nil:
		return Proven{}, fmt.Errorf("%w: %w", ErrRefused, err)
	case p.Workload == Workload{}:
		return Proven{}, fmt.Errorf("%w: %s showed no channel credential", ErrRefused, p.ID)
	case !c.May(ctx, p.Workload, what):
		return Proven{}, fmt.Errorf("%w: nothing in the configuration of %s asks for it", ErrRefused, p.Workload)
	}
	return p, nil
}
