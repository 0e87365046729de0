package identity

import (
	"testing"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
)

func TestMatcher(t *testing.T) {
	t.Parallel()
	td := spiffeid.RequireTrustDomainFromString("cluster.local")
	orders := spiffeid.RequireFromString("spiffe://cluster.local/ns/production/sa/orders")
	longer := spiffeid.RequireFromString("spiffe://cluster.local/ns/production/sa/orders2")
	foreign := spiffeid.RequireFromString("spiffe://evil.example/ns/production/sa/orders")
	for _, c := range []struct {
		name    string
		matcher Matcher
		id      ID
		want    bool
	}{
		{"the same", MatchID(orders), orders, true},
		{"a longer one", MatchID(orders), longer, false},
		{"of another trust domain", MatchID(orders), foreign, false},
		{"of the trust domain", MatchTrustDomain(td), longer, true},
		{"not of the trust domain", MatchTrustDomain(td), foreign, false},
		{"nobody, of the trust domain", MatchTrustDomain(td), ID{}, false},
		{"nobody's matcher", Matcher{}, orders, false},
		{"nobody's matcher and nobody", Matcher{}, ID{}, false},
		{"a matcher of nobody and nobody", MatchID(ID{}), ID{}, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			if got := c.matcher.Match(c.id); got != c.want {
				t.Errorf("got %v", got)
			}
		})
	}
}

func TestReserved(t *testing.T) {
	t.Parallel()
	for id, want := range map[string]bool{
		"spiffe://cluster.local/credence/server":  true,
		"spiffe://cluster.local/credence":         true,
		"spiffe://cluster.local/credence/a/b":     true,
		"spiffe://cluster.local/credences/server": false,
		"spiffe://cluster.local/ns/credence/sa/a": false,
		"spiffe://cluster.local":                  false,
	} {
		if got := Reserved(spiffeid.RequireFromString(id)); got != want {
			t.Errorf("%s: got %v", id, got)
		}
	}
}
