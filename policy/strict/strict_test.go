package strict_test

import (
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	securityv1beta1 "istio.io/api/security/v1beta1"
	telemetryv1alpha1 "istio.io/api/telemetry/v1alpha1"
	corev1 "k8s.io/api/core/v1"
	"sigs.k8s.io/yaml"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/strict"
)

type settings struct {
	Name    string            `json:"name"`
	Count   int8              `json:"count"`
	Size    uint16            `json:"size"`
	Ratio   float64           `json:"ratio"`
	On      bool              `json:"on"`
	Wait    time.Duration     `json:"wait"`
	Labels  map[string]string `json:"labels"`
	List    []string          `json:"list"`
	Blob    []byte            `json:"blob"`
	Nested  nested            `json:"nested"`
	Pointer *nested           `json:"pointer"`
	Inline  `json:",inline"`
	Any     any `json:"any"`
}

type nested struct {
	Port int32 `json:"port"`
}

type Inline struct {
	Extra string `json:"extra"`
}

func TestFileFillsAStruct(t *testing.T) {
	t.Parallel()
	var s settings
	problems := strict.File("f.yaml", []byte(`
name: n
count: -5
size: 0x10
ratio: 1e3
on: yes
wait: 200ms
labels: {a: "1", on: off, 8080: y}
list: [yes, "no", 2026-01-31]
blob: aGk=
nested: {port: 80}
pointer: &p {port: 81}
extra: more
any: {a: [1, true, null, x]}
`), &s)
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	got := fmt.Sprint(s.Name, s.Count, s.Size, s.Ratio, s.On, s.Wait, s.Labels, s.List, string(s.Blob), s.Nested, *s.Pointer, s.Extra, s.Any)
	want := "n-5 16 1000 true 200ms map[8080:y a:1 on:off] [yes no 2026-01-31]hi{80} {81}more map[a:[1 true <nil> x]]"
	if strings.ReplaceAll(got, " ", "") != strings.ReplaceAll(want, " ", "") {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

func TestFileKeepsDefaults(t *testing.T) {
	t.Parallel()
	s := settings{Name: "default", Nested: nested{Port: 1}}
	if problems := strict.File("f.yaml", []byte("# nothing\nnested:\nname: null\n"), &s); len(problems) > 0 || s.Name != "default" || s.Nested.Port != 1 {
		t.Errorf("%+v, problems %v", s, problems)
	}
	if problems := strict.File("f.yaml", nil, &s); len(problems) > 0 || s.Name != "default" {
		t.Errorf("%+v, problems %v", s, problems)
	}
}

func TestFileRefuses(t *testing.T) {
	t.Parallel()
	tests := []struct{ name, text, want string }{
		{"unknown field", "nmae: x", "f.yaml:1: error UNKNOWN_FIELD: nmae: unknown field \"nmae\" (try: did you mean name?)"},
		{"unknown nested field", "nested:\n  prot: 1", "f.yaml:2: error UNKNOWN_FIELD: nested.prot: unknown field \"prot\" (try: did you mean port?)"},
		{"nothing near", "zzzzzzzz: 1", "f.yaml:1: error UNKNOWN_FIELD: zzzzzzzz: unknown field \"zzzzzzzz\""},
		{"number for a string", "name: 1.0", "f.yaml:1: error WRONG_TYPE: name: wants a string, got a number (try: \"1.0\")"},
		{"boolean for a string", "name: true", "f.yaml:1: error WRONG_TYPE: name: wants a string, got a boolean (try: \"true\")"},
		{"mapping for a string", "name: {a: b}", "f.yaml:1: error WRONG_TYPE: name: wants a string, got a mapping"},
		{"string for a number", "count: many", "f.yaml:1: error WRONG_TYPE: count: wants an integer, got a string"},
		{"quoted number", `count: "1"`, "f.yaml:1: error WRONG_TYPE: count: wants an integer, got a string"},
		{"too large", "count: 200", "f.yaml:1: error BAD_VALUE: count: is no whole number in the range of this field"},
		{"negative", "size: -1", "f.yaml:1: error BAD_VALUE: size: is no whole number in the range of this field"},
		{"fraction", "count: 1.5", "f.yaml:1: error BAD_VALUE: count: is no whole number in the range of this field"},
		{"infinite", "ratio: .inf", "f.yaml:1: error BAD_VALUE: ratio: is no whole number in the range of this field"},
		{"quoted boolean", `on: "true"`, "f.yaml:1: error WRONG_TYPE: on: wants true or false, got a string"},
		{"duration without unit", "wait: 5", "f.yaml:1: error WRONG_TYPE: wait: wants a string, got a number (try: \"5\")"},
		{"no duration", "wait: soon", "f.yaml:1: error BAD_VALUE: wait: is no duration (try: a number and a unit, such as 200ms, 5s or 1h)"},
		{"string for a list", "list: a", "f.yaml:1: error WRONG_TYPE: list: wants a list, got a string"},
		{"list for a mapping", "labels: [a]", "f.yaml:1: error WRONG_TYPE: labels: wants a mapping, got a list"},
		{"number in a map", "labels:\n  a: 1", "f.yaml:2: error WRONG_TYPE: labels.a: wants a string, got a number (try: \"1\")"},
		{"hole in a list", "list:\n- a\n-", "f.yaml:3: error WRONG_TYPE: list[1]: an item of a list is empty (try: remove the empty item)"},
		{"no base64", "blob: '!'", "f.yaml:1: error BAD_VALUE: blob: is no base64 (try: encode the value (base64 -w0), or use stringData)"},
		{"duplicate key", "name: a\nname: b", "f.yaml:2: error DUPLICATE_KEY: name: key \"name\" is written twice, first on line 1 (try: keep one of the two)"},
		{"duplicate in depth", "any:\n  a:\n  - b: 1\n    b: 2", "f.yaml:4: error DUPLICATE_KEY: any.a[0].b: key \"b\" is written twice, first on line 3 (try: keep one of the two)"},
		{"no mapping", "- a", "f.yaml:1: error WRONG_TYPE: wants a mapping, got a list"},
		{"syntax", "name: a\nlist: [a", "f.yaml:2: error YAML_SYNTAX: did not find expected ',' or ']'"},
		{"tab", "nested:\n\tport: 1", "f.yaml:2: error YAML_SYNTAX: found character that cannot start any token"},
		{"unknown anchor", "name: *a", "f.yaml:1: error YAML_SYNTAX: unknown anchor 'a' referenced"},
		{"second document", "name: a\n---\nname: b", "f.yaml:3: error YAML_SYNTAX: a second document in a file that may hold one (try: remove the line --- and what follows it)"},
		{"cycle", "any: &a [*a]", "f.yaml:1: error YAML_TOO_DEEP: an anchor contains an alias of itself"},
		{"merge of a string", "nested: {<<: x}", "f.yaml:1: error YAML_SYNTAX: a merge key << wants a mapping or a list of mappings"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var s settings
			var got []string
			for _, p := range strict.File("f.yaml", []byte(tt.text), &s) {
				got = append(got, p.String())
			}
			if strings.Join(got, "\n") != tt.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, "\n"), tt.want)
			}
		})
	}
}

func TestBounds(t *testing.T) {
	t.Parallel()
	bomb := "a0: &a0 [x,x,x,x,x,x,x,x,x,x]\n"
	for i := range 9 {
		bomb += fmt.Sprintf("a%d: &a%d [%s]\n", i+1, i+1, strings.TrimSuffix(strings.Repeat(fmt.Sprintf("*a%d,", i), 10), ","))
	}
	deep := "a: &a {x: " + strings.Repeat("[", 60) + strings.Repeat("]", 60) + "}\nb: " + strings.Repeat("[", 60) + "*a" + strings.Repeat("]", 60)
	tests := []struct{ name, text, code string }{
		{"alias bomb", bomb, strict.CodeYAMLTooLarge},
		{"merge bomb", strings.ReplaceAll(bomb, "[x,", "[{a: b},"), strict.CodeYAMLTooLarge},
		{"deep", strings.Repeat("[", 200) + strings.Repeat("]", 200), strict.CodeYAMLTooDeep},
		{"deep by an alias", deep, strict.CodeYAMLTooDeep},
		{"large", strings.Repeat("#", strict.MaxFileBytes+1), strict.CodeFileTooLarge},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			problems := strict.File("f.yaml", []byte(tt.text), new(settings))
			if len(problems) != 1 || problems[0].Code != tt.code {
				t.Errorf("got %v, want %s", problems, tt.code)
			}
		})
	}
}

func TestMergeKeys(t *testing.T) {
	t.Parallel()
	var s struct {
		Base  map[string]string `json:"base"`
		Other map[string]string `json:"other"`
	}
	problems := strict.File("f.yaml", []byte("base: &b {a: x, b: x}\nother:\n  <<: *b\n  b: mine\n  \"c\": d\n"), &s)
	if len(problems) > 0 || fmt.Sprint(s.Other) != "map[a:x b:mine c:d]" {
		t.Errorf("%v, problems %v", s, problems)
	}
}

// A document that is no YAML hides neither its neighbours nor their lines.
func TestSplit(t *testing.T) {
	t.Parallel()
	docs, problems := strict.Split("f.yaml", []byte("\xef\xbb\xbf# head\n%YAML 1.2\n---\na: 1\r\n---\nb: \"\n--- # third\nc: |\n  ----\n  --- x\n...\n---\n# nothing\n---\nd: 1\n"))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	var got []string
	for _, d := range docs {
		if d.Root == nil {
			got = append(got, fmt.Sprintf("%d %s", d.At.Line, d.Problem.Code))
			continue
		}
		got = append(got, fmt.Sprintf("%d %s", d.At.Line, d.Root.Content[0].Value))
	}
	if want := []string{"4 a", "7 YAML_SYNTAX", "8 c", "15 d"}; !slices.Equal(got, want) && !slices.Equal(got, []string{"4 a", "6 YAML_SYNTAX", "8 c", "15 d"}) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// What protojson reads, strict reads in the same way.
func TestMessagesAsProtoJSONReadsThem(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text string
		into       proto.Message
	}{
		{"names, maps, enums", "selector: {matchLabels: {a: b}}\nport_level_mtls:\n  8080: {mode: PERMISSIVE}\n  9090: {mode: 3}\nmtls: {mode: STRICT}", &securityv1beta1.PeerAuthentication{}},
		{"oneof", "action: CUSTOM\nprovider: {name: opa}\nrules: [{}]", &securityv1beta1.AuthorizationPolicy{}},
		{"durations", "jwtRules: [{issuer: a, timeout: 1.5s, fromHeaders: [{name: x, prefix: 'B '}]}]", &securityv1beta1.RequestAuthentication{}},
		{"wrappers", "tracing:\n- randomSamplingPercentage: 10\n  disableSpanReporting: true\n  customTags: {a.b: {literal: {value: x}}}", &telemetryv1alpha1.Telemetry{}},
		{"structs", "configPatches:\n- applyTo: HTTP_FILTER\n  patch:\n    operation: ADD\n    value: {a: 1, b: [x, null, true, {c: 1.5}], d: {e: 'on'}}", &networkingv1alpha3.EnvoyFilter{}},
		{"numbers in quotes", "address: a\nports: {http: '80'}\nweight: 7", &networkingv1alpha3.WorkloadEntry{}},
		{"nulls", "rules: null\nselector:", &securityv1beta1.AuthorizationPolicy{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			js, err := yaml.YAMLToJSON([]byte(tt.text))
			if err != nil {
				t.Fatal(err)
			}
			want := proto.Clone(tt.into)
			if err := protojson.Unmarshal(js, want); err != nil {
				t.Fatal(err)
			}
			if problems := strict.File("f.yaml", []byte(tt.text), tt.into); len(problems) > 0 {
				t.Fatal(problems)
			}
			if !proto.Equal(tt.into, want) {
				t.Errorf("got  %v\nwant %v", tt.into, want)
			}
		})
	}
}

func TestMessagesRefuse(t *testing.T) {
	t.Parallel()
	tests := []struct {
		name, text, want string
		into             proto.Message
	}{
		{"enum", "mtls: {mode: STRCT}", `f.yaml:1: error BAD_ENUM: mtls.mode: "STRCT" is no valid value (try: did you mean STRICT?)`, &securityv1beta1.PeerAuthentication{}},
		{"enum number", "mtls: {mode: 9}", `f.yaml:1: error BAD_ENUM: mtls.mode: "9" is no valid value (try: one of UNSET, DISABLE, PERMISSIVE, STRICT)`, &securityv1beta1.PeerAuthentication{}},
		{"map key", "portLevelMtls: {http: {mode: STRICT}}", "f.yaml:1: error WRONG_TYPE: portLevelMtls.http: wants a number, got a string", &securityv1beta1.PeerAuthentication{}},
		{"two spellings", "jwtRules:\n- jwksUri: a\n  jwks_uri: b", "f.yaml:3: error DUPLICATE_KEY: jwtRules[0].jwksUri: jwksUri is written twice, in camelCase and in snake_case (try: keep one of the two)", &securityv1beta1.RequestAuthentication{}},
		{"oneof", "tracing:\n- customTags:\n    a:\n      literal: {value: x}\n      header: {name: y}", "f.yaml:5: error ONEOF_CONFLICT: tracing[0].customTags.a.header: literal and header exclude each other (try: keep one of the two)", &telemetryv1alpha1.Telemetry{}},
		{"unknown in depth", "rules:\n- from:\n  - source:\n      principal: [a]", `f.yaml:4: error UNKNOWN_FIELD: rules[0].from[0].source.principal: unknown field "principal" (try: did you mean principals?)`, &securityv1beta1.AuthorizationPolicy{}},
		{"string for a list", "rules:\n- from:\n  - source:\n      principals: a", "f.yaml:4: error WRONG_TYPE: rules[0].from[0].source.principals: wants a list, got a string", &securityv1beta1.AuthorizationPolicy{}},
		{"number in a list", "rules:\n- to:\n  - operation:\n      ports: [8080]", `f.yaml:4: error WRONG_TYPE: rules[0].to[0].operation.ports[0]: wants a string, got a number (try: "8080")`, &securityv1beta1.AuthorizationPolicy{}},
		{"hole in a list", "rules:\n-\n", "f.yaml:2: error WRONG_TYPE: rules[0]: an item of a list is empty (try: remove the empty item)", &securityv1beta1.AuthorizationPolicy{}},
		{"out of range", "weight: 4294967296", "f.yaml:1: error BAD_VALUE: weight: is no whole number in the range of this field", &networkingv1alpha3.WorkloadEntry{}},
		{"duration", "jwtRules: [{timeout: soon}]", "f.yaml:1: error BAD_VALUE: jwtRules[0].timeout: is no duration (try: a number and a unit, such as 0.2s, 5s or 1h)", &securityv1beta1.RequestAuthentication{}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, p := range strict.File("f.yaml", []byte(tt.text), tt.into) {
				got = append(got, p.String())
			}
			if strings.Join(got, "\n") != tt.want {
				t.Errorf("got  %s\nwant %s", strings.Join(got, "\n"), tt.want)
			}
		})
	}
}

// The types of Kubernetes that read themselves.
func TestKubernetesTypes(t *testing.T) {
	t.Parallel()
	var s corev1.Service
	problems := strict.File("f.yaml", []byte("apiVersion: v1\nkind: Service\nmetadata: {name: a, creationTimestamp: 2026-01-31T12:00:00Z}\nspec: {ports: [{port: 80, targetPort: http}, {port: 81, targetPort: 8081}]}"), &s)
	if len(problems) > 0 || s.CreationTimestamp.Year() != 2026 || s.Spec.Ports[0].TargetPort.StrVal != "http" || s.Spec.Ports[1].TargetPort.IntVal != 8081 {
		t.Errorf("%+v, problems %v", s, problems)
	}
	problems = strict.File("f.yaml", []byte("metadata: {creationTimestamp: now}"), &s)
	if len(problems) != 1 || problems[0].Code != strict.CodeBadValue {
		t.Errorf("problems %v", problems)
	}
}

func TestValuesOfSecretsAreNotShown(t *testing.T) {
	t.Parallel()
	docs, _ := strict.Split("f.yaml", []byte("data: {a: 'no base64, but hunter2'}\nstringData: {pin: 271828}"))
	r := strict.NewReader("f.yaml", "Secret a/b")
	r.Private = true
	r.Into(docs[0].Root, "", &corev1.Secret{})
	if len(r.Problems) != 2 {
		t.Fatalf("problems %v", r.Problems)
	}
	for _, p := range r.Problems {
		if s := p.String(); strings.Contains(s, "hunter2") || strings.Contains(s, "271828") {
			t.Errorf("shown: %s", s)
		}
	}
}

func TestSurvey(t *testing.T) {
	t.Parallel()
	read := func(text string) (policy.Fields, uint64) {
		docs, _ := strict.Split("f.yaml", []byte(text))
		return strict.NewReader("f.yaml", "").Survey(docs[0].Root)
	}
	fields, digest := read("a:\n- b_c: 1\n  d:\n    x.y/z: 1\n- b_c: 2\n")
	tests := []struct {
		path string
		line int
	}{
		{"", 1}, {"a", 1}, {"a[0]", 2}, {"a[0].bC", 2}, {"a[0].b_c", 2}, {"a[0].d", 3}, {"a[0].d[x.y/z]", 4}, {"a[0].d.x.y/z", 4},
		{"a[1].bC", 5}, {"a[1].unknown.below", 5}, {"other", 1},
	}
	for _, tt := range tests {
		if got := fields.Line(tt.path); got != tt.line {
			t.Errorf("line of %q is %d, want %d", tt.path, got, tt.line)
		}
	}
	if _, same := read("# comment\na: [{b_c: 1, d: {x.y/z: 1}}, {b_c: 2}]\n"); same != digest {
		t.Error("the same content in another layout has another digest")
	}
	for _, other := range []string{"a: [{b_c: '1', d: {x.y/z: 1}}, {b_c: 2}]", "a: [{b_c: 1, d: {x.y/z: 1}, b: {c: 2}}]", "a: [{b_c: 1, d: {x.y/z: 1}}]"} {
		if _, d := read(other); d == digest {
			t.Errorf("%s has the same digest", other)
		}
	}
}

func TestNearest(t *testing.T) {
	t.Parallel()
	valid := []string{"paths", "ports", "methods", "hosts", "jwksUri", "outputClaimToHeaders", "id"}
	tests := []struct{ name, want string }{
		{"pahts", "paths"}, {"port", "ports"}, {"jwksURI", "jwksUri"}, {"outputClaimsToHeaders", "outputClaimToHeaders"}, {"x", ""}, {"zz", ""},
		{"completely", ""}, {strings.Repeat("paths", 100), ""},
	}
	for _, tt := range tests {
		if got, _ := strict.Nearest(tt.name, valid); got != tt.want {
			t.Errorf("nearest of %q is %q, want %q", tt.name, got, tt.want)
		}
	}
}

func FuzzFile(f *testing.F) {
	f.Add([]byte("name: a\nlist: [a, b]\nlabels: {a: b}\n---\nname: &x b\nany: *x\n"))
	f.Add([]byte("selector: {matchLabels: {a: b}}\nportLevelMtls:\n  8080: {mode: STRICT}\n"))
	f.Add([]byte("a: &a\n  <<: {b: c}\nb: [*a, *a]\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, into := range []any{new(settings), new(corev1.Service), new(securityv1beta1.AuthorizationPolicy), new(networkingv1alpha3.EnvoyFilter)} {
			for _, p := range strict.File("f.yaml", data, into) {
				if p.Code == "" || p.Says == "" || p.At.Line < 0 {
					t.Errorf("incomplete: %+v", p)
				}
			}
		}
	})
}
