package strict

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/credence-mesh/credence/policy"
)

// Document is one YAML document of a file: readable, with a Root whose aliases and merge keys are resolved, or not, with a Problem.
type Document struct {
	At      policy.Origin
	Root    *yaml.Node // nil where Problem is set
	Problem policy.Problem
	Text    []byte // as written, for a look at what an unreadable document was to be
}

// Split parses the documents of a file, each by itself, so that a syntax error in one does not hide the others. Empty documents are left out.
func Split(file string, data []byte) ([]Document, []policy.Problem) {
	if len(data) > MaxFileBytes {
		return nil, []policy.Problem{{
			At: policy.Origin{File: file}, Code: CodeFileTooLarge,
			Says: fmt.Sprintf("%d bytes, more than the %d that are read", len(data), MaxFileBytes), Try: "split it into several files",
		}}
	}
	data = bytes.TrimPrefix(data, []byte("\xef\xbb\xbf"))
	var docs []Document
	for _, c := range chunks(data) {
		docs = append(docs, c.parse(file)...)
	}
	return docs, nil
}

// chunk is the text between two lines of "---". YAML allows that marker at the start of a line nowhere else.
type chunk struct {
	text []byte
	line int // lines before it
}

func chunks(data []byte) []chunk {
	var out []chunk
	start, startLine, line := 0, 0, 0
	for at := 0; at < len(data); line++ {
		end := len(data)
		if i := bytes.IndexByte(data[at:], '\n'); i >= 0 {
			end = at + i + 1
		}
		if marker(data[at:end]) && at > start {
			out = append(out, chunk{data[start:at], startLine})
			start, startLine = at, line
		}
		at = end
	}
	return append(out, chunk{data[start:], startLine})
}

func marker(line []byte) bool {
	return bytes.HasPrefix(line, []byte("---")) && (len(line) == 3 || strings.IndexByte(" \t\r\n", line[3]) >= 0)
}

// blank tells whether a chunk has nothing but comments, directives and markers.
func blank(text []byte) bool {
	for line := range bytes.Lines(text) {
		line = bytes.TrimSpace(line)
		if len(line) > 0 && line[0] != '#' && line[0] != '%' && !bytes.Equal(line, []byte("---")) && !bytes.Equal(line, []byte("...")) {
			return false
		}
	}
	return true
}

func (c chunk) parse(file string) []Document {
	if blank(c.text) {
		return nil
	}
	var docs []Document
	dec := yaml.NewDecoder(bytes.NewReader(c.text))
	for {
		var doc yaml.Node
		err := dec.Decode(&doc)
		if errors.Is(err, io.EOF) {
			return docs
		}
		if err != nil {
			line, says := c.syntax(err)
			return append(docs, c.refused(file, line, CodeYAMLSyntax, says))
		}
		if len(doc.Content) == 0 || doc.Content[0].Kind == yaml.ScalarNode && doc.Content[0].Tag == tagNull {
			continue
		}
		root, err := resolve(doc.Content[0], c.line)
		if err != nil {
			docs = append(docs, c.refused(file, doc.Content[0].Line, resolveCode(err), err.Error()))
			continue
		}
		docs = append(docs, Document{At: policy.Origin{File: file, Line: root.Line}, Root: root, Text: c.text})
	}
}

func (c chunk) refused(file string, line int, code, says string) Document {
	at := policy.Origin{File: file, Line: line}
	return Document{At: at, Text: c.text, Problem: policy.Problem{At: at, Code: code, Says: says}}
}

var syntaxLine = regexp.MustCompile(`^yaml: (?:line (\d+): )?`)

// syntax takes the line out of the parser's text, which counts from the chunk's start.
func (c chunk) syntax(err error) (int, string) {
	text := err.Error()
	m := syntaxLine.FindStringSubmatch(text)
	if m == nil {
		return c.line + 1, text
	}
	line := 1
	says := strings.TrimPrefix(text, m[0])
	if n, err := strconv.Atoi(m[1]); err == nil {
		line = n
		if fromParser.MatchString(says) {
			line++
		}
	}
	return c.line + line, says
}

// fromParser are the errors for which go-yaml counts lines from 0, where for all others it counts from 1.
var fromParser = regexp.MustCompile(`^did not find expected ('|<|key|node content)`)
