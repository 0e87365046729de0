package file

import (
	"fmt"
	"slices"
	"time"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/kinds"
)

// problems is everything that is wrong now, in order. Files without a problem cost nothing.
func (t *tree) problems(dir string) []policy.Problem {
	var out []policy.Problem
	for file := range t.troubled {
		e := t.files[file]
		out = append(out, e.problems...)
		for k, c := range e.claims {
			if c.left && t.owners[k] != file {
				continue
			}
			if p, ok := c.told(k, file, e.problems, t.set.Mesh().RootNamespace); ok {
				out = append(out, p)
			}
		}
	}
	for k := range t.disputed {
		out = append(out, t.dispute(k)...)
	}
	if len(t.held) > 0 {
		out = append(out, policy.Problem{
			At: policy.Origin{File: dir}, Code: CodeMassDelete,
			Says: fmt.Sprintf("%d of %d objects vanished at once; they stay in force", len(t.held), t.set.Len()),
			Try:  "put the files back, or confirm the deletion: touch " + dir + "/" + ConfirmFile,
		})
	}
	slices.SortFunc(out, policy.Problem.Compare)
	return out
}

// told is what must be said about an object that was refused, beside why.
func (c claim) told(k policy.Key, file string, known []policy.Problem, root string) (policy.Problem, bool) {
	p := policy.Problem{At: policy.Origin{File: file, Line: c.resource.Meta().At.Line}, Object: k.String()}
	for _, q := range known {
		if q.Object == p.Object && q.Severity == policy.Error {
			p.At = q.At
			break
		}
	}
	switch {
	case kinds.StandIn(k):
		return closing(c.resource.Meta(), root)
	case c.left:
		p.At.Line = 0
		p.Code, p.Severity = CodeLastGood, policy.Warning
		p.Says = "the file does not say it any more, but has an error: the last good version stays in force until the file has none"
	case !c.since.IsZero():
		p.Code, p.Severity = CodeLastGood, policy.Warning
		p.Says = fmt.Sprintf("the last good version stays in force; what the file says has not been since %s", c.since.UTC().Format(time.RFC3339))
	case c.resource.Meta().Void:
		p.Code, p.Severity = CodeClosed, policy.Error
		p.Says = "no good version of it is known: what it covers is closed until it is valid"
	default:
		return policy.Problem{}, false
	}
	return p, true
}

// closing is told once for all stand-ins of something that cannot be read.
func closing(m *policy.Object, root string) (policy.Problem, bool) {
	what := "namespace " + m.Key.Namespace
	if m.Key.Namespace == root {
		what = "the whole mesh"
	}
	return policy.Problem{
		At: m.At, Code: CodeClosed,
		Says: "this may be any policy, and no earlier version of the file is known: until it can be read, " + what +
			" is closed: requests are answered 503, TCP connections and plaintext refused",
		Try: "mend it, or move it out of the directory",
	}, m.Key.Kind == policy.KindAuthorizationPolicy
}

func (t *tree) dispute(k policy.Key) []policy.Problem {
	var out []policy.Problem
	owner := t.owners[k]
	for _, f := range t.claims[k] {
		m := t.files[f].claims[k].resource.Meta()
		switch {
		case t.files[f].claims[k].left: // moved out of a file that has an error: the other file has it now
		case t.clashes(k):
			out = append(out, policy.Problem{
				At: m.At, Object: k.String(), Code: CodeWorkloadClash, Try: "rename one of the two",
				Says: fmt.Sprintf("WorkloadEntry %s/%s has the same name, and a proxy could not tell which of the two it is: the WorkloadEntry stays in force", k.Namespace, k.Name),
			})
		case f != owner:
			out = append(out, duplicate(m, t.files[owner].claims[k].resource.Meta()))
		}
	}
	return out
}
