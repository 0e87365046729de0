package opa

import (
	"testing"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/ast"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/timestamppb"
)

// TestAttributesAreTheJSONForm compares what is built by hand with what protobuf's own JSON encoder gives, which is what opa-envoy-plugin uses.
func TestAttributesAreTheJSONForm(t *testing.T) {
	t.Parallel()
	socket := func(port uint32) *corev3.Address {
		return &corev3.Address{Address: &corev3.Address_SocketAddress{SocketAddress: &corev3.SocketAddress{Address: "10.0.0.1", PortSpecifier: &corev3.SocketAddress_PortValue{PortValue: port}}}}
	}
	full := ask(t, "/a/b", map[string]string{"x": "y"}, claims{"n": 1.5, "big": 1e21, "small": 1e-9, "i": 4102444800, "list": []any{"a", nil, true, map[string]any{}}, "o": map[string]any{"k": "v"}})
	a := full.GetAttributes()
	a.Source.Address, a.Source.Labels, a.Source.Service, a.Source.Certificate = socket(1234), map[string]string{"a": "b"}, "s", "c"
	a.Destination = &authv3.AttributeContext_Peer{Address: socket(0)}
	a.Request.Time = timestamppb.New(timestamppb.Now().AsTime())
	a.Request.Http.Id, a.Request.Http.Size, a.Request.Http.Body, a.Request.Http.Fragment = "7", -1, "text", "f"
	a.ContextExtensions = map[string]string{"k": "v"}
	a.TlsSession = &authv3.AttributeContext_TLSSession{Sni: "shop.test"}
	a.RouteMetadataContext = &corev3.Metadata{}
	pipe := proto.CloneOf(full)
	pipe.Attributes.Source.Address = &corev3.Address{Address: &corev3.Address_Pipe{Pipe: &corev3.Pipe{Path: "/run/x"}}}
	pipe.Attributes.Request.Http.RawBody = []byte{0, 255, 1}
	udp := proto.CloneOf(full)
	udp.Attributes.Destination.Address.GetSocketAddress().Protocol = corev3.SocketAddress_UDP
	for name, req := range map[string]*authv3.CheckRequest{"full": full, "pipe": pipe, "udp": udp, "small": ask(t, "/", nil, nil)} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			r, err := newRequest(req)
			if err != nil {
				t.Fatal(err)
			}
			got, err := attributes(r)
			if err != nil {
				t.Fatal(err)
			}
			b, err := protojson.Marshal(req.GetAttributes())
			if err != nil {
				t.Fatal(err)
			}
			want, err := fromJSON(b)
			if err != nil {
				t.Fatal(err)
			}
			if got.Value.Compare(want.Value) != 0 {
				t.Errorf("got\n%v\nwant\n%v", got, want)
			}
		})
	}
}

func TestInputDocument(t *testing.T) {
	t.Parallel()
	req := ask(t, "/api//v1/%74enants/A/?x=1&x=2&y=%zz", nil, tenantA)
	r, err := newRequest(req)
	if err != nil {
		t.Fatal(err)
	}
	input, err := r.input()
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"path": `"/api/v1/tenants/A/"`, "parsed_path": `["api", "v1", "tenants", "A", ""]`, "parsed_query": `{"x": ["1", "2"]}`, "parsed_body": `null`, "truncated_body": `false`,
		"version": `{"encoding": "protojson", "ext_authz": "v3"}`, "tenant_id": `"A"`, "roles": `["user"]`, "method": `"GET"`, "source_principal": `"spiffe://cluster.local/ns/a/sa/b"`,
	} {
		got, err := input.Find(ast.Ref{ast.StringTerm(path)})
		if err != nil || got.String() != want {
			t.Errorf("%s: %v %v, want %s", path, got, err, want)
		}
	}
	for _, ref := range []string{"attributes.request.http.path", "attributes.request.http.headers[\":path\"]"} {
		got, err := input.Find(ast.MustParseRef("input." + ref)[1:])
		if err != nil || got.String() != `"/api/v1/tenants/A/"` {
			t.Errorf("%s: %v %v", ref, got, err)
		}
	}
}

func TestRawHeaders(t *testing.T) {
	t.Parallel()
	req := ask(t, "/", nil, nil)
	http := req.GetAttributes().GetRequest().GetHttp()
	http.Headers = nil
	http.HeaderMap = &corev3.HeaderMap{Headers: []*corev3.HeaderValue{
		{Key: "X-A", RawValue: []byte("1")}, {Key: "x-a", Value: "2"}, {Key: "authorization", RawValue: []byte("Bearer " + forged(t, claims{"roles": []any{"admin"}}))},
	}}
	r, err := newRequest(req)
	if err != nil || len(r.headers) != 1 || r.headers["x-a"] != "1,2" {
		t.Errorf("%v %v", r, err)
	}
}
