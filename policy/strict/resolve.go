package strict

import (
	"errors"
	"slices"

	"go.yaml.in/yaml/v3"
)

var (
	errTooDeep  = errors.New("nested more than 100 deep")
	errTooLarge = errors.New("more than 1048576 nodes once its aliases are expanded")
	errCycle    = errors.New("an anchor contains an alias of itself")
	errMerge    = errors.New("a merge key << wants a mapping or a list of mappings")
)

func resolveCode(err error) string {
	switch {
	case errors.Is(err, errTooDeep), errors.Is(err, errCycle):
		return CodeYAMLTooDeep
	case errors.Is(err, errTooLarge):
		return CodeYAMLTooLarge
	default:
		return CodeYAMLSyntax
	}
}

// resolver replaces aliases by what they stand for and counts lines from the start of the file.
type resolver struct {
	lines int
	sizes map[*yaml.Node]int // of the subtree, of anchored nodes that are done; -1 while under way
}

// resolve makes a document a tree of mappings, sequences and scalars. Nodes of an anchor are shared, so its cost is what was written,
// while the bounds hold for what the document expands to.
func resolve(root *yaml.Node, lines int) (*yaml.Node, error) {
	r := resolver{lines: lines, sizes: map[*yaml.Node]int{}}
	root, _, _, err := r.node(root, 0)
	return root, err
}

// node returns the node, its size, and its height.
func (r *resolver) node(n *yaml.Node, depth int) (_ *yaml.Node, size, height int, _ error) {
	if n.Kind == yaml.AliasNode {
		return r.alias(n, depth)
	}
	if depth > MaxDepth {
		return nil, 0, 0, errTooDeep
	}
	if n.Anchor != "" {
		r.sizes[n] = -1
	}
	n.Line += r.lines
	n.HeadComment, n.LineComment, n.FootComment = "", "", ""
	size = 1
	for i, c := range n.Content {
		child, s, h, err := r.node(c, depth+1)
		if err != nil {
			return nil, 0, 0, err
		}
		n.Content[i], size, height = child, size+s, max(height, h+1)
		if size > MaxNodes {
			return nil, 0, 0, errTooLarge
		}
	}
	if err := merge(n); err != nil {
		return nil, 0, 0, err
	}
	if n.Anchor != "" {
		r.sizes[n] = size<<8 | height
	}
	return n, size, height, nil
}

func (r *resolver) alias(n *yaml.Node, depth int) (*yaml.Node, int, int, error) {
	known := r.sizes[n.Alias]
	if known <= 0 {
		return nil, 0, 0, errCycle
	}
	size, height := known>>8, known&0xff
	if depth+height > MaxDepth {
		return nil, 0, 0, errTooDeep
	}
	return n.Alias, size, height, nil
}

// merge puts the fields that "<<" names into their mapping, where the mapping does not say otherwise itself.
func merge(n *yaml.Node) error {
	if n.Kind != yaml.MappingNode {
		return nil
	}
	for i := 0; i+1 < len(n.Content); i += 2 {
		if k := n.Content[i]; k.Kind != yaml.ScalarNode || k.Value != "<<" || k.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle) != 0 {
			continue
		}
		from := []*yaml.Node{n.Content[i+1]}
		if from[0].Kind == yaml.SequenceNode {
			from = from[0].Content
		}
		n.Content = slices.Delete(n.Content, i, i+2)
		for _, m := range from {
			if m.Kind != yaml.MappingNode {
				return errMerge
			}
			mergeFrom(n, m)
		}
		i -= 2
		if len(n.Content) > MaxNodes {
			return errTooLarge
		}
	}
	return nil
}

func mergeFrom(n, m *yaml.Node) {
	have := map[string]bool{}
	for i := 0; i+1 < len(n.Content); i += 2 {
		have[n.Content[i].Value] = true
	}
	for i := 0; i+1 < len(m.Content); i += 2 {
		if !have[m.Content[i].Value] {
			n.Content = append(n.Content, m.Content[i], m.Content[i+1])
		}
	}
}
