package policy_test

import (
	"encoding/json"
	"fmt"
	"slices"
	"strings"
	"testing"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/credence-mesh/credence/policy"
)

func entry(namespace, name string, digest uint64) *policy.WorkloadEntry {
	return &policy.WorkloadEntry{
		Object: policy.Object{Key: policy.Key{Kind: policy.KindWorkloadEntry, Namespace: namespace, Name: name}, Digest: digest, At: policy.Origin{File: "f.yaml", Line: 1}},
		Spec:   &networkingv1alpha3.WorkloadEntry{Address: "10.0.0.1"},
	}
}

func names[T policy.Resource](seq func(func(T) bool)) []string {
	var out []string
	for r := range seq {
		out = append(out, r.Meta().Key.Namespace+"/"+r.Meta().Key.Name)
	}
	return out
}

func TestApplyLeavesTheOldSetAsItWas(t *testing.T) {
	t.Parallel()
	old := policy.NewSet(policy.DefaultMesh()).Apply([]policy.Resource{entry("b", "y", 1), entry("a", "z", 1), entry("a", "x", 1)}, nil)
	next := old.Apply([]policy.Resource{entry("a", "y", 1), entry("a", "x", 2)}, []policy.Key{{Kind: policy.KindWorkloadEntry, Namespace: "b", Name: "y"}, {Kind: policy.KindService, Name: "absent"}})
	if got, want := names(policy.All[*policy.WorkloadEntry](old)), []string{"a/x", "a/z", "b/y"}; !slices.Equal(got, want) {
		t.Errorf("old is %v, want %v", got, want)
	}
	if got, want := names(policy.All[*policy.WorkloadEntry](next)), []string{"a/x", "a/y", "a/z"}; !slices.Equal(got, want) {
		t.Errorf("next is %v, want %v", got, want)
	}
	if got, want := names(policy.In[*policy.WorkloadEntry](next, "a")), []string{"a/x", "a/y", "a/z"}; !slices.Equal(got, want) {
		t.Errorf("namespace a is %v, want %v", got, want)
	}
	if e, ok := policy.Get[*policy.WorkloadEntry](old, "a", "x"); !ok || e.Digest != 1 {
		t.Errorf("old a/x is %+v", e)
	}
	if e, ok := policy.Get[*policy.WorkloadEntry](next, "a", "x"); !ok || e.Digest != 2 {
		t.Errorf("next a/x is %+v", e)
	}
	if _, ok := next.Lookup(policy.Key{Kind: policy.KindWorkloadEntry, Namespace: "b", Name: "y"}); ok || next.Len() != 3 {
		t.Error("b/y is still there")
	}
}

func TestDiff(t *testing.T) {
	t.Parallel()
	base := func() []policy.Resource {
		return []policy.Resource{entry("a", "x", 1), entry("a", "y", 1), entry("b", "z", 1)}
	}
	old := policy.NewSet(policy.DefaultMesh()).Apply(base(), nil)
	moved, void := entry("a", "x", 1), entry("a", "x", 1)
	moved.At.File, void.Void = "g.yaml", true
	lower := entry("a", "x", 1)
	lower.At.Line = 9
	tests := []struct {
		name string
		next *policy.Set
		want string
	}{
		{name: "nothing", next: old, want: "[]"},
		{name: "read again", next: policy.NewSet(policy.DefaultMesh()).Apply(base(), nil), want: "[]"},
		{name: "new", next: old.Apply([]policy.Resource{entry("a", "w", 1)}, nil), want: "[+a/w]"},
		{name: "gone", next: old.Apply(nil, []policy.Key{entry("b", "z", 0).Key}), want: "[-b/z]"},
		{name: "changed", next: old.Apply([]policy.Resource{entry("a", "y", 2)}, nil), want: "[~a/y]"},
		{name: "moved to another file", next: old.Apply([]policy.Resource{moved}, nil), want: "[~a/x]"},
		{name: "moved down", next: old.Apply([]policy.Resource{lower}, nil), want: "[]"},
		{name: "void", next: old.Apply([]policy.Resource{void}, nil), want: "[~a/x]"},
		{name: "all", next: policy.NewSet(policy.DefaultMesh()), want: "[-a/x -a/y -b/z]"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			var got []string
			for _, c := range policy.Diff(old, tt.next) {
				switch {
				case c.Old == nil:
					got = append(got, "+"+c.New.Meta().Key.Namespace+"/"+c.New.Meta().Key.Name)
				case c.New == nil:
					got = append(got, "-"+c.Old.Meta().Key.Namespace+"/"+c.Old.Meta().Key.Name)
				default:
					got = append(got, "~"+c.New.Meta().Key.Namespace+"/"+c.New.Meta().Key.Name)
				}
			}
			if fmt.Sprint(got) != tt.want {
				t.Errorf("got %v, want %s", got, tt.want)
			}
		})
	}
}

func TestWorkloads(t *testing.T) {
	t.Parallel()
	e := entry("a", "cart", 1)
	e.Labels = map[string]string{"app": "cart", "from": "metadata"}
	e.Spec.Labels = map[string]string{"from": "spec"}
	g := &policy.Gateway{
		Object: policy.Object{Key: policy.Key{Kind: policy.KindGateway, Namespace: "a", Name: "edge"}},
		Spec:   &gatewayv1.GatewaySpec{Infrastructure: &gatewayv1.GatewayInfrastructure{Labels: map[gatewayv1.LabelKey]gatewayv1.LabelValue{"tier": "edge"}}},
	}
	named := &policy.Gateway{
		Object: policy.Object{Key: policy.Key{Kind: policy.KindGateway, Namespace: "b", Name: "edge"}, Annotations: map[string]string{policy.AnnotationServiceAccount: "door"}},
		Spec:   &gatewayv1.GatewaySpec{},
	}
	set := policy.NewSet(policy.DefaultMesh()).Apply([]policy.Resource{e, g, named}, nil)
	tests := []struct{ namespace, name, account, labels string }{
		{"a", "cart", "default", "map[app:cart from:spec]"},
		{"a", "edge", "edge", "map[gateway.networking.k8s.io/gateway-name:edge tier:edge]"},
		{"b", "edge", "door", "map[gateway.networking.k8s.io/gateway-name:edge]"},
	}
	for _, tt := range tests {
		w, ok := set.Workload(tt.namespace, tt.name)
		if !ok || w.ServiceAccount != tt.account || fmt.Sprint(w.Labels) != tt.labels || w.Meta().Key.Name != tt.name {
			t.Errorf("%s/%s is %+v", tt.namespace, tt.name, w)
		}
	}
	if _, ok := set.Workload("a", "absent"); ok {
		t.Error("an absent workload is found")
	}
	count := 0
	for range set.Workloads() {
		count++
	}
	if count != 3 || e.Labels["from"] != "metadata" {
		t.Errorf("%d workloads, labels %v", count, e.Labels)
	}
}

func TestProblem(t *testing.T) {
	t.Parallel()
	p := policy.Problem{
		At: policy.Origin{File: "a.yaml", Line: 3}, Object: "Service a/b", Field: "spec", Code: "BAD", Says: "is bad", Try: "better", Severity: policy.Warning,
	}
	if got, want := p.String(), "a.yaml:3: warning BAD: Service a/b: spec: is bad (try: better)"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	js, err := json.Marshal([]policy.Problem{p, {}})
	want := `[{"file":"a.yaml","line":3,"object":"Service a/b","field":"spec","code":"BAD","severity":"warning","says":"is bad","try":"better"},` +
		`{"file":"","line":0,"object":"","field":"","code":"","severity":"error","says":"","try":""}]`
	if err != nil || string(js) != want {
		t.Errorf("got  %s\nwant %s", js, want)
	}
	later := p
	later.At.Line = 4
	if p.Compare(later) >= 0 || later.Compare(p) <= 0 || p.Compare(p) != 0 {
		t.Error("problems are out of order")
	}
}

func TestPrivateIsNeverShown(t *testing.T) {
	t.Parallel()
	p := policy.NewPrivate([]byte("hunter2"))
	js, err := json.Marshal(map[string]any{"p": p})
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range []string{fmt.Sprint(p), fmt.Sprintf("%#v %+v %s %q %x %d", p, p, p, p, p, p), string(js)} {
		if s == "" || strings.Contains(s, "hunter2") || strings.Contains(s, fmt.Sprintf("%x", "hunter2")) || strings.Contains(s, "104 117") {
			t.Errorf("shown: %s", s)
		}
	}
	if string(p.Reveal()) != "hunter2" {
		t.Error("not revealed")
	}
}
