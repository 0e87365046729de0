package kinds

import (
	"fmt"
	"path"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/strict"
)

// Wanted tells whether a file of this name is read at all. Hidden files and what editors leave behind are not.
func Wanted(name string) bool {
	name = path.Base(name)
	if strings.HasPrefix(name, ".") || strings.HasPrefix(name, "#") || strings.HasSuffix(name, "~") {
		return false
	}
	switch path.Ext(name) {
	case ".yaml", ".yml", ".json", ".rego":
		return true
	}
	return false
}

// Decode reads the text of a file. name is the file's path below the directory that is read; a rego module is named by it.
func Decode(file, name string, data []byte) Result {
	if isRego(name) && len(data) <= strict.MaxFileBytes {
		return rego(file, name, data)
	}
	d := &decoder{file: file, reader: strict.NewReader(file, "")}
	if isSchema(name) {
		d.info(policy.Origin{File: file, Line: 1}, "", "a JSON schema")
		return d.Result
	}
	docs, problems := strict.Split(file, data)
	if len(problems) > 0 {
		return Unreadable(file, name, problems[0])
	}
	for _, doc := range docs {
		d.document(doc)
	}
	slices.SortStableFunc(d.Problems, policy.Problem.Compare)
	return d.Result
}

func isRego(name string) bool   { return path.Ext(name) == ".rego" }
func isSchema(name string) bool { return strings.HasSuffix(name, ".schema.json") }

type decoder struct {
	Result
	file   string
	text   []byte // of the document under way
	reader *strict.Reader
}

func (d *decoder) info(at policy.Origin, object, what string) {
	d.Problems = append(d.Problems, policy.Problem{
		At: at, Object: object, Code: CodeNotUsed, Severity: policy.Info, Says: what + " is not used here",
	})
}

func (d *decoder) document(doc strict.Document) {
	if doc.Root == nil {
		d.unreadable(doc, doc.Problem)
		return
	}
	if doc.Root.Kind != yaml.MappingNode {
		d.unreadable(doc, policy.Problem{
			At: doc.At, Code: strict.CodeWrongType, Says: "a document wants to be a mapping with apiVersion, kind and metadata",
		})
		return
	}
	d.text = doc.Text
	d.object(doc.Root)
}

func (d *decoder) object(root *yaml.Node) {
	kind, version := textOf(root, "kind"), textOf(root, "apiVersion")
	switch {
	case kind == "" && child(root, "groups") != nil:
		d.prometheus(root, child(root, "groups"))
	case kind == "" && version == "" && child(root, "domain") != nil && child(root, "descriptors") != nil:
		d.rateLimit(root)
	case kind == "" && version == "" && path.Ext(d.file) == ".json":
		d.info(policy.Origin{File: d.file, Line: root.Line}, "", "a JSON document without apiVersion and kind")
	case kind == "" && version == "" && path.Base(d.file) == "credence.yaml":
		d.info(policy.Origin{File: d.file, Line: root.Line}, "", "a file of settings, which is for --file,")
	case kind == "" || version == "":
		d.nameless(root, kind)
	case kind == "List" && version == "v1":
		d.list(root)
	default:
		group, v, cut := strings.Cut(version, "/")
		if !cut {
			group, v = "", version
		}
		d.resource(root, group, v, kind)
	}
}

func (d *decoder) list(root *yaml.Node) {
	items := child(root, "items")
	if items == nil || items.Kind != yaml.SequenceNode {
		return
	}
	for _, item := range items.Content {
		if item.Kind != yaml.MappingNode {
			d.Unread = append(d.Unread, Unread{At: policy.Origin{File: d.file, Line: item.Line}})
			d.Problems = append(d.Problems, policy.Problem{
				At: policy.Origin{File: d.file, Line: item.Line}, Code: strict.CodeWrongType, Says: "an item wants to be a mapping with apiVersion, kind and metadata",
			})
			continue
		}
		d.object(item)
	}
}

func (d *decoder) nameless(root *yaml.Node, kind string) {
	missing := "kind"
	if kind != "" {
		missing = "apiVersion"
	}
	d.problem(root, missing, policy.Problem{Code: CodeMissingKind, Says: missing + " is missing", Try: "start the document with apiVersion and kind"})
	d.refuse(root, kind)
	group, _, _ := strings.Cut(textOf(root, "apiVersion"), "/")
	ours := child(root, "spec") != nil || child(root, "metadata") != nil || group != "" && groups(group) != nil
	if ours && !closesByAbsence(kind) {
		d.unknown(root)
	}
}

func (d *decoder) problem(root *yaml.Node, field string, p policy.Problem) {
	p.At, p.Field, p.Object = policy.Origin{File: d.file, Line: lineOf(root, field)}, field, title(root)
	d.Problems = append(d.Problems, p)
}

// resource decodes a document that names its kind.
func (d *decoder) resource(root *yaml.Node, group, version, kind string) {
	a, ok := accept(group, kind)
	if !ok {
		d.foreign(root, group, kind)
		return
	}
	if !slices.Contains(a.versions, version) {
		valid := make([]string, len(a.versions))
		for i, v := range a.versions {
			valid[i] = strings.TrimPrefix(group+"/"+v, "/")
		}
		d.problem(root, "apiVersion", policy.Problem{
			Code: CodeUnknownAPIVersion, Says: fmt.Sprintf("unknown version %q of %s", version, kind), Try: strings.Join(valid, " or "),
		})
		d.refuse(root, kind)
		return
	}
	o := d.start(root, a)
	r := a.read(o)
	if merged(root) {
		d.Unread = append(d.Unread, Unread{At: o.meta.At, Namespace: sniff(d.text).namespace})
	}
	if o.reader.Failed() {
		d.Refused = append(d.Refused, Refused{Key: o.meta.Key, Void: voidOf(r, o)})
	} else {
		*r.Meta() = o.meta
		d.Objects = append(d.Objects, r)
	}
	d.Problems = append(d.Problems, o.reader.Problems...)
}

// foreign is a kind that is not read.
func (d *decoder) foreign(root *yaml.Node, group, kind string) {
	if group == "monitoring.coreos.com" && kind == "PrometheusRule" {
		if spec := child(root, "spec"); spec != nil && child(spec, "groups") != nil {
			d.prometheus(root, child(spec, "groups"))
			return
		}
	}
	if unused(group, kind) {
		d.info(policy.Origin{File: d.file, Line: root.Line}, title(root), kind)
		return
	}
	if instead, ok := unsupported(group, kind); ok {
		try := "remove it"
		if instead != "" {
			try = "use " + instead
		}
		d.problem(root, "kind", policy.Problem{Code: CodeUnsupportedKind, Says: kind + " is not supported: it would have no effect", Try: try})
		return
	}
	d.unknownKind(root, group, kind)
}

func (d *decoder) unknownKind(root *yaml.Node, group, kind string) {
	if _, known := accept(group, kind); !known && slices.Contains(acceptedKinds(), kind) {
		right := groupOf(kind)
		d.problem(root, "apiVersion", policy.Problem{
			Code: CodeUnknownAPIVersion, Says: fmt.Sprintf("no kind %s in group %q", kind, group), Try: "did you mean " + right + "?",
		})
		d.refuse(root, kind)
		return
	}
	try := ""
	near, ok := strict.Nearest(kind, acceptedKinds())
	if ok {
		try = fmt.Sprintf("did you mean %s of %s?", near, groupOf(near))
	}
	d.problem(root, "kind", policy.Problem{Code: CodeUnknownKind, Says: fmt.Sprintf("unknown kind %q of group %q", kind, group), Try: try})
	d.refuse(root, near)
	if group != "" && groups(group) != nil && !closesByAbsence(near) {
		d.unknown(root)
	}
}

func groupOf(kind string) string {
	for _, g := range acceptedGroups() {
		for _, a := range groups(g) {
			if string(a.kind) == kind {
				return strings.TrimPrefix(g+"/"+a.versions[0], "/")
			}
		}
	}
	return ""
}

// refuse records an object of which nothing but its name was read. kind is the one that was most likely meant.
func (d *decoder) refuse(root *yaml.Node, kind string) {
	for _, g := range acceptedGroups() {
		if a, ok := accept(g, kind); ok {
			o := d.start(root, a)
			o.unreadable = true
			d.Refused = append(d.Refused, Refused{Key: o.meta.Key, Void: voidOf(nil, o)})
			return
		}
	}
}

func (d *decoder) rateLimit(root *yaml.Node) {
	o := &object{decoder: d, root: root, reader: d.reader}
	name := textOf(root, "domain")
	if name == "" {
		name = "unnamed"
	}
	o.meta = policy.Object{Key: policy.Key{Kind: policy.KindRateLimit, Name: name}, At: policy.Origin{File: d.file, Line: root.Line}}
	d.reader.Next(o.meta.Key.String())
	o.meta.Fields, o.meta.Digest = d.reader.Survey(root)
	if textOf(root, "domain") == "" {
		o.refuse("domain", CodeMissingField, "", "domain wants to be a string that is not empty")
	}
	if d.reader.Failed() {
		d.Refused = append(d.Refused, Refused{Key: o.meta.Key, Void: voidOf(nil, o)})
	} else {
		d.Objects = append(d.Objects, &policy.RateLimit{Object: o.meta, Config: string(d.text)})
	}
	d.Problems = append(d.Problems, d.reader.Problems...)
}

func child(n *yaml.Node, key string) *yaml.Node {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i+1]
		}
	}
	return nil
}

func textOf(n *yaml.Node, key string) string {
	if c := child(n, key); c != nil {
		text, _ := strict.Text(c)
		return text
	}
	return ""
}

func lineOf(n *yaml.Node, key string) int {
	for i := 0; n.Kind == yaml.MappingNode && i+1 < len(n.Content); i += 2 {
		if n.Content[i].Value == key {
			return n.Content[i].Line
		}
	}
	return n.Line
}

// title names an object of any kind, known or not.
func title(root *yaml.Node) string {
	kind, meta := textOf(root, "kind"), child(root, "metadata")
	if kind == "" {
		kind = "object"
	}
	if meta == nil {
		return kind
	}
	if space := textOf(meta, "namespace"); space != "" {
		return kind + " " + space + "/" + textOf(meta, "name")
	}
	return strings.TrimSpace(kind + " " + textOf(meta, "name"))
}
