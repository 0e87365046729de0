package snapshot

import (
	"cmp"
	"slices"
	"sync"
	"time"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/xds/resource"
)

// Status is the account of what every connected proxy wants, was sent, and took.
type Status struct {
	views interface {
		State(identity.Workload) State
	}
	mu      sync.Mutex
	proxies map[*Proxy]struct{}
	totals  [resource.NumTypes]totals
}

type totals struct {
	sent, acked, nacked uint64
	bytes               uint64
}

// NewStatus makes an account beside the pipeline whose views are wanted.
func NewStatus(p *Pipeline) *Status {
	return &Status{views: p, proxies: map[*Proxy]struct{}{}}
}

// Proxy is the account of one stream. Its stream writes it; anybody may read it through Status.
type Proxy struct {
	status *Status
	about  Peer
	since  time.Time

	mu    sync.Mutex
	types [resource.NumTypes]typeAccount
	nack  *Nack
}

type typeAccount struct {
	sent, acked string
	subscribed  bool
}

// Peer is who is at the other end of a stream.
type Peer struct {
	Workload identity.Workload
	Instance string
	ID       identity.ID
	Serial   string    // of its certificate
	NotAfter time.Time // end of its certificate; zero where it showed none
	Address  string
	Version  string // of Envoy, as it says
	SotW     bool
}

// Nack is a refusal.
type Nack struct {
	When      time.Time `json:"when"`
	Type      string    `json:"type"`
	Says      string    `json:"says"`      // Envoy's own words, cut to a bound
	Resources []string  `json:"resources"` // what is withheld because of it
	Sources   []string  `json:"sources"`   // the objects of the user that these came from
}

// TypeStatus is how far a proxy is with one type.
type TypeStatus struct {
	Type   string `json:"type"`
	Wanted string `json:"wanted"`
	Sent   string `json:"sent"`
	Acked  string `json:"acked"`
	InStep bool   `json:"inStep"`
}

// ProxyStatus is how far a proxy is.
type ProxyStatus struct {
	Workload   string       `json:"workload"`
	Instance   string       `json:"instance"`
	Identity   string       `json:"identity"`
	Address    string       `json:"address"`
	Envoy      string       `json:"envoy,omitempty"`
	Protocol   string       `json:"protocol"` // delta, sotw
	Since      time.Time    `json:"since"`
	Credential time.Time    `json:"credentialExpires,omitzero"`
	Types      []TypeStatus `json:"types"`
	Nack       *Nack        `json:"nack,omitempty"` // the last one; null since everything was taken again
	InStep     bool         `json:"inStep"`
}

// Connect opens the account of a stream; Close ends it.
func (s *Status) Connect(p Peer) *Proxy {
	x := &Proxy{status: s, about: p, since: time.Now()}
	s.mu.Lock()
	s.proxies[x] = struct{}{}
	s.mu.Unlock()
	return x
}

// Close ends the account.
func (p *Proxy) Close() {
	p.status.mu.Lock()
	delete(p.status.proxies, p)
	p.status.mu.Unlock()
}

// Sent notes a response of some bytes that brings a type to a version.
func (p *Proxy) Sent(t resource.Type, version string, bytes int) {
	p.mu.Lock()
	p.types[t].subscribed, p.types[t].sent = true, version
	p.mu.Unlock()
	p.status.count(t, totals{sent: 1, bytes: uint64(bytes)})
}

// Reached notes that a type stands at a version without a response: nothing that the proxy asked for differs.
func (p *Proxy) Reached(t resource.Type, version string, whole bool) {
	p.mu.Lock()
	a := &p.types[t]
	if whole {
		a.acked = version
	}
	a.subscribed, a.sent = true, version
	p.mu.Unlock()
}

// Acked notes that the proxy took a version. While it refuses something of the type the version is not counted as taken.
func (p *Proxy) Acked(t resource.Type, version string, whole bool) {
	p.mu.Lock()
	if whole {
		p.types[t].acked = version
		if p.nack != nil && p.nack.Type == t.String() {
			p.nack = nil
		}
	}
	p.mu.Unlock()
	p.status.count(t, totals{acked: 1})
}

// Nacked notes a refusal.
func (p *Proxy) Nacked(t resource.Type, n Nack) {
	p.mu.Lock()
	p.nack = &n
	p.mu.Unlock()
	p.status.count(t, totals{nacked: 1})
}

func (s *Status) count(t resource.Type, n totals) {
	s.mu.Lock()
	c := &s.totals[t]
	c.sent, c.acked, c.nacked, c.bytes = c.sent+n.sent, c.acked+n.acked, c.nacked+n.nacked, c.bytes+n.bytes
	s.mu.Unlock()
}

// Proxies lists the connected proxies, by workload and instance.
func (s *Status) Proxies() []ProxyStatus {
	s.mu.Lock()
	open := make([]*Proxy, 0, len(s.proxies))
	for p := range s.proxies {
		open = append(open, p)
	}
	s.mu.Unlock()
	out := make([]ProxyStatus, 0, len(open))
	for _, p := range open {
		out = append(out, p.read())
	}
	slices.SortFunc(out, func(a, b ProxyStatus) int {
		return cmp.Or(cmp.Compare(a.Workload, b.Workload), cmp.Compare(a.Instance, b.Instance), a.Since.Compare(b.Since))
	})
	return out
}

func (p *Proxy) read() ProxyStatus {
	view := p.status.views.State(p.about.Workload).View
	p.mu.Lock()
	defer p.mu.Unlock()
	out := ProxyStatus{Workload: p.about.Workload.String(), Instance: p.about.Instance, Identity: p.about.ID.String(), Address: p.about.Address,
		Envoy: p.about.Version, Protocol: "delta", Since: p.since, Credential: p.about.NotAfter, Nack: p.nack, InStep: p.nack == nil}
	if p.about.SotW {
		out.Protocol = "sotw"
	}
	for t, a := range p.types {
		if !a.subscribed {
			continue
		}
		ty := resource.Type(t)
		st := TypeStatus{Type: ty.String(), Wanted: a.sent, Sent: a.sent, Acked: a.acked}
		if view != nil && ty != resource.Secret {
			st.Wanted = view.Version(ty)
		}
		st.InStep = st.Wanted == st.Acked
		out.InStep = out.InStep && st.InStep
		out.Types = append(out.Types, st)
	}
	return out
}
