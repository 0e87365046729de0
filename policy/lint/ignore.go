package lint

import (
	"fmt"
	"slices"
	"strings"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/strict"
)

// AnnotationIgnore on an object says which findings about it are known and wanted: "CODE: reason; CODE2: reason". An error cannot be ignored.
const AnnotationIgnore = "credence.dev/ignore"

const ignoreField = "metadata.annotations[" + AnnotationIgnore + "]"

// Ignored takes from problems those that their objects ignore for a reason, and adds what is wrong with the annotations themselves.
func Ignored(set *policy.Set, problems []policy.Problem) []policy.Problem {
	wanted := map[string]annotated{}
	l := &linter{set: set, mesh: set.Mesh()}
	for _, c := range policy.Diff(policy.NewSet(set.Mesh()), set) {
		if o := c.New.Meta(); o.Annotations[AnnotationIgnore] != "" {
			wanted[o.Key.String()] = annotated{o, l.ignores(o)}
		}
	}
	for _, p := range problems {
		a, ok := wanted[owner(p.Object)]
		if !ok || !slices.Contains(a.codes, p.Code) {
			l.found = append(l.found, p)
			continue
		}
		if p.Severity == policy.Error {
			l.found = append(l.found, p)
			l.warn(a.object, ignoreField, CodeIgnoreError, "correct the object", "%s is an error here (%s), and an error cannot be ignored", p.Code, p.At)
		}
	}
	slices.SortFunc(l.found, policy.Problem.Compare)
	return slices.Compact(l.found)
}

// annotated is an object with the codes that it ignores.
type annotated struct {
	object *policy.Object
	codes  []string
}

// owner is the key of the object that a problem is about. Some problems add what of the object they mean: a key of a ConfigMap.
func owner(object string) string {
	words := strings.Fields(object)
	return strings.Join(words[:min(2, len(words))], " ")
}

// ignores reads an annotation.
func (l *linter) ignores(o *policy.Object) []string {
	var codes []string
	for part := range strings.SplitSeq(o.Annotations[AnnotationIgnore], ";") {
		code, reason, _ := strings.Cut(part, ":")
		code, reason = strings.TrimSpace(code), strings.TrimSpace(reason)
		switch {
		case code == "" && reason == "":
		case !slices.Contains(Codes(), code):
			try := "a code of docs/problems.md"
			if near, ok := strict.Nearest(code, Codes()); ok {
				try = "did you mean " + near + "?"
			}
			l.warn(o, ignoreField, CodeIgnoreUnknown, try, "nothing has the code %q", code)
		case reason == "":
			l.warn(o, ignoreField, CodeIgnoreNoReason, fmt.Sprintf("%q", code+": why it is wanted"), "%s is ignored without a reason, and so is told all the same", code)
		default:
			codes = append(codes, code)
		}
	}
	return codes
}
