package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"

	"github.com/credence-mesh/credence/console"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/snapshot"
)

func TestPrintStatus(t *testing.T) {
	t.Parallel()
	now := time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)
	s := console.Status{
		Version: "v1", Ready: true, Started: now.Add(-3 * time.Hour), Objects: 1, Workloads: 2,
		Proxies: []snapshot.ProxyStatus{
			{Workload: "production/payment-1", Instance: "a", Identity: "spiffe://cluster.local/ns/production/sa/payment", Since: now.Add(-time.Minute),
				Credential: now.Add(3 * 24 * time.Hour), Types: []snapshot.TypeStatus{{Type: "cds", Wanted: "x", Acked: "x", InStep: true}}, InStep: true},
			{Workload: "production/order-1", Instance: "b", Since: now, Types: []snapshot.TypeStatus{{Type: "lds", Wanted: "y", Acked: "x"}},
				Nack: &snapshot.Nack{When: now.Add(-time.Second), Type: "lds", Says: "bad listener", Sources: []string{"EnvoyFilter production/x (a.yaml:3)"}}},
		},
		Problems: []policy.Problem{{At: policy.Origin{File: "a.yaml", Line: 3}, Object: "Service default/x", Field: "spec.ports", Code: "UNKNOWN_FIELD", Says: "no field", Try: "ports"}},
	}
	var out strings.Builder
	if err := printStatus(&out, s, now); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{
		"credence v1, ready, up 3h: 1 object in force, 2 workloads, 2 proxies connected",
		"in 3d", "in step", "cds x", "REFUSED", "lds x of y",
		"production/order-1~b refused lds 1s ago", "from EnvoyFilter production/x (a.yaml:3)",
		"a.yaml:3: error: no field [UNKNOWN_FIELD]", "try  ports",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("no %q in\n%s", want, out.String())
		}
	}
}

func TestFlagsFromTheEnvironment(t *testing.T) {
	t.Setenv("CREDENCE_XDS_ADDR", "0.0.0.0:1")
	t.Setenv("CREDENCE_ADMIN_ADDR", "127.0.0.1:2")
	cmd := newServe()
	if err := cmd.ParseFlags([]string{"--admin-addr", "127.0.0.1:3"}); err != nil {
		t.Fatal(err)
	}
	if err := fromEnvironment(cmd.Flags()); err != nil {
		t.Fatal(err)
	}
	if got := cmd.Flag("xds-addr").Value.String(); got != "0.0.0.0:1" {
		t.Errorf("xds-addr is %s, want that of the environment", got)
	}
	if got := cmd.Flag("admin-addr").Value.String(); got != "127.0.0.1:3" {
		t.Errorf("admin-addr is %s, want that of the command line", got)
	}
}

func TestServerNames(t *testing.T) {
	t.Parallel()
	dns, ips := serverNames("10.0.0.2:15012", []string{"cp.example.com", "10.0.0.3", "localhost"})
	if strings.Join(dns, " ") != "localhost cp.example.com" || len(ips) != 4 {
		t.Errorf("%v %v", dns, ips)
	}
	if _, ips := serverNames("0.0.0.0:15012", nil); len(ips) != 2 {
		t.Errorf("an unspecified address is named: %v", ips)
	}
}

func TestProblemsSurviveTheAdminAPI(t *testing.T) {
	t.Parallel()
	for _, severity := range []policy.Severity{policy.Error, policy.Warning, policy.Info} {
		p := policy.Problem{At: policy.Origin{File: "a.yaml", Line: 3}, Object: "o", Field: "f", Code: "C", Says: "s", Try: "t", Severity: severity}
		b, err := json.Marshal(p)
		if err != nil {
			t.Fatal(err)
		}
		var got policy.Problem
		if err := json.Unmarshal(b, &got); err != nil || got != p {
			t.Errorf("%s became %v, %v", b, got, err)
		}
	}
}
