package proxy

import (
	"context"
	"math/rand/v2"
	"time"

	"go.uber.org/zap"

	"github.com/credence-mesh/credence/identity/attest"
	"github.com/credence-mesh/credence/identity/state"
)

const (
	firstRetry = time.Second
	lastRetry  = 5 * time.Minute
	renewTime  = 30 * time.Second
)

// keeper renews a credential at half of its life.
type keeper struct {
	credential attest.Credential
	renew      func(context.Context, attest.Credential) (attest.Credential, error)
	store      func(attest.Credential) error
	log        *zap.Logger
}

func newKeeper(c Config, dir *state.Dir, credential attest.Credential) *keeper {
	return &keeper{
		credential: credential,
		log:        c.Log,
		store:      func(fresh attest.Credential) error { return WriteSDS(dir, fresh) },
		renew: func(ctx context.Context, old attest.Credential) (attest.Credential, error) {
			return attest.Renew(ctx, c.XDSAddr, old, 0)
		},
	}
}

// run ends with ctx. It never gives up: as long as it fails, Envoy runs with the credential that it has.
func (k *keeper) run(ctx context.Context) {
	retry := firstRetry
	for pause := k.untilDue(); ; {
		select {
		case <-time.After(pause):
		case <-ctx.Done():
			return
		}
		if err := k.once(ctx); err != nil {
			k.complain(err)
			pause = retry/2 + rand.N(retry/2+1)
			retry = min(2*retry, lastRetry)
			continue
		}
		retry = firstRetry
		pause = k.untilDue()
	}
}

// untilDue is how long until the renewal. It is spread by a tenth of the life, so that proxies which joined together do not renew together.
func (k *keeper) untilDue() time.Duration {
	due := k.credential.RenewAt()
	life := 2 * k.credential.NotAfter().Sub(due)
	return max(0, time.Until(due)+rand.N(life/10+1)-life/20)
}

func (k *keeper) once(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, renewTime)
	defer cancel()
	fresh, err := k.renew(ctx, k.credential)
	if err != nil {
		return err
	}
	if err := k.store(fresh); err != nil {
		return err
	}
	k.credential = fresh
	k.log.Info("the channel credential was renewed", zap.Time("until", fresh.NotAfter()))
	return nil
}

func (k *keeper) complain(err error) {
	until := k.credential.NotAfter()
	if left := time.Until(until); left > 0 {
		k.log.Warn("the channel credential could not be renewed; it is tried again", zap.Duration("left", left), zap.Error(err))
		return
	}
	k.log.Error("the channel credential has ended: Envoy serves what it has, but gets no changes until it is started again with a new join token",
		zap.Time("ended", until), zap.Error(err))
}
