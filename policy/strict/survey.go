package strict

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"hash"
	"io"
	"slices"
	"strconv"

	"go.yaml.in/yaml/v3"

	"github.com/credence-mesh/credence/policy"
)

// Survey walks an object once: it reports keys that are written twice, and returns the lines of its fields and the digest of its content.
func (r *Reader) Survey(n *yaml.Node) (policy.Fields, uint64) {
	s := survey{reader: r, digest: sha256.New()}
	s.node(n, hashStart)
	slices.SortFunc(s.lines, func(a, b fieldLine) int { return cmp.Compare(a.hash, b.hash) })
	return lineIndex(slices.Clip(s.lines)), binary.BigEndian.Uint64(s.digest.Sum(nil))
}

type survey struct {
	reader *Reader
	digest hash.Hash
	lines  []fieldLine
	buf    [8]byte
}

func (s *survey) node(n *yaml.Node, h pathHash) {
	s.lines = append(s.lines, fieldLine{uint32(h), int32(n.Line)})
	s.write(strconv.Itoa(int(n.Kind)), tagOf(n))
	s.count(len(n.Content))
	switch n.Kind {
	case yaml.MappingNode:
		s.mapping(n, h)
	case yaml.SequenceNode:
		for i, c := range n.Content {
			s.reader.path.pushIndex(i)
			s.node(c, h.add(strconv.Itoa(i)))
			s.reader.path.pop()
		}
	default:
		s.write(n.Value)
	}
}

func (s *survey) mapping(n *yaml.Node, h pathHash) {
	seen := make(map[string]*yaml.Node, len(n.Content)/2)
	for i := 0; i+1 < len(n.Content); i += 2 {
		k, v := n.Content[i], n.Content[i+1]
		s.reader.path.push(k.Value)
		if first := seen[k.Value]; first != nil {
			s.reader.fail(k, CodeDuplicateKey, "keep one of the two", "key %q is written twice, first on line %d", k.Value, first.Line)
		}
		seen[k.Value] = k
		s.write(k.Value)
		at := len(s.lines)
		s.node(v, h.add(k.Value))
		s.lines[at].line = int32(k.Line)
		s.reader.path.pop()
	}
}

func (s *survey) count(n int) {
	binary.LittleEndian.PutUint64(s.buf[:], uint64(n))
	s.digest.Write(s.buf[:])
}

// write adds texts to the digest, each after its length so that no two lists of texts look alike.
func (s *survey) write(texts ...string) {
	for _, t := range texts {
		s.count(len(t))
		_, _ = io.WriteString(s.digest, t) // a hash never fails
	}
}

// lineIndex finds the lines of fields by a hash of their path: eight bytes a field, since there are thousands of objects and few questions.
type lineIndex []fieldLine

type fieldLine struct {
	hash uint32
	line int32
}

// Line is the line of the longest known prefix of path.
func (x lineIndex) Line(path string) int {
	for {
		h := uint32(hashStart.add(path))
		if path == "" {
			h = uint32(hashStart)
		}
		if i, ok := slices.BinarySearchFunc(x, h, func(f fieldLine, h uint32) int { return cmp.Compare(f.hash, h) }); ok {
			return int(x[i].line)
		}
		if path == "" {
			return 0
		}
		path = parent(path)
	}
}

func parent(path string) string {
	for i := len(path) - 1; i > 0; i-- {
		if path[i] == '.' || path[i] == '[' || path[i] == '/' {
			return path[:i]
		}
	}
	return ""
}

// pathHash is FNV-1a over the steps of a path. "a[0].b_c", "a.0.bC" and "a[0].bC" are one path: protobuf has two spellings of a name,
// and keys that contain dots may be written in brackets or not.
type pathHash uint32

const hashStart pathHash = 2166136261

func (h pathHash) add(step string) pathHash {
	h = (h ^ '.') * 16777619
	for i := range len(step) {
		c := step[i]
		switch {
		case c == '_' || c == ']':
			continue
		case c == '[':
			c = '.'
		case c >= 'A' && c <= 'Z':
			c += 'a' - 'A'
		}
		h = (h ^ pathHash(c)) * 16777619
	}
	return h
}
