package kinds

import (
	"fmt"
	"strconv"
	"strings"
	"time"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/durationpb"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/strict"
)

// object is one document while it is read.
type object struct {
	*decoder
	reader     *strict.Reader
	root       *yaml.Node
	meta       policy.Object
	unreadable bool // what it covers is not known
}

// start reads the name of an object, so that every later problem can tell it, and indexes its fields.
func (d *decoder) start(root *yaml.Node, a accepted) *object {
	o := &object{decoder: d, reader: d.reader, root: root}
	name, space := "", ""
	if m := child(root, "metadata"); m != nil {
		name, space = textOf(m, "name"), textOf(m, "namespace")
	}
	key := keyOf(a, space, name)
	o.reader.Next(key.String())
	o.reader.Private = a.kind == policy.KindSecret
	o.aliases(a.kind)
	o.meta = policy.Object{Key: key, At: policy.Origin{File: d.file, Line: root.Line}}
	o.meta.Fields, o.meta.Digest = o.reader.Survey(root)
	if !subdomain(name) {
		o.refuse("metadata.name", CodeBadName, "lower case letters, digits, - and .", "%q is no name", name)
	}
	if !a.cluster && !label(key.Namespace) {
		o.refuse("metadata.namespace", CodeBadName, "lower case letters, digits and -", "%q is no namespace", key.Namespace)
	}
	return o
}

func keyOf(a accepted, namespace, name string) policy.Key {
	if a.cluster {
		namespace = ""
	} else if namespace == "" {
		namespace = "default"
	}
	return policy.Key{Kind: a.kind, Namespace: namespace, Name: name}
}

// aliases renames the spellings that the seeds use and the API does not have.
func (o *object) aliases(kind policy.Kind) {
	spec := child(o.root, "spec")
	if kind != policy.KindRequestAuthentication || spec == nil {
		return
	}
	rules := child(spec, "jwtRules")
	if rules == nil {
		rules = child(spec, "jwt_rules")
	}
	if rules == nil {
		return
	}
	for i, rule := range rules.Content {
		for j := 0; rule.Kind == yaml.MappingNode && j+1 < len(rule.Content); j += 2 {
			if k := rule.Content[j]; k.Value == "outputClaimsToHeaders" {
				o.reader.Report(k, fmt.Sprintf("spec.jwtRules[%d].outputClaimsToHeaders", i), policy.Problem{
					Code: CodeFieldAlias, Severity: policy.Warning, Try: "outputClaimToHeaders",
					Says: "Istio has no such field and ignores it, so that the headers never appear; it is read here as outputClaimToHeaders",
				})
				renamed := *k // the node may be shared through an alias
				renamed.Value = "outputClaimToHeaders"
				rule.Content[j] = &renamed
			}
		}
	}
}

// body is the whole of a document whose content is in spec.
type body[T any] struct {
	APIVersion string            `json:"apiVersion"`
	Kind       string            `json:"kind"`
	Metadata   metav1.ObjectMeta `json:"metadata"`
	Spec       *T                `json:"spec"`
	Status     any               `json:"status"`
}

// specOf decodes a document whose content is in spec; an absent spec is an empty one.
func specOf[T any](o *object) *T {
	var b body[T]
	o.into(&b, &b.Metadata)
	if b.Spec == nil {
		b.Spec = new(T)
	}
	return b.Spec
}

func (o *object) into(body any, m *metav1.ObjectMeta) {
	o.reader.Into(o.root, "", body)
	o.meta.Labels, o.meta.Annotations, o.meta.Created = m.Labels, m.Annotations, m.CreationTimestamp.Time
}

// refuse reports a field for which the object cannot be put in force. What only follows from a mistake that was told already is not told:
// a field that is missing because it is misspelled.
func (o *object) refuse(field, code, try, format string, args ...any) {
	for _, p := range o.reader.Problems {
		if p.Severity == policy.Error && follows(field, code, p.Field) {
			return
		}
	}
	o.report(field, policy.Problem{Code: code, Says: fmt.Sprintf(format, args...), Try: try})
}

func follows(field, code, told string) bool {
	if field == told {
		return true
	}
	if code != CodeEmptyMatch && code != CodeMissingField && code != CodeRulesRequired {
		return false
	}
	parent := field
	if code != CodeEmptyMatch {
		parent = field[:max(0, strings.LastIndexByte(field, '.'))]
	}
	rest, below := strings.CutPrefix(told, parent+".")
	return below && (strings.HasPrefix(told, field) || !strings.Contains(rest, "."))
}

// warn reports a field that does not do what it seems to.
func (o *object) warn(field, code, try, format string, args ...any) {
	o.report(field, policy.Problem{Code: code, Says: fmt.Sprintf(format, args...), Try: try, Severity: policy.Warning})
}

func (o *object) report(field string, p policy.Problem) {
	line := o.meta.At.Line
	if o.meta.Fields != nil {
		if l := o.meta.Fields.Line(field); l > 0 {
			line = l
		}
	}
	o.reader.Report(&yaml.Node{Line: line}, field, p)
}

// covers tells whether the selector of a refused object was read, so that closing what it selects is enough.
func (o *object) covers() bool {
	if o.unreadable || o.reader == nil {
		return false
	}
	for _, p := range o.reader.Problems {
		if p.Severity == policy.Error && (p.Field == "spec" || named(p.Field) || strings.Contains(p.Field, "elector") ||
			strings.HasPrefix(p.Field, "spec.targetRef") || p.Code == strict.CodeUnknownField && strings.Count(p.Field, ".") < 2) {
			return false
		}
	}
	return true
}

// named tells whether a field is part of an object's name.
func named(field string) bool {
	return field == "metadata" || field == "metadata.name" || field == "metadata.namespace"
}

// written tells whether a field is in the document, though its value may be empty.
func (o *object) written(field string) bool {
	n := o.root
	for _, step := range strings.FieldsFunc(field, func(c rune) bool { return strings.ContainsRune(".[]", c) }) {
		if n.Kind == yaml.AliasNode {
			n = n.Alias
		}
		if n.Kind == yaml.SequenceNode {
			i, err := strconv.Atoi(step)
			if err != nil || i >= len(n.Content) {
				return false
			}
			n = n.Content[i]
			continue
		}
		if n = child(n, step); n == nil {
			return false
		}
	}
	return n.Tag != "!!null"
}

// emptyList tells whether a list or a mapping is written and has nothing in it.
func (o *object) emptyList(field string, n int) bool { return n == 0 && o.written(field) }

// atMost holds a list to the limit of its schema.
func (o *object) atMost(field string, n, most int) {
	if n > most {
		o.refuse(field, CodeTooMany, "split the object, or the list", "%d items, more than %d", n, most)
	}
}

// positive holds a duration to what Istio and Envoy can express: whole milliseconds, and one at least.
func (o *object) positive(field string, d *durationpb.Duration) {
	if d == nil {
		return
	}
	if v := d.AsDuration(); v < time.Millisecond || v%time.Millisecond != 0 {
		o.refuse(field, CodeBadValue, "10s, 500ms", "%s is no duration of a millisecond or more, in whole milliseconds", v)
	}
}
