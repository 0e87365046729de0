package strict

import (
	"math"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"
)

// The short tags of YAML's core schema.
const (
	tagNull  = "!!null"
	tagBool  = "!!bool"
	tagInt   = "!!int"
	tagFloat = "!!float"
)

// What a field can want, as it is told to users.
const (
	wantString  = "a string"
	wantBool    = "true or false"
	wantInteger = "an integer"
	wantNumber  = "a number"
	wantMapping = "a mapping"
	wantList    = "a list"
)

func tagOf(n *yaml.Node) string {
	if n.Kind != yaml.ScalarNode {
		return ""
	}
	return n.ShortTag()
}

// Null tells whether a node is null or empty, which is the same as not being there.
func Null(n *yaml.Node) bool { return n.Kind == yaml.ScalarNode && tagOf(n) == tagNull }

func describe(n *yaml.Node) string {
	switch n.Kind {
	case yaml.MappingNode:
		return wantMapping
	case yaml.SequenceNode:
		return wantList
	}
	switch tagOf(n) {
	case tagNull:
		return "nothing"
	case tagBool:
		return "a boolean"
	case tagInt, tagFloat:
		return wantNumber
	default:
		return wantString
	}
}

// Text is a scalar that is a string: quoted, or plain and no number, boolean or null. The words that YAML 1.1 took for booleans (y, n, on,
// off, yes, no) and dates are strings, as they were written.
func Text(n *yaml.Node) (string, bool) {
	if n.Kind != yaml.ScalarNode {
		return "", false
	}
	switch tagOf(n) {
	case tagNull, tagBool, tagInt, tagFloat:
		return "", false
	}
	return n.Value, true
}

func plain(n *yaml.Node) bool {
	return n.Kind == yaml.ScalarNode && n.Style&(yaml.DoubleQuotedStyle|yaml.SingleQuotedStyle|yaml.LiteralStyle|yaml.FoldedStyle) == 0
}

func boolean(n *yaml.Node) (value, ok bool) {
	if !plain(n) {
		return false, false
	}
	switch strings.ToLower(n.Value) {
	case "true", "yes", "on", "y":
		return true, true
	case "false", "no", "off", "n":
		return false, true
	}
	return false, false
}

func number(n *yaml.Node) (string, bool) {
	if t := tagOf(n); t != tagInt && t != tagFloat {
		return "", false
	}
	return strings.ReplaceAll(n.Value, "_", ""), true
}

func signed(text string, bits int) (int64, bool) {
	if i, err := strconv.ParseInt(text, 0, bits); err == nil {
		return i, true
	}
	f, err := strconv.ParseFloat(text, 64)
	if err != nil || f != math.Trunc(f) || math.Abs(f) > 1<<53 {
		return 0, false
	}
	i := int64(f)
	return i, bits == 64 || i >= -1<<(bits-1) && i < 1<<(bits-1)
}

func unsigned(text string, bits int) (uint64, bool) {
	if u, err := strconv.ParseUint(text, 0, bits); err == nil {
		return u, true
	}
	i, ok := signed(text, 64)
	if !ok || i < 0 {
		return 0, false
	}
	return uint64(i), bits == 64 || i < 1<<bits
}

func floating(text string) (float64, bool) {
	switch strings.ToLower(strings.TrimLeft(text, "+-")) {
	case ".inf", ".nan", "inf", "nan", "infinity":
		return 0, false
	}
	if f, err := strconv.ParseFloat(text, 64); err == nil {
		return f, true
	}
	i, ok := signed(text, 64)
	return float64(i), ok
}
