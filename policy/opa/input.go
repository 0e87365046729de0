package opa

import (
	"encoding/base64"
	"encoding/json"
	"math"
	"net/url"
	"strconv"
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/open-policy-agent/opa/v1/ast"
	"github.com/open-policy-agent/opa/v1/util"
	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/structpb"
)

// object builds an object as the JSON form of a protobuf message has it: what is empty is left out.
type object [][2]*ast.Term

func (o *object) put(name string, t *ast.Term) {
	if t != nil {
		*o = append(*o, [2]*ast.Term{ast.StringTerm(name), t})
	}
}

func (o *object) text(name, value string) {
	if value != "" {
		o.put(name, ast.StringTerm(value))
	}
}

func (o *object) texts(name string, m map[string]string) {
	if len(m) == 0 {
		return
	}
	var entries object
	for k, v := range m {
		entries.put(k, ast.StringTerm(v))
	}
	o.put(name, entries.term())
}

func (o object) term() *ast.Term { return ast.ObjectTerm(o...) }

// attributes is the CheckRequest's attributes in their JSON form, as opa-envoy-plugin gives them to policies.
func attributes(r *request) (*ast.Term, error) {
	a := r.check.GetAttributes()
	var o object
	for _, p := range []struct {
		name string
		peer *authv3.AttributeContext_Peer
	}{{"source", a.GetSource()}, {"destination", a.GetDestination()}} {
		if p.peer == nil {
			continue
		}
		t, err := peer(p.peer)
		if err != nil {
			return nil, err
		}
		o.put(p.name, t)
	}
	t, err := requestTerm(r)
	if err != nil {
		return nil, err
	}
	o.put("request", t)
	o.texts("contextExtensions", a.GetContextExtensions())
	for _, m := range []struct {
		name string
		data *corev3.Metadata
	}{{"metadataContext", a.GetMetadataContext()}, {"routeMetadataContext", a.GetRouteMetadataContext()}} {
		if m.data != nil {
			o.put(m.name, metadata(m.data))
		}
	}
	if s := a.GetTlsSession(); s != nil {
		var session object
		session.text("sni", s.GetSni())
		o.put("tlsSession", session.term())
	}
	return o.term(), nil
}

func peer(p *authv3.AttributeContext_Peer) (*ast.Term, error) {
	var o object
	if p.GetAddress() != nil {
		t, err := address(p.GetAddress())
		if err != nil {
			return nil, err
		}
		o.put("address", t)
	}
	o.text("service", p.GetService())
	o.texts("labels", p.GetLabels())
	o.text("principal", p.GetPrincipal())
	o.text("certificate", p.GetCertificate())
	return o.term(), nil
}

func address(a *corev3.Address) (*ast.Term, error) {
	s := a.GetSocketAddress()
	port, plain := s.GetPortSpecifier().(*corev3.SocketAddress_PortValue)
	if s == nil || !plain || s.GetProtocol() != corev3.SocketAddress_TCP || s.GetResolverName() != "" || s.GetIpv4Compat() || s.GetNetworkNamespaceFilepath() != "" {
		return viaJSON(a)
	}
	var o, outer object
	o.text("address", s.GetAddress())
	o.put("portValue", ast.IntNumberTerm(int(port.PortValue)))
	outer.put("socketAddress", o.term())
	return outer.term(), nil
}

// viaJSON is the slow way, for what is rare.
func viaJSON(m proto.Message) (*ast.Term, error) {
	b, err := protojson.Marshal(m)
	if err != nil {
		return nil, err
	}
	return fromJSON(b)
}

func fromJSON(b []byte) (*ast.Term, error) {
	var v any
	if err := util.UnmarshalJSON(b, &v); err != nil {
		return nil, err
	}
	value, err := ast.InterfaceToValue(v)
	if err != nil {
		return nil, err
	}
	return ast.NewTerm(value), nil
}

func requestTerm(r *request) (*ast.Term, error) {
	in := r.check.GetAttributes().GetRequest()
	var o, h object
	if in.GetTime() != nil {
		t, err := viaJSON(in.GetTime())
		if err != nil {
			return nil, err
		}
		o.put("time", t)
	}
	http := in.GetHttp()
	h.text("id", http.GetId())
	h.text("method", http.GetMethod())
	h.texts("headers", r.headers)
	h.text("path", r.path)
	h.text("host", http.GetHost())
	h.text("scheme", http.GetScheme())
	h.text("query", r.query)
	h.text("fragment", http.GetFragment())
	if http.GetSize() != 0 {
		h.text("size", strconv.FormatInt(http.GetSize(), 10))
	}
	h.text("protocol", http.GetProtocol())
	h.text("body", http.GetBody())
	h.text("rawBody", base64.StdEncoding.EncodeToString(http.GetRawBody()))
	o.put("http", h.term())
	return o.term(), nil
}

func metadata(m *corev3.Metadata) *ast.Term {
	var o object
	if len(m.GetFilterMetadata()) > 0 {
		var filters object
		for name, s := range m.GetFilterMetadata() {
			filters.put(name, structTerm(s))
		}
		o.put("filterMetadata", filters.term())
	}
	return o.term()
}

func structTerm(s *structpb.Struct) *ast.Term {
	o := make(object, 0, len(s.GetFields()))
	for k, v := range s.GetFields() {
		o.put(k, valueTerm(v))
	}
	return o.term()
}

func valueTerm(v *structpb.Value) *ast.Term {
	switch k := v.GetKind().(type) {
	case *structpb.Value_StringValue:
		return ast.StringTerm(k.StringValue)
	case *structpb.Value_NumberValue:
		return numberTerm(k.NumberValue)
	case *structpb.Value_BoolValue:
		return ast.BooleanTerm(k.BoolValue)
	case *structpb.Value_StructValue:
		return structTerm(k.StructValue)
	case *structpb.Value_ListValue:
		items := make([]*ast.Term, len(k.ListValue.GetValues()))
		for i, item := range k.ListValue.GetValues() {
			items[i] = valueTerm(item)
		}
		return ast.ArrayTerm(items...)
	default:
		return ast.NullTerm()
	}
}

func numberTerm(f float64) *ast.Term {
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return ast.NullTerm() // JSON has no such number
	}
	format := byte('f')
	if a := math.Abs(f); a != 0 && (a < 1e-6 || a >= 1e21) {
		format = 'e'
	}
	return ast.NumberTerm(json.Number(strconv.FormatFloat(f, format, -1, 64)))
}

// pathTerm is parsed_path: the segments of the canonical path.
func pathTerm(path string) *ast.Term {
	var items []*ast.Term
	for segment := range strings.SplitSeq(strings.TrimLeft(path, "/"), "/") {
		items = append(items, ast.StringTerm(segment))
	}
	return ast.ArrayTerm(items...)
}

// queryTerm is parsed_query: pairs that cannot be decoded are left out, as opa-envoy-plugin does.
func queryTerm(query string) *ast.Term {
	values, _ := url.ParseQuery(query)
	return valuesTerm(values)
}

func valuesTerm(values url.Values) *ast.Term {
	var o object
	for k, list := range values {
		items := make([]*ast.Term, len(list))
		for i, v := range list {
			items[i] = ast.StringTerm(v)
		}
		o.put(k, ast.ArrayTerm(items...))
	}
	return o.term()
}
