package explain

import (
	"fmt"
	"net"
	"strings"

	routev3 "github.com/envoyproxy/go-control-plane/envoy/config/route/v3"
)

// route finds where the request goes.
func (r *run) route(table *routev3.RouteConfiguration) {
	if table == nil {
		r.unsure("route", "the route table is not in the configuration")
		return
	}
	host := virtualHost(table, r.headers.value(":authority"))
	if host == nil {
		r.deny("route", 404, "no route is for host "+r.headers.value(":authority"))
		return
	}
	for _, x := range host.GetRoutes() {
		switch r.config.remembered.route(x.GetMatch(), r.headers) {
		case yes:
			r.routed(x)
			return
		case maybe:
			r.unsure("route", "route "+x.GetName()+" is matched in a way that cannot be evaluated here")
			return
		case no:
		}
	}
	r.deny("route", 404, "no route matches "+withoutQuery(r.headers.path()))
}

func (r *run) routed(x *routev3.Route) {
	switch a := x.GetAction().(type) {
	case *routev3.Route_DirectResponse:
		code := int(a.DirectResponse.GetStatus())
		if code >= 400 {
			r.deny("route", code, fmt.Sprintf("route %s answers %d by itself", x.GetName(), code))
			return
		}
		r.pass("route", fmt.Sprintf("route %s answers %d by itself", x.GetName(), code))
		r.allowed(code, "a route answers by itself")
	case *routev3.Route_Redirect:
		code, ok := map[routev3.RedirectAction_RedirectResponseCode]int{
			routev3.RedirectAction_MOVED_PERMANENTLY: 301, routev3.RedirectAction_FOUND: 302, routev3.RedirectAction_SEE_OTHER: 303,
			routev3.RedirectAction_TEMPORARY_REDIRECT: 307, routev3.RedirectAction_PERMANENT_REDIRECT: 308,
		}[a.Redirect.GetResponseCode()]
		if !ok {
			r.unsure("route", "a redirect of an unknown kind")
			return
		}
		r.pass("route", fmt.Sprintf("route %s redirects", x.GetName()))
		r.allowed(code, "a route redirects")
	case *routev3.Route_Route:
		r.forward(x, a.Route)
	default:
		r.unsure("route", "route "+x.GetName()+" has an action that cannot be evaluated here")
	}
}

func (r *run) forward(x *routev3.Route, a *routev3.RouteAction) {
	cluster := a.GetCluster()
	var shares []string
	for _, w := range a.GetWeightedClusters().GetClusters() {
		if w.GetWeight().GetValue() > 0 {
			shares = append(shares, w.GetName())
		}
	}
	if len(shares) == 1 {
		cluster = shares[0]
	}
	switch {
	case cluster != "" && !r.config.clusters[cluster]:
		r.deny("route", 500, "the backend of route "+x.GetName()+" is not valid")
	case cluster != "":
		r.pass("route", "goes to "+cluster)
		r.allowed(200, "nothing refuses it")
	case len(shares) > 1:
		r.pass("route", "goes to one of "+strings.Join(shares, ", "))
		r.allowed(200, "nothing refuses it")
	default:
		r.unsure("route", "route "+x.GetName()+" chooses its cluster in a way that cannot be evaluated here")
	}
}

// virtualHost follows Envoy's order: the exact name, then the longest suffix, the longest prefix, and the rest.
func virtualHost(table *routev3.RouteConfiguration, authority string) *routev3.VirtualHost {
	authority = strings.ToLower(authority)
	if table.GetIgnorePortInHostMatching() {
		if h, _, err := net.SplitHostPort(authority); err == nil {
			authority = h
		}
	}
	var best *routev3.VirtualHost
	rank := 0
	for _, v := range table.GetVirtualHosts() {
		for _, d := range v.GetDomains() {
			if n := fits(strings.ToLower(d), authority); n > rank {
				best, rank = v, n
			}
		}
	}
	return best
}

// fits ranks how well a domain covers a host; 0: not at all.
func fits(domain, host string) int {
	const exact, suffix, prefix = 1 << 22, 1 << 21, 1 << 20
	switch {
	case domain == host:
		return exact
	case domain == "*":
		return 1
	case strings.HasPrefix(domain, "*") && strings.HasSuffix(host, domain[1:]) && len(host) > len(domain)-1:
		return suffix + len(domain)
	case strings.HasSuffix(domain, "*") && strings.HasPrefix(host, domain[:len(domain)-1]) && len(host) > len(domain)-1:
		return prefix + len(domain)
	default:
		return 0
	}
}
