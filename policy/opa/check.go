package opa

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"errors"
	"net/http"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/rego"

	"github.com/credence-mesh/credence/identity"
)

// Reason says what a decision rests on. It is a label of metrics and a field of logs.
type Reason string

// The reasons. Only Policy can allow.
const (
	Policy    Reason = "policy"        // a policy said so
	Path      Reason = "path"          // the path can be read in more than one way
	Body      Reason = "body"          // the body was cut or does not parse
	Undefined Reason = "undefined"     // the rule has no value for this input
	Invalid   Reason = "invalid"       // the rule's value is no verdict
	Failed    Reason = "error"         // the evaluation ended with an error
	TimedOut  Reason = "timeout"       // the evaluation took too long
	NotLoaded Reason = "not_loaded"    // there is no policy yet, or no such decision
	NotInUse  Reason = "not_in_force"  // the decision needs a package that has an error
	Input     Reason = "input_invalid" // Envoy's request cannot be turned into an input document
	Caller    Reason = "caller"        // the caller may not ask this; counted, and not in the log
	Busy      Reason = "busy"          // the caller's other requests did not leave it a turn in time
)

// Decision is one decision, for a log. It holds neither tokens nor claims.
type Decision struct {
	ID        string
	Time      time.Time
	Duration  time.Duration
	Decision  string // "data.envoy.authz.allow"
	Allowed   bool
	Status    int // of a denial
	Reason    Reason
	Method    string
	Host      string
	Path      string            // canonical, without the query; empty where it was refused
	Principal string            // of the peer, as the caller says
	Caller    identity.Workload // whose proxy asked, as its credential says; zero for Local
	CallerID  identity.ID       // its SPIFFE ID
	Err       error             // what went wrong, for operators; nothing of it reaches the client
}

// Check decides about one request of a caller that may ask. It never returns an error: whatever goes wrong is a denial, also where a filter lets
// errors pass. What a caller that may not ask says is evaluated by no policy and written into no log: it could all be made up.
func (s *Service) Check(ctx context.Context, req *authv3.CheckRequest) (*authv3.CheckResponse, error) {
	caller, err := s.options.Callers.Admit(ctx, req.GetAttributes().GetContextExtensions()[DecisionKey])
	if err != nil {
		s.metrics.refused()
		return respond(result{status: http.StatusForbidden}, newID(), Caller), nil //nolint:nilerr // the refusal is the answer
	}
	return s.check(ctx, caller, req), nil
}

func (s *Service) check(ctx context.Context, caller identity.Proven, req *authv3.CheckRequest) *authv3.CheckResponse {
	a := req.GetAttributes()
	d := Decision{Caller: caller.Workload, CallerID: caller.ID, ID: newID(), Time: time.Now(), Method: a.GetRequest().GetHttp().GetMethod(), Host: a.GetRequest().GetHttp().GetHost(), Principal: a.GetSource().GetPrincipal()}
	r := s.inTurn(ctx, caller, req, &d)
	d.Duration, d.Allowed = time.Since(d.Time), r.allowed
	if !d.Allowed {
		d.Status = r.status
	}
	s.metrics.decided(d)
	s.record(d)
	return respond(r, d.ID, d.Reason)
}

// inTurn decides within the time of one decision, the wait for a turn included.
func (s *Service) inTurn(ctx context.Context, caller identity.Proven, req *authv3.CheckRequest, d *Decision) result {
	ctx, cancel := context.WithTimeout(ctx, s.options.Timeout)
	defer cancel()
	if caller.Workload != (identity.Workload{}) {
		done, err := s.turns.take(ctx, caller.Workload)
		if err != nil {
			return d.deny(Busy, http.StatusForbidden, err)
		}
		defer done()
	}
	return s.decide(ctx, caller, req, d)
}

func (s *Service) decide(ctx context.Context, caller identity.Proven, req *authv3.CheckRequest, d *Decision) result {
	p := s.policies.Load()
	if p == nil {
		return d.deny(NotLoaded, http.StatusForbidden, errors.New("no policy is loaded yet"))
	}
	in, err := newRequest(req)
	if err != nil {
		return d.deny(Path, http.StatusBadRequest, err)
	}
	in.caller, d.Path, d.Decision = caller, in.path, p.decision
	if asked := decisionPath(req.GetAttributes().GetContextExtensions()[DecisionKey]); asked != "" {
		d.Decision = asked
	}
	if err := p.open(d.Decision); err != nil {
		return d.deny(NotInUse, http.StatusForbidden, err)
	}
	if !p.rules[d.Decision] {
		err := errors.New("no such decision: " + d.Decision)
		d.Decision = "" // a name that no policy has is no label
		return d.deny(NotLoaded, http.StatusForbidden, err)
	}
	return s.evaluate(ctx, p, in, d)
}

func (s *Service) evaluate(ctx context.Context, p *policies, in *request, d *Decision) result {
	input, err := in.input()
	var malformed *bodyError
	switch {
	case errors.Is(err, errCutBody):
		return d.deny(Body, http.StatusRequestEntityTooLarge, err)
	case errors.As(err, &malformed):
		return d.deny(Body, http.StatusBadRequest, err)
	case err != nil:
		return d.deny(Input, http.StatusForbidden, err)
	}
	q, err := p.query(ctx, d.Decision)
	if err != nil {
		return d.deny(Failed, http.StatusForbidden, err)
	}
	found, err := q.Eval(ctx, rego.EvalParsedInput(input), rego.EvalInterQueryBuiltinCache(s.queries), rego.EvalInterQueryBuiltinValueCache(s.values))
	switch {
	case ctx.Err() != nil:
		return d.deny(TimedOut, http.StatusForbidden, ctx.Err())
	case err != nil:
		return d.deny(Failed, http.StatusForbidden, err)
	case len(found) == 0 || len(found[0].Expressions) == 0:
		return d.deny(Undefined, http.StatusForbidden, errUndefined)
	}
	r, err := parseResult(found[0].Expressions[0].Value)
	if err != nil {
		return d.deny(Invalid, http.StatusForbidden, err)
	}
	d.Reason = Policy
	return r
}

// deny is a denial that no policy spoke. The client learns the status and nothing else.
func (d *Decision) deny(reason Reason, status int, err error) result {
	d.Reason, d.Err = reason, err
	return result{status: status}
}

// record hands a decision to the log, or drops it where the log is behind: no request waits for a log.
func (s *Service) record(d Decision) {
	if s.options.Log == nil {
		return
	}
	select {
	case s.log <- d:
	default:
		s.metrics.dropped.Inc()
	}
}

func newID() string {
	var b [16]byte
	_, _ = rand.Read(b[:]) // never fails: it would end the process
	b[6], b[8] = b[6]&0x0f|0x40, b[8]&0x3f|0x80
	h := hex.EncodeToString(b[:])
	return h[:8] + "-" + h[8:12] + "-" + h[12:16] + "-" + h[16:20] + "-" + h[20:]
}
