package explain

import (
	"context"
	"time"

	"github.com/credence-mesh/credence/policy"
)

// Trace is Explain, and the request headers as the backend would get them.
func (c *Config) Trace(ctx context.Context, set *policy.Set, authorize Authorizer, req Request) (Verdict, []Header) {
	if req.Now.IsZero() {
		req.Now = time.Now()
	}
	r := &run{ctx: ctx, config: c, set: set, authorize: authorize, req: req, metadata: metadata{}, out: Verdict{Rule: NoRule, Steps: []Step{}}}
	r.connect()
	r.settle()
	if r.headers == nil {
		return r.out, nil
	}
	return r.out, r.headers.list
}

// Canonical is what becomes of a path; false where it is refused.
func Canonical(path string) (string, bool) {
	p, ok := normalize(path)
	return mergeSlashes(p), ok
}
