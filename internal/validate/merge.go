package validate

import (
	"slices"
	"strings"

	"github.com/credence-mesh/credence/policy"
)

// Merged is what was found by building configuration, and what the linter found, with each cause told once. The two overlap, since the linter
// also has to speak where no workload is known and nothing is built: where both tell the same of one object, the more exact place is kept.
func Merged(built, linted []policy.Problem) []policy.Problem {
	out := slices.DeleteFunc(slices.Clone(built), func(p policy.Problem) bool { return follows(p, built) })
	n := len(out)
	for _, l := range linted {
		i := slices.IndexFunc(out[:n], func(p policy.Problem) bool { return same(p, l) })
		if i < 0 {
			out = append(out, l)
			continue
		}
		if len(l.Field) > len(out[i].Field) {
			l.Severity = min(l.Severity, out[i].Severity) // errors come first
			out[i] = l
		}
	}
	return out
}

// same tells whether two problems have one cause: one code, and one place or a field and what lies below it.
func same(p, q policy.Problem) bool {
	return p.Code == q.Code && p.Object == q.Object && p.At.File == q.At.File &&
		(p.Field == q.Field && p.At.Line == q.At.Line || below(p.Field, q.Field) || below(q.Field, p.Field))
}

func below(parent, field string) bool {
	rest, ok := strings.CutPrefix(field, parent)
	return ok && parent != "" && rest != "" && (rest[0] == '.' || rest[0] == '[')
}

// follows tells of a listener without a certificate for which it is already told what is wrong with each certificate that it names.
func follows(p policy.Problem, all []policy.Problem) bool {
	return p.Code == "GATEWAY_NO_CERTIFICATE" && slices.ContainsFunc(all, func(q policy.Problem) bool {
		return q.Object == p.Object && below(p.Field, q.Field)
	})
}
