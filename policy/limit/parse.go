package limit

import (
	"errors"
	"fmt"
	"io"
	"regexp"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/strict"
)

// Bounds of one configuration, against documents made to exhaust us.
const (
	maxNodes = 200_000
	maxDepth = 64
)

var (
	rootKeys       = []string{"domain", "descriptors"}
	descriptorKeys = []string{"key", "value", "rate_limit", "descriptors", "shadow_mode", "quota_mode", "detailed_metric", "value_to_metric", "share_threshold"}
	rateKeys       = []string{"unit", "requests_per_unit", "unlimited", "name", "replaces"}
	replacesKeys   = []string{"name"}
)

// parser turns the text of one configuration into a Config and collects what is wrong with it.
type parser struct {
	config   Config
	place    func(line int) policy.Origin
	object   string
	problems []policy.Problem
	nodes    int
}

// parse reads one configuration. place turns a line of text into a place in a file, given the line of the first key.
func parse(text, source, object string, place func(first, line int) policy.Origin) (Config, []policy.Problem) {
	first := 1
	p := &parser{object: object, config: Config{Source: source}}
	p.place = func(line int) policy.Origin { return place(first, line) }
	root, err := document(text)
	if err != nil {
		p.fail(lineOf(err), "", "RATELIMIT_SYNTAX", err.Error(), "check the indentation and the quotes")
	}
	if root != nil {
		first = root.Line
		p.config.At = p.place(first)
		p.root(root)
	}
	for _, problem := range p.problems {
		if problem.Severity == policy.Error {
			p.config.Void = true
		}
	}
	if p.config.Void {
		p.config.Descriptors = nil
	}
	return p.config, p.problems
}

// document decodes exactly one YAML document.
func document(text string) (*yaml.Node, error) {
	d := yaml.NewDecoder(strings.NewReader(text))
	var n, more yaml.Node
	if err := d.Decode(&n); errors.Is(err, io.EOF) {
		return nil, errors.New("the configuration is empty")
	} else if err != nil {
		return nil, err
	}
	if err := d.Decode(&more); !errors.Is(err, io.EOF) {
		return n.Content[0], errors.New("a configuration is one YAML document, and here are more")
	}
	return n.Content[0], nil
}

var yamlLine = regexp.MustCompile(`line (\d+)`)

// lineOf is the line that the YAML library names; it gives it in no other form than its text.
func lineOf(err error) int {
	if m := yamlLine.FindStringSubmatch(err.Error()); m != nil {
		if n, err := strconv.Atoi(m[1]); err == nil {
			return n
		}
	}
	return 1
}

func (p *parser) add(severity policy.Severity, line int, field, code, says, try string) {
	p.problems = append(p.problems, policy.Problem{
		At: p.place(line), Object: p.object, Field: field, Code: code, Says: says, Try: try, Severity: severity,
	})
}

func (p *parser) fail(line int, field, code, says, try string) {
	p.add(policy.Error, line, field, code, says, try)
}

// mapping visits the entries of a mapping whose keys are among known; what is unknown or said twice is a problem.
func (p *parser) mapping(n *yaml.Node, field string, depth int, known []string, visit func(key string, value *yaml.Node)) {
	n = resolve(n)
	if p.nodes++; p.nodes > maxNodes || depth > maxDepth {
		if p.nodes <= maxNodes+1 {
			p.fail(n.Line, field, "RATELIMIT_TOO_LARGE", "the configuration is nested too deep or too large", fmt.Sprintf("keep it below %d levels", maxDepth))
		}
		return
	}
	if n.Kind != yaml.MappingNode {
		p.fail(n.Line, field, "RATELIMIT_TYPE", "a mapping is expected here", "write `name: value` pairs")
		return
	}
	seen := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		at := join(field, k.Value)
		switch {
		case seen[k.Value]:
			p.fail(k.Line, at, "RATELIMIT_DUPLICATE_KEY", fmt.Sprintf("%q is said twice", k.Value), "keep one of the two")
		case contains(known, k.Value):
			visit(k.Value, v)
		default:
			p.fail(k.Line, at, "RATELIMIT_UNKNOWN_KEY", fmt.Sprintf("%q is no key of envoyproxy/ratelimit at this level", k.Value), suggestion(k.Value, known))
		}
		seen[k.Value] = true
	}
}

func suggestion(word string, known []string) string {
	if n, ok := strict.Nearest(word, known); ok {
		return n
	}
	return "one of " + strings.Join(known, ", ")
}

func (p *parser) sequence(n *yaml.Node, field string, visit func(i int, item *yaml.Node)) {
	n = resolve(n)
	if n.Kind == yaml.ScalarNode && n.Tag == "!!null" {
		return
	}
	if n.Kind != yaml.SequenceNode {
		p.fail(n.Line, field, "RATELIMIT_TYPE", "a list is expected here", "begin each item with `- `")
		return
	}
	for i, item := range n.Content {
		visit(i, item)
	}
}

func (p *parser) text(n *yaml.Node, field string) string {
	n = resolve(n)
	switch {
	case n.Kind != yaml.ScalarNode:
		p.fail(n.Line, field, "RATELIMIT_TYPE", "a string is expected here", "write one value")
		return ""
	case n.Tag == "!!null":
		return ""
	default:
		return n.Value // as written: `01` and `yes` are strings here, as upstream reads them
	}
}

func (p *parser) flag(n *yaml.Node, field string) bool {
	var b bool
	if n = resolve(n); n.Kind != yaml.ScalarNode || n.Decode(&b) != nil {
		p.fail(n.Line, field, "RATELIMIT_TYPE", "true or false is expected here", "true")
	}
	return b
}

func resolve(n *yaml.Node) *yaml.Node {
	for range maxDepth {
		if n.Kind != yaml.AliasNode || n.Alias == nil {
			break
		}
		n = n.Alias
	}
	return n
}

func join(field, key string) string {
	if field == "" {
		return key
	}
	return field + "." + key
}

func contains(list []string, s string) bool {
	for _, l := range list {
		if l == s {
			return true
		}
	}
	return false
}
