package proxy

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/attest"
	"github.com/credence-mesh/credence/identity/ca"
	"github.com/credence-mesh/credence/identity/state"
	"github.com/credence-mesh/credence/internal/envoytest"
)

// credential is one that a real authority issued.
func credential(t *testing.T, w identity.Workload, ttl time.Duration) attest.Credential {
	t.Helper()
	dir, err := state.Open(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	authority, err := ca.Open(t.Context(), dir, domain)
	if err != nil {
		t.Fatal(err)
	}
	id, err := identity.ForServiceAccount(domain, w.Namespace, "sa")
	if err != nil {
		t.Fatal(err)
	}
	return issue(t, authority, w, id, ttl)
}

func issue(t *testing.T, authority *ca.Authority, w identity.Workload, id identity.ID, ttl time.Duration) attest.Credential {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	chain, err := authority.IssueChannel(t.Context(), w, id, key.Public(), ttl)
	if err != nil {
		t.Fatal(err)
	}
	return attest.Credential{Workload: w, ID: id, Chain: chain, Key: key, Bundle: authority.Bundle()}
}

func TestBootstrapIsAccepted(t *testing.T) {
	t.Parallel()
	for name, c := range map[string]struct {
		workload identity.Workload
		change   func(*Options)
		want     []string // what Envoy says about its node, or what the text has
	}{
		"plain":                {workload: identity.Workload{Namespace: "production", Name: "orders"}, want: []string{`"id": "production/orders~i1"`, `"cluster": "orders.production"`}},
		"names that are bools": {workload: identity.Workload{Namespace: "on", Name: "y"}, want: []string{`"id": "on/y~i1"`, `"cluster": "y.on"`}},
		"names that are numbers": {workload: identity.Workload{Namespace: "1e3", Name: "0x10"}, change: func(o *Options) { o.Instance = "007" },
			want: []string{`"id": "1e3/0x10~007"`}},
		"IPv6":              {workload: shop, change: func(o *Options) { o.XDSAddr = "[::1]:15010" }, want: []string{`"type": "STATIC"`, `"address": "::1"`}},
		"host name":         {workload: shop, change: func(o *Options) { o.XDSAddr = "localhost:15010" }, want: []string{`"type": "LOGICAL_DNS"`, `"sni": "localhost"`}},
		"admin on loopback": {workload: shop, change: func(o *Options) { o.Admin = "127.0.0.1:0" }, want: []string{`"id": "production/no~i1"`}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := Options{XDSAddr: "127.0.0.1:15010", Workload: c.workload, Instance: "i1", Credential: credential(t, c.workload, time.Hour)}
			if c.change != nil {
				c.change(&o)
			}
			b, err := Bootstrap(o)
			if err != nil {
				t.Fatal(err)
			}
			envoytest.Validate(t, b)
			e := envoytest.Start(t, b, envoytest.Options{NoWait: true})
			all := e.Get(t, "/server_info") + string(b)
			for _, want := range c.want {
				if !strings.Contains(all, want) {
					t.Errorf("%q is missing", want)
				}
			}
		})
	}
}

func TestBootstrapFromFilesHoldsNoKey(t *testing.T) {
	t.Parallel()
	dir, err := state.Open(filepath.Join(t.TempDir(), "proxy"))
	if err != nil {
		t.Fatal(err)
	}
	c := credential(t, shop, time.Hour)
	if err := WriteSDS(dir, c); err != nil {
		t.Fatal(err)
	}
	b, err := Bootstrap(Options{XDSAddr: "127.0.0.1:15010", Workload: shop, Instance: "i", Credential: c, SDSDir: dir.Path()})
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(b), "PRIVATE KEY") {
		t.Error("the bootstrap holds a private key")
	}
	envoytest.Validate(t, b)
	back, err := ReadSDS(dir)
	if err != nil {
		t.Fatal(err)
	}
	if back.Workload != shop || back.ID != c.ID || !back.Chain[0].Equal(c.Chain[0]) || !back.Bundle.Equal(c.Bundle) {
		t.Error("what was read is not what was written")
	}
	if err := dir.Write("channel.json", []byte(`{"resources": [{"private_key": "hush"`)); err != nil {
		t.Fatal(err)
	}
	if _, err := ReadSDS(dir); err == nil || strings.Contains(err.Error(), "hush") {
		t.Errorf("a damaged file: %v", err)
	}
}

func TestBootstrapRefuses(t *testing.T) {
	t.Parallel()
	good := credential(t, shop, time.Hour)
	for name, c := range map[string]struct {
		change func(*Options)
		want   string
	}{
		"no port":                   {func(o *Options) { o.XDSAddr = "127.0.0.1" }, "control plane"},
		"port 0":                    {func(o *Options) { o.XDSAddr = "127.0.0.1:0" }, "HOST:PORT"},
		"no host":                   {func(o *Options) { o.XDSAddr = ":15010" }, "HOST:PORT"},
		"no instance":               {func(o *Options) { o.Instance = "" }, "instance"},
		"somebody else's name":      {func(o *Options) { o.Workload.Name = "bank" }, "not of production/bank"},
		"a name that forges a node": {func(o *Options) { o.Workload.Name = "a~b" }, "NAMESPACE/NAME"},
		"no credential":             {func(o *Options) { o.Credential = attest.Credential{} }, "credential"},
		"admin for everybody":       {func(o *Options) { o.Admin = "0.0.0.0:9901" }, "loopback"},
		"admin by name":             {func(o *Options) { o.Admin = "example.org:9901" }, "admin address"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			o := Options{XDSAddr: "127.0.0.1:15010", Workload: shop, Instance: "i", Credential: good}
			c.change(&o)
			if b, err := Bootstrap(o); err == nil || !strings.Contains(err.Error(), c.want) || b != nil {
				t.Errorf("it gave %d bytes, %v; want %q", len(b), err, c.want)
			}
		})
	}
}
