// Package strict decodes YAML as users write it into Istio's protobuf APIs and into Go structs with json tags, and refuses whatever it does
// not understand: an unknown field, a wrong type, a value that is no member of its enumeration, a key written twice. Each is a
// policy.Problem with the line, the path of the field and the nearest valid name. One bad document of a file leaves its neighbours alone.
package strict

import (
	"fmt"

	"go.yaml.in/yaml/v3"

	"github.com/credence-mesh/credence/policy"
)

// The bounds of what is read. A document past one of them is refused before it is decoded.
const (
	MaxFileBytes = 8 << 20 // of one file
	MaxDepth     = 100     // of nested mappings and sequences
	MaxNodes     = 1 << 20 // of one document, aliases expanded
)

// The stable codes of this package; docs/problems.md explains each.
const (
	CodeFileTooLarge  = "FILE_TOO_LARGE"
	CodeYAMLSyntax    = "YAML_SYNTAX"
	CodeYAMLTooDeep   = "YAML_TOO_DEEP"
	CodeYAMLTooLarge  = "YAML_TOO_LARGE"
	CodeDuplicateKey  = "DUPLICATE_KEY"
	CodeUnknownField  = "UNKNOWN_FIELD"
	CodeWrongType     = "WRONG_TYPE"
	CodeBadEnum       = "BAD_ENUM"
	CodeBadValue      = "BAD_VALUE"
	CodeOneofConflict = "ONEOF_CONFLICT"
)

// File decodes a file that holds one document, such as credence.yaml, into a pointer to a struct or a proto message.
// An empty file leaves into as it was. What could be read is filled in even where problems are returned.
func File(file string, data []byte, into any) []policy.Problem {
	docs, problems := Split(file, data)
	for i, d := range docs {
		if d.Problem.Code != "" {
			problems = append(problems, d.Problem)
			continue
		}
		if i > 0 {
			problems = append(problems, policy.Problem{
				At: d.At, Code: CodeYAMLSyntax, Says: "a second document in a file that may hold one", Try: "remove the line --- and what follows it",
			})
			break
		}
		r := NewReader(file, "")
		r.Survey(d.Root)
		r.Into(d.Root, "", into)
		problems = append(problems, r.Problems...)
	}
	return problems
}

// Reader decodes nodes of one object and gathers the problems that it meets.
type Reader struct {
	File     string
	Object   string // named in each problem
	Private  bool   // never show a value in a problem
	Problems []policy.Problem

	path    path
	structs map[structType]structFields
	failed  int // problems of severity Error
}

// NewReader makes a reader whose problems name the file and the object.
func NewReader(file, object string) *Reader {
	return &Reader{File: file, Object: object, structs: map[structType]structFields{}}
}

// Next readies the reader for the next object of its file; what it learned about types is kept.
func (r *Reader) Next(object string) {
	r.Object, r.Private, r.Problems, r.failed, r.path = object, false, nil, 0, r.path[:0]
}

// Failed tells whether a problem of severity Error was met.
func (r *Reader) Failed() bool { return r.failed > 0 }

// Report adds a problem of a field, at a node of it.
func (r *Reader) Report(n *yaml.Node, field string, p policy.Problem) {
	p.At, p.Object, p.Field = policy.Origin{File: r.File, Line: n.Line}, r.Object, field
	if p.Severity == policy.Error {
		r.failed++
	}
	r.Problems = append(r.Problems, p)
}

func (r *Reader) fail(n *yaml.Node, code, try, format string, args ...any) {
	r.Report(n, r.path.String(), policy.Problem{Code: code, Says: fmt.Sprintf(format, args...), Try: try})
}

func (r *Reader) wrongType(n *yaml.Node, want string) {
	r.fail(n, CodeWrongType, r.tryType(n, want), "wants %s, got %s", want, describe(n))
}

func (r *Reader) tryType(n *yaml.Node, want string) string {
	if want != wantString || n.Kind != yaml.ScalarNode {
		return ""
	}
	if r.Private {
		return "put the value in quotes"
	}
	return fmt.Sprintf("%q", n.Value)
}

func (r *Reader) unknown(key *yaml.Node, valid []string) {
	try := ""
	if near, ok := Nearest(key.Value, valid); ok {
		try = "did you mean " + near + "?"
	}
	r.path.push(key.Value)
	r.fail(key, CodeUnknownField, try, "unknown field %q", key.Value)
	r.path.pop()
}
