package compile

import (
	"strings"

	"github.com/credence-mesh/credence/xds/ir"
)

// table gathers virtual hosts. A domain belongs to the first that claims it: Envoy refuses a table that names one twice.
type table struct {
	namespace string
	routes    ir.RouteTable
	taken     map[string]bool
	later     []func() // claims of ServiceEntries, after all of Services
}

func newTable(name, namespace string) *table {
	return &table{namespace: namespace, routes: ir.RouteTable{Name: name}, taken: map[string]bool{}}
}

// service adds all HTTP ports of a service: each by its number, and the first (port 80, where there is one) by the bare name too.
func (t *table) service(s *service) {
	if s.void {
		t.add(s, 0, ir.Respond{Status: 503}, s.domains(t.namespace))
		return
	}
	var bare *servicePort
	for i := range s.ports {
		if p := &s.ports[i]; p.protocol.IsHTTP() && (bare == nil || p.number == 80) {
			bare = p
		}
	}
	for i := range s.ports {
		if p := &s.ports[i]; p.protocol.IsHTTP() {
			names := s.domains(t.namespace)
			t.add(s, p.number, forward(p), withPort(names, p.number, p == bare))
		}
	}
}

// port adds one port of a service, by every name and by its addresses: captured applications may call an address, and then it is their Host.
func (t *table) port(s *service, number uint32) {
	if p, ok := s.port(number); ok {
		t.add(s, number, forward(p), withPort(append(s.domains(t.namespace), s.hostAddresses()...), number, true))
	}
}

// hostAddresses is the addresses of a service as a Host header has them (RFC 3986, 3.2.2).
func (s *service) hostAddresses() []string {
	out := make([]string, len(s.addresses))
	for i, a := range s.addresses {
		if out[i] = a; strings.Contains(a, ":") {
			out[i] = "[" + a + "]"
		}
	}
	return out
}

func forward(p *servicePort) ir.Action {
	return ir.Forward{To: []ir.Weighted{{Cluster: p.cluster.Name, Weight: 1}}}
}

func withPort(names []string, number uint32, bare bool) []string {
	var out []string
	for _, n := range names {
		if bare {
			out = append(out, n)
		}
		out = append(out, n+":"+decimal(number))
	}
	return out
}

// add claims the names of a v1 Service now, and those of a ServiceEntry once every Service has its own: nobody may take over the traffic of
// another namespace by a name that looks like its.
func (t *table) add(s *service, number uint32, action ir.Action, domains []string) {
	h := ir.VirtualHost{
		Name:    s.host + ":" + decimal(number),
		Routes:  []ir.Route{{Name: "default", Action: action}},
		Sources: []ir.Source{s.source},
	}
	n := len(t.routes.Hosts)
	t.routes.Hosts = append(t.routes.Hosts, h)
	for _, d := range domains {
		if s.name != "" {
			t.claim(n, d)
		} else {
			t.later = append(t.later, func() { t.claim(n, d) })
		}
	}
}

func (t *table) claim(host int, domain string) {
	if d := strings.ToLower(domain); !t.taken[d] {
		t.taken[d] = true
		t.routes.Hosts[host].Domains = append(t.routes.Hosts[host].Domains, domain)
	}
}

// done is the finished table: hosts that got no domain are left out, the fallback takes what is left.
func (t *table) done(fallback ir.VirtualHost) ir.RouteTable {
	for _, claim := range t.later {
		claim()
	}
	out := t.routes
	out.Hosts = nil
	for _, h := range t.routes.Hosts {
		if len(h.Domains) > 0 {
			out.Hosts = append(out.Hosts, h)
		}
	}
	if !t.taken["*"] {
		out.Hosts = append(out.Hosts, fallback)
	}
	return out
}
