// Package explain tells what a proxy does with one request, and why: it evaluates the generated configuration (the very listener, route table and
// extensions that Envoy gets) in Go, without Envoy. What it cannot evaluate it says so; it never takes that for a yes.
package explain

import (
	"context"
	"net/netip"
	"time"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/credence-mesh/credence/policy"
)

// Authorizer decides what CUSTOM policies ask about; the embedded decision service is one.
type Authorizer interface {
	Check(context.Context, *authv3.CheckRequest) (*authv3.CheckResponse, error)
}

// Transport is how a client connects.
type Transport uint8

// The transports.
const (
	Plaintext Transport = iota
	TLS                 // without a client certificate
	MutualTLS           // with the certificate of Request.Peer
)

// Request is one request, as a client would send it.
type Request struct {
	Port       uint32
	Transport  Transport
	Peer       string // SPIFFE ID in the client's certificate; only of MutualTLS
	ServerName string // SNI
	SourceIP   netip.Addr
	Method     string // empty: GET
	Path       string // with its query; empty: "/"
	Host       string // empty: the workload's name
	Headers    []Header
	Token      string         // goes where the accepted issuers look for it, unless a header already carries one
	Claims     map[string]any // of a token whose signature is taken as good; used where Token is empty
	Body       int64          // bytes
	Now        time.Time      // zero: the present
}

// Header is one header, as it is sent.
type Header struct{ Name, Value string }

// The decisions.
const (
	Allow   = "allow"
	Deny    = "deny"
	Unknown = "unknown" // something that could not be evaluated decides
)

// NoRule is Verdict.Rule where no rule decided.
const NoRule = -1

// Verdict is what becomes of a request.
type Verdict struct {
	Code     int    `json:"code"` // HTTP status; 200 stands for the application's answer; 0: no HTTP answer, the connection is closed, or nobody knows
	Decision string `json:"decision"`
	Policy   string `json:"policy"` // "namespace/name" of the object that decided; empty where none did
	Rule     int    `json:"rule"`   // index in spec.rules, or NoRule
	At       string `json:"at"`     // file:line of the rule or object
	Because  string `json:"because"`
	Nearest  *Miss  `json:"nearestMiss,omitempty"`
	Steps    []Step `json:"steps"`
}

// Outcome is what a step did.
type Outcome string

// The outcomes.
const (
	Passed       Outcome = "pass"
	Denied       Outcome = "deny"
	Skipped      Outcome = "skip" // nothing is asked of the request here
	Noted        Outcome = "note" // changes or would count something, and decides nothing
	NotEvaluated Outcome = "not evaluated"
)

// Step is one thing that a request passes, in order.
type Step struct {
	Name    string  `json:"step"`
	Outcome Outcome `json:"outcome"`
	Detail  string  `json:"detail"`
	Policy  string  `json:"policy,omitempty"` // id of the rule that matched
	At      string  `json:"at,omitempty"`
}

// Miss is the ALLOW rule that came nearest to letting a request in.
type Miss struct {
	Policy string   `json:"policy"`
	Rule   int      `json:"rule"`
	At     string   `json:"at"`
	Failed []Failed `json:"failed"`
}

// Failed is a condition that did not hold.
type Failed struct {
	Field string `json:"field"` // as the policy has it: "paths", "request.headers[x-version]"
	Want  string `json:"want"`
	Got   string `json:"got"`
	At    string `json:"at"`
}

// Exercised is a rule that matched, whether or not it decided.
func (v Verdict) Exercised() []string {
	var out []string
	for _, s := range v.Steps {
		if s.Policy != "" {
			out = append(out, s.Policy)
		}
	}
	return out
}

// run is one request on its way.
type run struct {
	ctx       context.Context
	config    *Config
	set       *policy.Set
	authorize Authorizer
	req       Request
	conn      connection
	headers   *headers
	metadata  metadata
	manager   *hcmv3.HttpConnectionManager // nil before HTTP is spoken
	assumed   string                       // the token whose signature is taken as good
	out       Verdict
	unknown   bool // something was not evaluated
	done      bool
}

// connection is what is known once a connection stands.
type connection struct {
	tls         bool
	peer        string // verified
	sni         string
	direct      netip.Addr
	remote      netip.Addr // of the client, as far as proxies in front are believed
	local       netip.Addr
	localPort   uint32
	chain, name string
}

// Explain evaluates one request. Set says where rules were written; authorize may be nil: CUSTOM policies are then not evaluated.
func (c *Config) Explain(ctx context.Context, set *policy.Set, authorize Authorizer, req Request) Verdict {
	if req.Now.IsZero() {
		req.Now = time.Now()
	}
	if req.Method == "" {
		req.Method = "GET"
	}
	if req.Path == "" {
		req.Path = "/"
	}
	if !req.SourceIP.IsValid() {
		req.SourceIP = netip.AddrFrom4([4]byte{127, 0, 0, 1})
	}
	r := &run{ctx: ctx, config: c, set: set, authorize: authorize, req: req, metadata: metadata{}, out: Verdict{Rule: NoRule, Steps: []Step{}}}
	r.connect()
	r.settle()
	return r.out
}

func (r *run) step(s Step) { r.out.Steps = append(r.out.Steps, s) }

func (r *run) pass(name, detail string) { r.step(Step{Name: name, Outcome: Passed, Detail: detail}) }

func (r *run) skip(name, detail string) { r.step(Step{Name: name, Outcome: Skipped, Detail: detail}) }

func (r *run) note(name, detail string) { r.step(Step{Name: name, Outcome: Noted, Detail: detail}) }

// unsure notes what was not evaluated: the verdict is then at best unknown.
func (r *run) unsure(name, detail string) {
	r.unknown = true
	r.step(Step{Name: name, Outcome: NotEvaluated, Detail: detail})
}

// deny ends the request.
func (r *run) deny(name string, code int, because string) {
	r.denied(name, code, because, decided{rule: NoRule})
}

// decided is who decided.
type decided struct {
	id, policy string
	rule       int
	at         string
}

func (r *run) denied(name string, code int, because string, by decided) {
	r.done = true
	code = r.replied(code)
	r.out.Code, r.out.Decision, r.out.Because, r.out.Policy, r.out.Rule, r.out.At = code, Deny, because, by.policy, by.rule, by.at
	r.step(Step{Name: name, Outcome: Denied, Detail: because, Policy: by.id, At: by.at})
}

func (r *run) allowed(code int, because string) {
	r.done = true
	r.out.Code, r.out.Decision = code, Allow
	if r.out.Because == "" {
		r.out.Because = because
	}
}

// settle makes the verdict unknown where something that might have refused was not evaluated. A refusal that came after it stands: the
// request is refused either way, though perhaps by somebody else.
func (r *run) settle() {
	if !r.done {
		r.out.Decision = Unknown
	}
	if r.unknown && r.out.Decision != Deny {
		r.out.Decision, r.out.Code = Unknown, 0
		for _, s := range r.out.Steps {
			if s.Outcome == NotEvaluated {
				r.out.Because = s.Name + ": " + s.Detail
			}
		}
	}
}
