package kinds_test

import (
	"bytes"
	"cmp"
	"flag"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/tools/txtar"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/kinds"
)

var update = flag.Bool("update", false, "rewrite what is expected")

// TestRefused reads testdata/refused/*.txtar: each pair of files is a document and exactly what is told about it. Every document is refused.
func TestRefused(t *testing.T) {
	t.Parallel()
	count := run(t, filepath.Join("testdata", "refused"), func(t *testing.T, r kinds.Result) {
		t.Helper()
		if len(r.Objects) > 0 {
			t.Errorf("%v is accepted", r.Objects[0].Meta().Key)
		}
	})
	if count < 280 {
		t.Errorf("%d cases", count)
	}
}

// TestAccepted reads testdata/accepted/*.txtar: documents that are put in force, and what is remarked.
func TestAccepted(t *testing.T) {
	t.Parallel()
	run(t, filepath.Join("testdata", "accepted"), func(t *testing.T, r kinds.Result) {
		t.Helper()
		if len(r.Refused) > 0 {
			t.Errorf("%v is refused: %v", r.Refused[0].Key, r.Problems)
		}
	})
}

func run(t *testing.T, dir string, check func(*testing.T, kinds.Result)) int {
	t.Helper()
	files, err := filepath.Glob(filepath.Join(dir, "*.txtar"))
	if err != nil || len(files) == 0 {
		t.Fatal("no test data", err)
	}
	count := 0
	for _, file := range files {
		ar, err := txtar.ParseFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if *update {
			rewrite(t, file, ar)
		}
		for i := 0; i+1 < len(ar.Files); i += 2 {
			in, want := ar.Files[i], ar.Files[i+1]
			if want.Name != "want" {
				t.Fatalf("%s: %s has no want after it", file, in.Name)
			}
			count++
			t.Run(filepath.Base(file)+"/"+in.Name, func(t *testing.T) {
				t.Parallel()
				r := kinds.Decode(in.Name, in.Name, in.Data)
				check(t, r)
				if got := told(r); got != string(want.Data) {
					t.Errorf("got\n%swant\n%s", got, want.Data)
				}
			})
		}
	}
	return count
}

// told is what a result says, without the name of the file.
func told(r kinds.Result) string {
	var b strings.Builder
	for _, p := range r.Problems {
		fmt.Fprintf(&b, "%d %s %s\n", p.At.Line, p.Severity, strings.TrimPrefix(p.String(), fmt.Sprintf("%s: %s ", p.At, p.Severity)))
	}
	for _, o := range r.Objects {
		fmt.Fprintf(&b, "= %s\n", o.Meta().Key)
	}
	for _, o := range r.Refused {
		fmt.Fprintf(&b, "! %s%s\n", o.Key, void(o.Void))
	}
	for _, u := range r.Unread {
		fmt.Fprintf(&b, "? %s\n", cmp.Or(u.Namespace, "the mesh"))
	}
	return b.String()
}

// void tells what a stand-in covers.
func void(r policy.Resource) string {
	covers := func(known bool, labels map[string]string) string {
		if !known {
			return " closes its namespace"
		}
		return fmt.Sprintf(" closes %v", labels)
	}
	switch v := r.(type) {
	case nil:
		return ""
	case *policy.AuthorizationPolicy:
		return covers(v.Spec != nil, v.Spec.GetSelector().GetMatchLabels())
	case *policy.RequestAuthentication:
		return covers(v.Spec != nil, v.Spec.GetSelector().GetMatchLabels())
	case *policy.PeerAuthentication:
		return covers(v.Spec != nil, v.Spec.GetSelector().GetMatchLabels())
	case *policy.EnvoyFilter:
		return covers(v.Spec != nil, v.Spec.GetWorkloadSelector().GetLabels())
	case *policy.Sidecar:
		return covers(v.Spec != nil, v.Spec.GetWorkloadSelector().GetLabels())
	case *policy.HTTPRoute:
		if v.Spec == nil {
			return " void"
		}
		var rules []int
		for _, r := range v.Spec.Rules {
			rules = append(rules, len(r.Matches))
		}
		return fmt.Sprintf(" closes %v", rules)
	default:
		return " void"
	}
}

// rewrite keeps the documents and makes each want anew; a document without one gets one.
func rewrite(t *testing.T, file string, ar *txtar.Archive) {
	t.Helper()
	out := &txtar.Archive{Comment: ar.Comment}
	for _, f := range ar.Files {
		if f.Name != "want" {
			out.Files = append(out.Files, f, txtar.File{Name: "want", Data: []byte(told(kinds.Decode(f.Name, f.Name, f.Data)))})
		}
	}
	ar.Files = out.Files
	if err := os.WriteFile(file, txtar.Format(out), 0o600); err != nil {
		t.Fatal(err)
	}
}

func TestWanted(t *testing.T) {
	t.Parallel()
	for name, want := range map[string]bool{
		"a.yaml": true, "b/c.yml": true, "a.json": true, "x.rego": true, "README.md": false, "notes.txt": false, "a.yaml~": false,
		".a.yaml.swp": false, "#a.yaml#": false, ".#a.yaml": false, "4913": false, "..data": false, "yaml": false,
	} {
		if kinds.Wanted(name) != want {
			t.Errorf("%s: %t", name, !want)
		}
	}
}

func TestAliasIsReadUnderItsRightName(t *testing.T) {
	t.Parallel()
	r := kinds.Decode("f.yaml", "f.yaml", []byte(`apiVersion: security.istio.io/v1
kind: RequestAuthentication
metadata: {name: a, creationTimestamp: "2026-01-31T12:00:00Z", labels: {x: y}, annotations: {n: m}}
spec:
  jwtRules:
  - issuer: https://a.test
    jwks_uri: https://a.test/keys
    outputClaimsToHeaders:
    - header: x-tenant
      claim: tenant
`))
	if len(r.Objects) != 1 {
		t.Fatal(r.Problems)
	}
	p := r.Objects[0].(*policy.RequestAuthentication)
	rule := p.Spec.GetJwtRules()[0]
	if rule.GetJwksUri() == "" || rule.GetOutputClaimToHeaders()[0].GetHeader() != "x-tenant" {
		t.Errorf("%v", rule)
	}
	if at := p.Where("spec.jwtRules[0].outputClaimToHeaders[0].claim"); at.Line != 10 {
		t.Errorf("claim at %s", at)
	}
	if p.Created.Year() != 2026 || p.Labels["x"] != "y" || p.Annotations["n"] != "m" || p.Digest == 0 {
		t.Errorf("%+v", p.Object)
	}
}

func TestSecretIsDecoded(t *testing.T) {
	t.Parallel()
	r := kinds.Decode("f.yaml", "f.yaml", []byte("apiVersion: v1\nkind: Secret\nmetadata: {name: a}\ndata: {a: aGk=, b: aGk=}\nstringData: {b: there}\n"))
	if len(r.Objects) != 1 {
		t.Fatal(r.Problems)
	}
	s := r.Objects[0].(*policy.Secret)
	if !bytes.Equal(s.Data["a"].Reveal(), []byte("hi")) || !bytes.Equal(s.Data["b"].Reveal(), []byte("there")) {
		t.Error("wrong data")
	}
	if text := fmt.Sprintf("%v %+v %#v", s.Data, s, s); strings.Contains(text, "there") {
		t.Error("the value is shown")
	}
}

func TestRateLimitKeepsItsText(t *testing.T) {
	t.Parallel()
	text := "# limits\ndomain: api\ndescriptors:\n- key: a # why\n"
	r := kinds.Decode("f.yaml", "f.yaml", []byte(text))
	if len(r.Objects) != 1 || r.Objects[0].(*policy.RateLimit).Config != text {
		t.Errorf("%+v", r)
	}
}

// FuzzDecode holds for every kind: nothing panics, a refused object is never among the good ones, and every problem is complete.
func FuzzDecode(f *testing.F) {
	for _, dir := range []string{"refused", "accepted"} {
		files, err := filepath.Glob(filepath.Join("testdata", dir, "*.txtar"))
		if err != nil {
			f.Fatal(err)
		}
		for _, file := range files {
			ar, err := txtar.ParseFile(file)
			if err != nil {
				f.Fatal(err)
			}
			for _, doc := range ar.Files {
				if doc.Name != "want" {
					f.Add(doc.Name, doc.Data)
				}
			}
		}
	}
	f.Fuzz(func(t *testing.T, name string, data []byte) {
		r := kinds.Decode(name, name, data)
		errs := 0
		for _, p := range r.Problems {
			if p.Code == "" || p.Says == "" || p.At.File != name {
				t.Errorf("incomplete: %+v", p)
			}
			if p.Severity == policy.Error {
				errs++
			}
		}
		if (len(r.Refused) > 0 || len(r.Unread) > 0) && errs == 0 {
			t.Errorf("refused without a reason: %+v", r)
		}
		for _, o := range r.Objects {
			if o.Meta().Void || o.Meta().Key.Name == "" || o.Meta().At.File != name {
				t.Errorf("accepted: %+v", o.Meta())
			}
		}
	})
}
