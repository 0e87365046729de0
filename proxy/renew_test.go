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
	"github.com/credence-mesh/credence/identity/ca"
)

// withLife is a credential with a given life; its certificate is never verified here.
func withLife(c attest.Credential, from time.Time, life time.Duration) attest.Credential {
	leaf := *c.Chain[0]
	leaf.NotBefore, leaf.NotAfter = from.Add(-ca.Backdate), from.Add(life)
	c.Chain = append(c.Chain[:0:0], &leaf)
	return c
}

func TestKeeperRenewsAtHalfLife(t *testing.T) {
	t.Parallel()
	base := credential(t, shop, time.Hour)
	for name, life := range map[string]time.Duration{"a week": 7 * 24 * time.Hour, "shorter than certificates are backdated": 20 * time.Second} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			synctest.Test(t, func(t *testing.T) { renewThrice(t, base, life) })
		})
	}
}

func renewThrice(t *testing.T, base attest.Credential, life time.Duration) {
	ctx, cancel := context.WithCancel(t.Context())
	last, n := time.Now(), 0
	k := &keeper{
		credential: withLife(base, last, life), log: zap.NewNop(), store: func(attest.Credential) error { return nil },
		renew: func(_ context.Context, old attest.Credential) (attest.Credential, error) {
			if after := time.Since(last); after < life*9/20 || after > life*11/20 {
				t.Errorf("renewed %s after it began, of a life of %s", after, life)
			}
			if last, n = time.Now(), n+1; n == 3 {
				cancel()
			}
			return withLife(old, last, life), nil
		},
	}
	k.run(ctx)
	if n != 3 {
		t.Errorf("%d renewals", n)
	}
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
