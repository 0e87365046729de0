package jwks

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/jwt"
)

// keep fetches the keys of one place again and again until ctx ends.
func (s *Stage) keep(ctx context.Context, p place, k known, out chan<- finding) {
	failures := 0
	if k.tried && !wait(ctx, pollFile) {
		return
	}
	for {
		k = s.attempt(ctx, p, k)
		select {
		case out <- finding{p.uri, k}:
		case <-ctx.Done():
			return
		}
		if k.err == nil {
			failures = 0
		} else {
			failures++
		}
		if !wait(ctx, pause(p, failures)) {
			return
		}
	}
}

// wait is false when ctx ended first.
func wait(ctx context.Context, d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-ctx.Done():
		return false
	}
}

// pause is how long to wait before the next attempt. It is spread, so that many issuers and many control planes do not fall into step.
func pause(p place, failures int) time.Duration {
	switch {
	case p.source.File != "":
		return pollFile
	case failures == 0:
		return spread(refresh)
	default:
		return spread(min(retryFirst<<min(failures-1, 10), retryMax))
	}
}

// spread is d, give or take a quarter.
func spread(d time.Duration) time.Duration {
	return d*3/4 + rand.N(d/2+1)
}

// attempt fetches once and keeps what it got.
func (s *Stage) attempt(ctx context.Context, p place, k known) known {
	raw, tag, err := s.fetch.get(ctx, p, k.tag)
	if ctx.Err() != nil {
		return k
	}
	k.tried, k.err = true, nil
	var document string
	switch {
	case errors.Is(err, errUnchanged) && k.document != "":
		document, tag = k.document, k.tag
	case err == nil:
		document, err = jwt.PublicKeys(raw)
	}
	if document == "" {
		k.err = err
		s.metrics.failed(p.uri)
		return k
	}
	due := k.document != document || time.Since(k.saved) > saveEvery
	k.document, k.tag, k.fetched = document, tag, time.Now()
	s.metrics.fetched(p.uri, k.fetched)
	if !due {
		return k
	}
	if err := s.store.save(p.uri, k); err != nil {
		k.err = fmt.Errorf("they are in force but could not be kept on disk: %w", err)
		return k
	}
	k.saved = k.fetched
	return k
}

// problem is what a user should know about the keys of a place; its Code is empty where all is well.
func (w *worker) problem(i jwt.Sourced) policy.Problem {
	if !w.tried || i.From == nil {
		return policy.Problem{}
	}
	if w.err == nil {
		return w.plaintext(i)
	}
	p := policy.Problem{
		At: i.From.At, Object: i.From.Key.String(), Field: "spec.jwtRules", Code: "JWKS_UNREACHABLE",
		Says: fmt.Sprintf("the keys of issuer %q at %s: %v", i.Issuer.Issuer, w.uri, w.err),
		Try:  "check the address from the control plane's host, or map the jwksUri to a file or another URL in credence.yaml",
	}
	var refused addressError
	if errors.As(w.err, &refused) {
		p.Code, p.Try = "JWKS_ADDRESS_REFUSED", "keys of policies come from public addresses alone; an operator maps internal ones in credence.yaml, under jwks"
	}
	if w.usable(time.Now()) != "" {
		p.Severity = policy.Warning
		p.Says += fmt.Sprintf("; those of %s stay in force for at most %s", w.fetched.UTC().Format(time.RFC3339), MaxStale)
	} else {
		p.Says += "; no key is known, so its tokens are refused"
	}
	return p
}

// plaintext warns of keys that anybody on the way could replace.
func (w *worker) plaintext(i jwt.Sourced) policy.Problem {
	if w.source != (Source{}) || !strings.HasPrefix(w.uri, "http://") {
		return policy.Problem{}
	}
	return policy.Problem{
		At: i.From.At, Object: i.From.Key.String(), Field: "spec.jwtRules", Code: "JWKS_PLAINTEXT", Severity: policy.Warning,
		Says: fmt.Sprintf("the keys of issuer %q come over plain http: whoever can change them on the way can sign any token", i.Issuer.Issuer),
		Try:  "use https, or map the jwksUri to a file",
	}
}
