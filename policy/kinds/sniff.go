package kinds

import (
	"bytes"
	"regexp"

	"go.yaml.in/yaml/v3"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/strict"
)

// Unread is a document, or a whole file, of which it cannot be told what it was to be: it may have been any policy. Where no earlier version
// of the file is known, what it could cover must be closed, by StandIns.
type Unread struct {
	At        policy.Origin
	Key       policy.Key // the object that it most likely was; zero where nothing tells
	Namespace string     // all that it could cover; empty: the mesh
}

// standInMark begins the name of a stand-in: no object that is accepted can have such a name, and it comes first in the order of names.
const standInMark = '('

// StandIns closes all that something unread could cover: requests and connections are refused, and no plaintext is taken. root is the root
// namespace of the mesh.
func (u Unread) StandIns(root string) []policy.Resource {
	meta := func(kind policy.Kind) policy.Object {
		space := u.Namespace
		if space == "" {
			space = root
		}
		name := string(standInMark) + u.At.File + ")"
		return policy.Object{Key: policy.Key{Kind: kind, Namespace: space, Name: name}, At: u.At, Void: true}
	}
	return []policy.Resource{
		&policy.AuthorizationPolicy{Object: meta(policy.KindAuthorizationPolicy)},
		&policy.PeerAuthentication{Object: meta(policy.KindPeerAuthentication)},
	}
}

// StandIn tells whether a key is that of one of StandIns.
func StandIn(k policy.Key) bool {
	return (k.Kind == policy.KindAuthorizationPolicy || k.Kind == policy.KindPeerAuthentication) && len(k.Name) > 0 && k.Name[0] == standInMark
}

// Unreadable is the result of a file that cannot be read at all, for the reason that the problem tells. name is as for Decode.
func Unreadable(file, name string, why policy.Problem) Result {
	r := Result{Problems: []policy.Problem{why}}
	if isRego(name) {
		key := policy.Key{Kind: policy.KindRego, Name: name}
		o := &object{meta: policy.Object{Key: key, At: policy.Origin{File: file}}, unreadable: true}
		r.Refused = []Refused{{Key: key, Void: voidOf(nil, o)}}
	} else if !isSchema(name) {
		r.Unread = []Unread{{At: policy.Origin{File: file}}}
	}
	return r
}

// What the text of a broken document still tells, in block style, in flow style and as JSON. A namespace counts only where something follows
// it: a file may be cut off in the middle of the name.
var (
	sniffComment   = regexp.MustCompile(`(?m)(^|[ \t])#.*$`)
	sniffVersion   = regexp.MustCompile(`\bapiVersion["']?[ \t]*:`)
	sniffKind      = regexp.MustCompile(`\bkind["']?[ \t]*:[ \t]*["']?([A-Za-z]+)`)
	sniffPlainKind = regexp.MustCompile(`(?m)^kind:[ \t]*([A-Za-z]+)[ \t\r]*$`)
	sniffName      = regexp.MustCompile(`\bname["']?[ \t]*:[ \t]*["']?([-a-z0-9.]+)`)
	sniffNamespace = regexp.MustCompile(`\bnamespace["']?[ \t]*:[ \t]*["']?([-a-z0-9]*)["']?[ \t]*(,|\}|\r?\n)?`)
)

// sniffed is what the text of a broken document tells.
type sniffed struct {
	kind, name, namespace string // empty where it is not told, or told twice in different ways
	harmless              bool   // it was one object, of a kind whose absence closes by itself
}

func sniff(text []byte) sniffed {
	whole := bytes.HasSuffix(text, []byte("\n"))
	text = sniffComment.ReplaceAll(text, nil)
	first := func(re *regexp.Regexp) string {
		if m := re.FindSubmatch(text); m != nil {
			return string(m[1])
		}
		return ""
	}
	s := sniffed{kind: first(sniffKind), name: first(sniffName)}
	found := sniffNamespace.FindAllSubmatch(text, -1)
	if len(found) > 0 && len(found) >= len(sniffVersion.FindAllIndex(text, -1)) {
		s.namespace = string(found[0][1])
	}
	for _, m := range found {
		if len(m[2]) == 0 || string(m[1]) != s.namespace {
			s.namespace = ""
		}
	}
	if !label(s.namespace) {
		s.namespace = ""
	}
	s.harmless = whole && len(sniffKind.FindAllIndex(text, -1)) == 1 && s.kind != "" && first(sniffPlainKind) == s.kind && closesByAbsence(s.kind)
	return s
}

// closesByAbsence tells whether a kind is accepted and guards nothing.
func closesByAbsence(kind string) bool {
	for _, g := range acceptedGroups() {
		if a, ok := accept(g, kind); ok {
			return voidOf(nil, &object{meta: policy.Object{Key: policy.Key{Kind: a.kind}}, unreadable: true}) == nil
		}
	}
	return false
}

// unreadable is a document that is no YAML, or no mapping.
func (d *decoder) unreadable(doc strict.Document, p policy.Problem) {
	s := sniff(doc.Text)
	u := Unread{At: doc.At, Namespace: s.namespace}
	for _, g := range acceptedGroups() {
		if a, ok := accept(g, s.kind); ok && s.name != "" {
			u.Key = keyOf(a, s.namespace, s.name)
			o := &object{meta: policy.Object{Key: u.Key, At: doc.At}, unreadable: true}
			d.Refused = append(d.Refused, Refused{Key: u.Key, Void: voidOf(nil, o)})
			p.Object = u.Key.String()
		}
	}
	if !s.harmless {
		d.Unread = append(d.Unread, u)
	}
	d.Problems = append(d.Problems, p)
}

// unknown is a mapping that may have been a policy, though its kind does not tell which.
func (d *decoder) unknown(root *yaml.Node) {
	u := Unread{At: policy.Origin{File: d.file, Line: root.Line}}
	if m := child(root, "metadata"); m != nil && m.Kind == yaml.MappingNode {
		u.Namespace = textOf(m, "namespace")
		if child(m, "namespace") == nil {
			u.Namespace = "default"
		}
	}
	if !label(u.Namespace) || child(root, "items") != nil {
		u.Namespace = ""
	}
	d.Unread = append(d.Unread, u)
}

// merged tells whether a mapping is two objects, of which one is hidden by the other: the line of --- between them was lost.
func merged(root *yaml.Node) bool {
	seen := map[string]bool{}
	for i := 0; i+1 < len(root.Content); i += 2 {
		key := root.Content[i].Value
		if seen[key] && (key == "kind" || key == "metadata" || key == "spec") {
			return true
		}
		seen[key] = true
	}
	return false
}
