package opa

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"encoding/base64"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	authv3 "github.com/envoyproxy/go-control-plane/envoy/service/auth/v3"
	"github.com/go-jose/go-jose/v4"
	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/goleak"
	"google.golang.org/protobuf/types/known/structpb"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// anybody lets every caller ask about everything, as one workload. Who may in production is tested in callers_test.go.
var anybody = identity.Callers{
	Authenticate: func(context.Context) (identity.Proven, error) {
		return identity.Proven{Workload: identity.Workload{Namespace: "a", Name: "shop"}}, nil
	},
	May: func(context.Context, identity.Workload, string) bool { return true },
}

func module1(name, text string) *policy.Rego {
	return &policy.Rego{
		Object: policy.Object{Key: policy.Key{Kind: policy.KindRego, Name: name}, At: policy.Origin{File: name, Line: 1}}, Module: text,
	}
}

func setOf(objects ...policy.Resource) *policy.Set {
	return policy.NewSet(policy.DefaultMesh()).Apply(objects, nil)
}

func newService(t testing.TB, o Options, objects ...policy.Resource) (*Service, []policy.Problem) {
	t.Helper()
	if o.Timeout == 0 {
		o.Timeout = 10 * time.Second // a loaded machine must not fail a test
	}
	if o.Callers.May == nil {
		o.Callers = anybody
	}
	s, err := New(o, prometheus.NewRegistry())
	if err != nil {
		t.Fatal(err)
	}
	return s, s.Update(setOf(objects...))
}

// seed reads a file of the seeds, and skips the test where they are not at hand.
func seed(t testing.TB, path string) string {
	t.Helper()
	for _, root := range []string{"../../../shared/seeds", "../../shared/seeds"} {
		if b, err := os.ReadFile(filepath.Join(root, path)); err == nil {
			return string(b)
		}
	}
	t.Skipf("the seeds are not beside this repository: no %s", path)
	return ""
}

func local(t testing.TB, name string) string {
	t.Helper()
	b, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

type claims map[string]any

// signed is a real token; what verifies it in production is jwt_authn.
func signed(t testing.TB, c claims) string {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	signer, err := jose.NewSigner(jose.SigningKey{Algorithm: jose.ES256, Key: key}, nil)
	if err != nil {
		t.Fatal(err)
	}
	payload, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	signature, err := signer.Sign(payload)
	if err != nil {
		t.Fatal(err)
	}
	token, err := signature.CompactSerialize()
	if err != nil {
		t.Fatal(err)
	}
	return token
}

// forged is a token without a signature.
func forged(t testing.TB, c claims) string {
	t.Helper()
	payload, err := json.Marshal(c)
	if err != nil {
		t.Fatal(err)
	}
	encode := base64.RawURLEncoding.EncodeToString
	return encode([]byte(`{"alg":"none"}`)) + "." + encode(payload) + "."
}

// ask builds a CheckRequest; verified is what jwt_authn has put into the metadata, if anything.
func ask(t testing.TB, path string, headers map[string]string, verified claims) *authv3.CheckRequest {
	t.Helper()
	h := map[string]string{":path": path, ":method": "GET", ":authority": "shop.test"}
	for k, v := range headers {
		h[k] = v
	}
	a := &authv3.AttributeContext{
		Source: &authv3.AttributeContext_Peer{Principal: "spiffe://cluster.local/ns/a/sa/b"},
		Request: &authv3.AttributeContext_Request{Http: &authv3.AttributeContext_HttpRequest{
			Method: "GET", Path: path, Host: "shop.test", Scheme: "https", Protocol: "HTTP/1.1", Headers: h,
		}},
	}
	if verified != nil {
		payload, err := json.Marshal(verified)
		if err != nil {
			t.Fatal(err)
		}
		s := &structpb.Struct{}
		if err := s.UnmarshalJSON(payload); err != nil {
			t.Fatal(err)
		}
		a.MetadataContext = &corev3.Metadata{FilterMetadata: map[string]*structpb.Struct{
			jwtNamespace: {Fields: map[string]*structpb.Value{jwtPayload: structpb.NewStructValue(s)}},
		}}
	}
	return &authv3.CheckRequest{Attributes: a}
}

// code is 200, or the status of the denial.
func code(t testing.TB, s *Service, req *authv3.CheckRequest) int {
	t.Helper()
	resp := check(t, s, req)
	if resp.GetOkResponse() != nil {
		return 200
	}
	return int(resp.GetDeniedResponse().GetStatus().GetCode())
}

func check(t testing.TB, s *Service, req *authv3.CheckRequest) *authv3.CheckResponse {
	t.Helper()
	resp, err := s.Check(t.Context(), req)
	if err != nil {
		t.Fatal(err)
	}
	if ok := resp.GetStatus().GetCode() == 0; ok != (resp.GetOkResponse() != nil) {
		t.Fatalf("the two verdicts of the answer differ: %v", resp)
	}
	return resp
}

func reason(resp *authv3.CheckResponse) string {
	return resp.GetDynamicMetadata().GetFields()["decision_reason"].GetStringValue()
}

func codesOf(problems []policy.Problem) string {
	var out []string
	for _, p := range problems {
		out = append(out, p.Severity.String()+" "+p.Code)
	}
	return strings.Join(out, ", ")
}
