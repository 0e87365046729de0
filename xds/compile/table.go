package compile

import (
	"slices"
	"strings"
	"sync"

	"github.com/credence-mesh/credence/xds/ir"
)

// client is who asks for the virtual hosts of a service.
type client struct {
	own      bool // of the service's namespace: the bare name is enough
	captured bool // may call an address, and then it is the Host
}

// clients is the number of kinds of client.
const clients = 4

func (c client) index() int {
	i := 0
	if c.own {
		i = 1
	}
	if c.captured {
		i += 2
	}
	return i
}

// routes is the virtual hosts of a service, made when first asked for, and shared by all tables that have them.
type routes [clients]struct {
	once  sync.Once
	hosts []portHost
}

// portHost is the virtual host of a port; number 0 is all of a service that could not be read.
type portHost struct {
	number uint32
	host   *ir.VirtualHost
}

// hosts is the virtual hosts of all HTTP ports of a service.
func (s *service) hosts(c client) []portHost {
	r := &s.routes[c.index()]
	r.once.Do(func() { r.hosts = s.makeHosts(c) })
	return r.hosts
}

// makeHosts: each port has its number behind every name. The bare names are the first port's (port 80's, where there is one) or, of captured
// traffic, where the port is known already, each port's.
func (s *service) makeHosts(c client) []portHost {
	names := s.domains(c.own)
	if s.void {
		return []portHost{{0, s.virtualHost(0, ir.Respond{Status: 503}, names)}}
	}
	if c.captured {
		names = append(names, s.hostAddresses()...)
	}
	var bare *servicePort
	for i := range s.ports {
		if p := &s.ports[i]; p.protocol.IsHTTP() && (bare == nil || p.number == 80 && bare.number != 80) {
			bare = p
		}
	}
	var out []portHost
	for i := range s.ports {
		listed := slices.ContainsFunc(out, func(h portHost) bool { return h.number == s.ports[i].number })
		if p := &s.ports[i]; p.protocol.IsHTTP() && !listed {
			to := ir.Forward{To: []ir.Weighted{{Cluster: p.cluster.Name, Weight: 1}}}
			out = append(out, portHost{p.number, s.virtualHost(p.number, to, withPort(names, p.number, c.captured || p == bare))})
		}
	}
	return out
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

func (s *service) virtualHost(number uint32, action ir.Action, domains []string) *ir.VirtualHost {
	return &ir.VirtualHost{
		Name: s.host + ":" + decimal(number), Domains: domains,
		Routes: []ir.Route{{Name: "default", Action: action}}, Sources: []ir.Source{s.source},
	}
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

// domains is the names by which a client may call a service, the most explicit first.
func (s *service) domains(own bool) []string {
	if s.name == "" {
		return []string{s.host}
	}
	full := s.name + "." + s.namespace
	out := []string{s.host, full + ".svc", full}
	if own {
		out = append(out, s.name)
	}
	return out
}

// plain tells whether no other v1 Service can have a name that a client calls this one by: name and namespace are DNS labels (RFC 1123), so
// that the number of dots tells the forms of a name apart.
func (s *service) plain(c client) bool {
	return s.name != "" && (!c.captured || len(s.addresses) == 0) && s.labelled
}

func isLabel(s string) bool {
	for i := range len(s) {
		if c := s[i]; (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return s != ""
}

// table gathers the virtual hosts of services. A domain belongs to the first that claims it: Envoy refuses a table that names one twice.
type table struct {
	namespace string
	captured  bool
	services  []*service // sorted by host, one a host
	hosts     []*ir.VirtualHost
	odd       []claim // hosts that another may have a name of
	taken     map[string]bool
}

// claim is a host of the table whose names may be taken.
type claim struct {
	at     int // in hosts
	of     *service
	client client
}

// newTable is a table of all HTTP ports of services, or, of captured traffic, of one port.
func newTable(name, namespace string, services []*service, captured bool, port uint32, fallback *ir.VirtualHost) ir.RouteTable {
	t := &table{namespace: namespace, captured: captured, services: services, hosts: make([]*ir.VirtualHost, 0, len(services)+1), taken: map[string]bool{}}
	for _, s := range services {
		c := t.client(s)
		plain := s.plain(c)
		for _, h := range s.hosts(c) {
			if captured && h.number != port {
				continue
			}
			if !plain {
				t.odd = append(t.odd, claim{len(t.hosts), s, c})
			}
			t.hosts = append(t.hosts, h.host)
		}
	}
	t.settle()
	if !t.taken["*"] {
		t.hosts = append(t.hosts, fallback)
	}
	return ir.RouteTable{Name: name, Hosts: t.hosts, Shared: true}
}

func (t *table) client(s *service) client {
	return client{own: s.namespace == t.namespace, captured: t.captured}
}

// settle gives every name to one host: those of v1 Services first, because nobody may take over the traffic of another namespace by a name
// that looks like its. Hosts that are left without a name go.
func (t *table) settle() {
	if len(t.odd) == 0 {
		return
	}
	for _, entries := range []bool{false, true} {
		for _, c := range t.odd {
			if entries == (c.of.name == "") {
				t.hosts[c.at] = t.claimed(t.hosts[c.at])
			}
		}
	}
	t.hosts = slices.DeleteFunc(t.hosts, func(h *ir.VirtualHost) bool { return len(h.Domains) == 0 })
}

// claimed is a host with those of its names that are free.
func (t *table) claimed(h *ir.VirtualHost) *ir.VirtualHost {
	var free []string
	for _, domain := range h.Domains {
		if d := strings.ToLower(domain); !t.taken[d] && !t.plainly(d) {
			t.taken[d] = true
			free = append(free, domain)
		}
	}
	if len(free) == len(h.Domains) {
		return h
	}
	return &ir.VirtualHost{Name: h.Name, Domains: free, Routes: h.Routes, Sources: h.Sources}
}

// plainly tells whether a plain service of the table has a domain.
func (t *table) plainly(domain string) bool {
	name := domain
	if i := strings.LastIndexByte(name, ':'); i >= 0 {
		name = name[:i]
	}
	name = strings.TrimSuffix(strings.TrimSuffix(name, "."+dnsDomain), ".svc")
	short, namespace, ok := strings.Cut(name, ".")
	if !ok {
		namespace = t.namespace
	}
	i, ok := slices.BinarySearchFunc(t.services, short+"."+namespace+".svc."+dnsDomain, func(s *service, h string) int { return strings.Compare(s.host, h) })
	if !ok || !t.services[i].plain(t.client(t.services[i])) {
		return false
	}
	return slices.ContainsFunc(t.services[i].hosts(t.client(t.services[i])), func(h portHost) bool { return slices.Contains(h.host.Domains, domain) })
}
