package patch

import (
	"strings"
	"testing"

	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
	"google.golang.org/protobuf/types/known/structpb"
)

func TestDecode(t *testing.T) {
	t.Parallel()
	for _, c := range []struct{ name, value, fails string }{
		{"plain", `{"name":"a","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer","max_request_bytes":1}}`, ""},
		{"typed struct of udpa", `{"name":"a","typed_config":{"@type":"type.googleapis.com/udpa.type.v1.TypedStruct","type_url":"type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer","value":{"max_request_bytes":1}}}`, ""},
		{"typed struct of xds", `{"name":"a","typed_config":{"@type":"type.googleapis.com/xds.type.v3.TypedStruct","type_url":"envoy.extensions.filters.http.buffer.v3.Buffer","value":{"max_request_bytes":1}}}`, ""},
		{"unknown field", `{"name":"a","typed_config":{"@type":"type.googleapis.com/envoy.extensions.filters.http.buffer.v3.Buffer","max":1}}`, `unknown field "max"`},
		{"unknown message", `{"name":"a","typed_config":{"@type":"type.googleapis.com/a.B"}}`, "unable to resolve"},
		{"typed struct of nothing", `{"name":"a","typed_config":{"@type":"type.googleapis.com/xds.type.v3.TypedStruct"}}`, "without type_url"},
		{"typed struct with a field too many", `{"typed_config":{"@type":"type.googleapis.com/xds.type.v3.TypedStruct","type_url":"a.B","values":{}}}`, `no field "values"`},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			value := &structpb.Struct{}
			if err := value.UnmarshalJSON([]byte(c.value)); err != nil {
				t.Fatal(err)
			}
			err := decode(value, &hcmv3.HttpFilter{})
			if c.fails == "" && err != nil || c.fails != "" && (err == nil || !strings.Contains(err.Error(), c.fails)) {
				t.Errorf("got %v, want %q", err, c.fails)
			}
		})
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"name":"a","typed_config":{"@type":"type.googleapis.com/xds.type.v3.TypedStruct","type_url":"a","value":{"b":[{}]}}}`))
	f.Fuzz(func(t *testing.T, text []byte) {
		value := &structpb.Struct{}
		if value.UnmarshalJSON(text) != nil {
			t.Skip()
		}
		m := &hcmv3.HttpFilter{}
		if decode(value, m) == nil && m.GetTypedConfig() != nil {
			_, _ = repack(m.GetTypedConfig())
		}
	})
}
