package proxy

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"

	"github.com/credence-mesh/credence/identity/attest"
)

// withLife is a credential with a given life; its certificate is never verified here.
func withLife(c attest.Credential, from time.Time, life time.Duration) attest.Credential {
	leaf := *c.Chain[0]
	leaf.NotBefore, leaf.NotAfter = from, from.Add(life)
	c.Chain = append(c.Chain[:0:0], &leaf)
	return c
}

func TestKeeperRenewsAtHalfLife(t *testing.T) {
	t.Parallel()
	base := credential(t, shop, time.Hour)
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		var at []time.Duration
		ctx, cancel := context.WithCancel(t.Context())
		k := &keeper{
			credential: withLife(base, began, 10*time.Hour), log: zap.NewNop(), store: func(attest.Credential) error { return nil },
			renew: func(_ context.Context, old attest.Credential) (attest.Credential, error) {
				at = append(at, time.Since(began))
				if len(at) == 3 {
					cancel()
				}
				return withLife(old, time.Now(), 10*time.Hour), nil
			},
		}
		k.run(ctx)
		for i, d := range at {
			if due := time.Duration(i+1) * 5 * time.Hour; d < due-time.Duration(i+1)*31*time.Minute || d > due+time.Duration(i+1)*31*time.Minute {
				t.Errorf("renewal %d after %s, due around %s", i+1, d, due)
			}
		}
		if len(at) != 3 {
			t.Errorf("%d renewals", len(at))
		}
	})
}

func TestKeeperNeverGivesUp(t *testing.T) {
	t.Parallel()
	base := credential(t, shop, time.Hour)
	synctest.Test(t, func(t *testing.T) {
		core, logs := observer.New(zap.WarnLevel)
		began := time.Now()
		var tries int
		ctx, cancel := context.WithTimeout(t.Context(), 24*time.Hour)
		defer cancel()
		k := &keeper{
			credential: withLife(base, began, 2*time.Hour), log: zap.New(core), store: func(attest.Credential) error { return nil },
			renew: func(_ context.Context, old attest.Credential) (attest.Credential, error) {
				tries++
				if time.Since(began) < 12*time.Hour {
					return attest.Credential{}, errors.New("the control plane is away")
				}
				return withLife(old, time.Now(), 100*time.Hour), nil
			},
		}
		k.run(ctx)
		// 11 hours at most once in 2.5 minutes, and not a storm.
		if tries < 130 || tries > 300 {
			t.Errorf("%d tries", tries)
		}
		if logs.FilterLevelExact(zap.ErrorLevel).Len() == 0 {
			t.Error("nobody was told that the credential had ended")
		}
		if left := time.Until(k.credential.NotAfter()); left < 80*time.Hour {
			t.Errorf("it was not renewed when the control plane was back: %s left", left)
		}
	})
}
