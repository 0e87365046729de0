package opa

import (
	"fmt"
	"sync"
	"testing"
	"time"

	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"

	"github.com/credence-mesh/credence/policy"
)

var tenantA = claims{"iss": "https://auth.example.com/", "tenant_id": "A", "roles": []any{"user"}, "exp": 4102444800, "scope": "read write"}

// TestTenantIsolation asks both our policy and that of the seeds.
func TestTenantIsolation(t *testing.T) {
	t.Parallel()
	for _, policyCase := range []struct{ name, text string }{{"own", local(t, "tenant.rego")}, {"seeds", ""}} {
		t.Run(policyCase.name, func(t *testing.T) {
			t.Parallel()
			if policyCase.text == "" {
				policyCase.text = seed(t, "opa/tenant_isolation.rego")
			}
			s, problems := newService(t, Options{}, module1("tenant.rego", policyCase.text))
			if len(problems) != 0 {
				t.Fatal(problems)
			}
			bearer := map[string]string{"authorization": "Bearer " + signed(t, tenantA)}
			for path, want := range map[string]int{
				"/api/v1/tenants/A": 200, "/api/v1/tenants/A/orders": 200, "/api/v1/%74enants/A": 200,
				"/api/v1/tenants/A?q=1": 200, "/api/v1/tenants/A?x=/tenants/B": 200, // B24
				"/api/v1/tenants/B": 403, "/api/v1/tenants/B/": 403, "/api//v1/tenants/B": 403, "//api/v1/tenants/B": 403,
				"/api/v1/%74enants/B": 403, "/api/v1/tenants/%42": 403, "/%61pi/v1/tenants/B": 403,
				"/api/v1%2ftenants/B": 400, "/api/v1%5ctenants/B": 400, `/api/v1\tenants\B`: 400, "/api/v1/tenants/A%2f..%2fB": 400,
				"/api/v1/tenants/A/../B": 400, "/api/v1/tenants/A/%2e%2e/B": 400, "/api/v1/./tenants/B": 400, "/api/v1/tenants/A/..;/B": 400,
				"/api/v1/tenants;a=b/B": 400, "/api/v1/tenants%3ba=b/B": 400, "/api/v1/tenants/A/%252e%252e/B": 400, "/api/v1/tenants%00/B": 400,
				"/api/v1/tenants/A#/../B": 400, "/api/v1/tenants/%c0%af": 400, "/api/v1/tenants/%": 400, "api/v1/tenants/A": 400, "": 400,
			} {
				if got := code(t, s, ask(t, path, bearer, tenantA)); got != want {
					t.Errorf("%s: %d, want %d", path, got, want)
				}
			}
		})
	}
}

// A6: a token that nobody verified on this hop is not there.
func TestForgedTokens(t *testing.T) {
	t.Parallel()
	admin := claims{"tenant_id": "A", "roles": []any{"admin"}, "exp": 4102444800}
	reads := `package envoy.authz
import rego.v1
default allow := false
allow if {
	some value in array.concat([v | some v in input.attributes.request.http.headers], [v | some list in input.parsed_query; some v in list])
	some word in regex.split("[ ;,=]", value)
	[_, payload, _] := io.jwt.decode(word)
	"admin" in payload.roles
}`
	seeds := "seeds"
	for _, c := range []struct {
		name, text, path string
		headers          map[string]string
		verified         claims
		want             int
	}{
		{name: "seeds: verified admin", text: seeds, path: "/api/v1/tenants/B", headers: map[string]string{"authorization": "Bearer " + signed(t, admin)}, verified: admin, want: 200},
		{name: "seeds: alg none", text: seeds, path: "/api/v1/tenants/B", headers: map[string]string{"authorization": "Bearer " + forged(t, admin)}, want: 403},
		{name: "seeds: signed but not verified here", text: seeds, path: "/api/v1/tenants/B", headers: map[string]string{"authorization": "Bearer " + signed(t, admin)}, want: 403},
		{name: "seeds: another token was verified", text: seeds, path: "/api/v1/tenants/B", headers: map[string]string{"authorization": "Bearer " + forged(t, admin)}, verified: tenantA, want: 403},
		{name: "header", text: reads, path: "/", headers: map[string]string{"x-token": forged(t, admin)}, verified: tenantA, want: 403},
		{name: "header, verified", text: reads, path: "/", headers: map[string]string{"x-token": signed(t, admin)}, verified: admin, want: 200},
		{name: "cookie", text: reads, path: "/", headers: map[string]string{"cookie": "a=b; session=" + forged(t, admin)}, want: 403},
		{name: "two tokens", text: reads, path: "/", headers: map[string]string{"authorization": "Bearer " + signed(t, tenantA) + "," + forged(t, admin)}, verified: tenantA, want: 403},
		{name: "query", text: reads, path: "/?access_token=" + forged(t, admin), want: 403},
		{name: "encoded query", text: reads, path: "/?access_token=%65" + forged(t, admin)[1:], want: 403},
		{name: "basic credentials stay", text: "package envoy.authz\nimport rego.v1\nallow if input.attributes.request.http.headers.authorization == \"Basic YTpi\"", path: "/", headers: map[string]string{"authorization": "Basic YTpi"}, want: 200},
		{name: "scope that Envoy split", text: "package envoy.authz\nimport rego.v1\nallow if io.jwt.decode(substring(input.attributes.request.http.headers.authorization, 7, -1))", path: "/",
			headers: map[string]string{"authorization": "Bearer " + signed(t, tenantA)}, verified: claims{"iss": tenantA["iss"], "tenant_id": "A", "roles": []any{"user"}, "exp": 4102444800, "scope": []any{"read", "write"}}, want: 200},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			text := c.text
			if text == seeds {
				text = seed(t, "opa/tenant_isolation.rego")
			}
			s, problems := newService(t, Options{}, module1("x.rego", text))
			if len(problems) != 0 {
				t.Fatal(problems)
			}
			if got := code(t, s, ask(t, c.path, c.headers, c.verified)); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}

func TestPlatformPolicyOfTheSeeds(t *testing.T) {
	t.Parallel()
	s, problems := newService(t, Options{}, module1("platform.rego", seed(t, "opa/platform_authz.rego")))
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	operator := claims{"tenant_id": "ops", "roles": "platform_admin"}
	for _, c := range []struct {
		path     string
		verified claims
		want     int
	}{
		{"/tenants/A/x", tenantA, 200}, {"/tenants/B/x", tenantA, 403}, {"/status", tenantA, 200}, {"/status", nil, 403},
		{"/tenants/B/x", operator, 200}, {"/tenants/A/tenants/B", tenantA, 403},
	} {
		if got := code(t, s, ask(t, c.path, nil, c.verified)); got != c.want {
			t.Errorf("%s: %d, want %d", c.path, got, c.want)
		}
	}
}

// C40, C42: whatever is not a clear yes is a no.
func TestNoClearYesIsNo(t *testing.T) {
	t.Parallel()
	for _, c := range []struct {
		name, rule string
		reason     Reason
	}{
		{"undefined", `allow if input.nothing`, Undefined},
		{"number", `allow := 1`, Invalid},
		{"string", `allow := "true"`, Invalid},
		{"null", `allow := null`, Invalid},
		{"object without a verdict", `allow := {"headers": {}}`, Invalid},
		{"object with a verdict of text", `allow := {"allowed": "true"}`, Invalid},
		{"pseudo header", `allow := {"allowed": true, "headers": {":path": "/admin"}}`, Invalid},
		{"split header", `allow := {"allowed": true, "headers": {"x": "a\r\nb: c"}}`, Invalid},
		{"host removed", `allow := {"allowed": true, "request_headers_to_remove": ["Host"]}`, Invalid},
		{"status of success", `allow := {"allowed": false, "http_status": 200}`, Invalid},
		{"conflict", "allow := true if input.path\nallow := false if input.method", Failed},
		{"endless", `allow if count([1 | some i in numbers.range(1, 3000); some j in numbers.range(1, 3000); i * j == -1]) == 0`, TimedOut},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			s, problems := newService(t, Options{}, module1("x.rego", "package envoy.authz\nimport rego.v1\n"+c.rule))
			if len(problems) != 0 {
				t.Fatal(problems)
			}
			if c.reason == TimedOut {
				s.options.Timeout = 20 * time.Millisecond
			}
			resp := check(t, s, ask(t, "/", nil, nil))
			if resp.GetDeniedResponse().GetStatus().GetCode() != 403 || reason(resp) != string(c.reason) || resp.GetDeniedResponse().GetBody() != "" {
				t.Errorf("%v", resp)
			}
		})
	}
}

func TestResultForms(t *testing.T) {
	t.Parallel()
	s, problems := newService(t, Options{}, module1("x.rego", `package envoy.authz
import rego.v1
allow := {
	"allowed": true, "headers": {"x-a": "1", "x-b": ["2", "3"]}, "response_headers_to_add": {"x-c": "4"}, "request_headers_to_remove": ["x-d"],
	"query_parameters_to_set": {"q": "5"}, "query_parameters_to_remove": ["r"], "dynamic_metadata": {"k": {"n": 1}},
} if input.path == "/ok"
allow := {"allowed": false, "http_status": 429, "body": "slow down", "headers": {"retry-after": "7"}} if input.path == "/no"`))
	if len(problems) != 0 {
		t.Fatal(problems)
	}
	resp := check(t, s, ask(t, "/ok", nil, nil))
	ok := resp.GetOkResponse()
	if len(ok.GetHeaders()) != 3 || ok.GetHeaders()[2].GetHeader().GetValue() != "3" || ok.GetResponseHeadersToAdd()[0].GetHeader().GetKey() != "x-c" ||
		ok.GetHeadersToRemove()[0] != "x-d" || ok.GetQueryParametersToSet()[0].GetValue() != "5" || ok.GetQueryParametersToRemove()[0] != "r" {
		t.Errorf("%v", ok)
	}
	m := resp.GetDynamicMetadata().GetFields()
	if m["k"].GetStructValue().GetFields()["n"].GetNumberValue() != 1 || len(m["decision_id"].GetStringValue()) != 36 {
		t.Errorf("%v", m)
	}
	denied := check(t, s, ask(t, "/no", nil, nil)).GetDeniedResponse()
	if denied.GetStatus().GetCode() != 429 || denied.GetBody() != "slow down" || denied.GetHeaders()[0].GetHeader().GetValue() != "7" {
		t.Errorf("%v", denied)
	}
}

func TestProviderChoosesItsDecision(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, Options{}, module1("a.rego", "package envoy.authz\nallow := true"), module1("b.rego", "package other.place\nadmit := false"))
	for chosen, want := range map[string]int{"": 200, "other/place/admit": 403, "data.envoy.authz.allow": 200, "no/such": 403, "envoy/authz": 403} {
		req := ask(t, "/", map[string]string{DecisionKey: "envoy/authz/allow"}, nil)
		req.Attributes.ContextExtensions = map[string]string{DecisionKey: chosen}
		if got := code(t, s, req); got != want {
			t.Errorf("%q: %d, want %d", chosen, got, want)
		}
	}
}

func TestBodies(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, Options{}, module1("x.rego", "package envoy.authz\nimport rego.v1\nallow if input.parsed_body.kind == \"a\"\nallow if input.parsed_body.kind[0] == \"a\"\nallow if { input.parsed_body == null; input.path == \"/none\" }"))
	form := "--b\r\nContent-Disposition: form-data; name=\"kind\"\r\n\r\na\r\n--b--\r\n"
	for _, c := range []struct {
		name, path, kind, body string
		headers                map[string]string
		want                   int
	}{
		{"json", "/", "application/json; charset=utf-8", `{"kind":"a"}`, nil, 200},
		{"json, other", "/", "application/json", `{"kind":"b"}`, nil, 403},
		{"form", "/", "application/x-www-form-urlencoded", "kind=a", nil, 200},
		{"multipart", "/", "multipart/form-data; boundary=b", form, nil, 200},
		{"none", "/none", "", "", nil, 200},
		{"other type", "/none", "text/plain", "x", nil, 200},
		{"no JSON", "/none", "application/json", `{"kind":`, nil, 400},
		{"two documents", "/none", "application/json", `{} {}`, nil, 400},
		{"cut by Envoy", "/none", "text/plain", "x", map[string]string{"x-envoy-auth-partial-body": "true"}, 413},
		{"shorter than said", "/", "application/json", `{"kind":"a"}`, map[string]string{"content-length": "1000"}, 413},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			headers := map[string]string{"content-type": c.kind}
			for k, v := range c.headers {
				headers[k] = v
			}
			req := ask(t, c.path, headers, nil)
			req.Attributes.Request.Http.RawBody = []byte(c.body)
			if got := code(t, s, req); got != c.want {
				t.Errorf("%d, want %d", got, c.want)
			}
		})
	}
}

func TestBeforeTheFirstUpdate(t *testing.T) {
	t.Parallel()
	s, _ := newService(t, Options{})
	s.policies.Store(nil)
	if got := check(t, s, ask(t, "/", nil, nil)); got.GetOkResponse() != nil || reason(got) != string(NotLoaded) {
		t.Errorf("%v", got)
	}
	if got, err := s.Check(t.Context(), nil); err != nil || got.GetOkResponse() != nil {
		t.Errorf("a request of nothing: %v, %v", got, err)
	}
	s.Update(setOf())
	if got, err := s.Check(t.Context(), &authv3.CheckRequest{}); err != nil || got.GetOkResponse() != nil {
		t.Errorf("no policy: %v, %v", got, err)
	}
}

// C45: a log that stands still holds no request up.
func TestLogThatStandsStill(t *testing.T) {
	t.Parallel()
	logged := make(chan Decision)
	s, _ := newService(t, Options{Log: func(d Decision) { logged <- d }, LogQueue: 4}, module1("a.rego", "package envoy.authz\nallow := true"))
	for i := range 100 {
		if got := code(t, s, ask(t, fmt.Sprintf("/%d", i), nil, nil)); got != 200 {
			t.Fatal(got)
		}
	}
	done := make(chan error, 1)
	go func() { done <- s.Run(t.Context()) }()
	if d := <-logged; d.Path != "/0" || !d.Allowed || d.Reason != Policy || d.Decision != "data.envoy.authz.allow" {
		t.Errorf("%+v", d)
	}
	for range 3 {
		<-logged
	}
	t.Cleanup(func() {
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
}

// C43, C47: policies are swapped while requests are decided, and each request sees one set of them.
func TestUpdateUnderLoad(t *testing.T) {
	t.Parallel()
	text := func(v string) string {
		return "package envoy.authz\nimport rego.v1\nallow := {\"allowed\": true, \"headers\": {\"a\": data.other.v, \"b\": \"" + v + "\"}}"
	}
	set := func(v string) *policy.Set {
		return setOf(module1("a.rego", text(v)), module1("b.rego", "package other\nv := \""+v+"\""))
	}
	s, _ := newService(t, Options{})
	s.Update(set("0"))
	var wg sync.WaitGroup
	done := make(chan struct{})
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				h := check(t, s, ask(t, "/", nil, nil)).GetOkResponse().GetHeaders()
				if len(h) != 2 || h[0].GetHeader().GetValue() != h[1].GetHeader().GetValue() {
					t.Errorf("one decision saw two sets of policies: %v", h)
					return
				}
			}
		})
	}
	for i := range 30 {
		s.Update(set(fmt.Sprint(i)))
	}
	close(done)
	wg.Wait()
}
