package explain

import (
	"slices"
	"strings"
)

// withoutQuery is a path as rules see it.
func withoutQuery(path string) string {
	if i := strings.IndexAny(path, "?#"); i >= 0 {
		return path[:i]
	}
	return path
}

// escapedSlash tells whether a path (not its query) has a slash or backslash in percent encoding.
func escapedSlash(path string) bool {
	path, _, _ = strings.Cut(path, "?")
	for _, s := range []string{"%2f", "%2F", "%5c", "%5C"} {
		if strings.Contains(path, s) {
			return true
		}
	}
	return false
}

// unescapeSlashes undoes the escapes of slashes and backslashes in a path, not in its query.
func unescapeSlashes(path string) string {
	path, query, has := strings.Cut(path, "?")
	path = strings.NewReplacer("%2f", "/", "%2F", "/", "%5c", `\`, "%5C", `\`).Replace(path)
	if has {
		path += "?" + query
	}
	return path
}

// normalize makes a path canonical as Envoy's normalize_path does: dots are resolved, backslashes are slashes, characters that need no
// escape are unescaped, and those that need one are escaped. False: the path is refused.
func normalize(path string) (string, bool) {
	path, query, has := strings.Cut(path, "?")
	w := writer{in: plainDots(path), broken: -1}
	if !strings.HasPrefix(path, "/") && !strings.HasPrefix(path, `\`) {
		w.out = append(w.out, '/')
	}
	for w.at < len(w.in) {
		if !w.dots() && !w.character() {
			return "", false
		}
	}
	s := string(w.out)
	if has {
		s += "?" + query
	}
	return s, true
}

// writer makes a path canonical from left to right.
type writer struct {
	in     string
	at     int
	out    []byte
	broken int // the last percent sign in out that begins no escape; -1: none
}

// dots takes a dot, and a whole segment where that is one or two dots. False: what comes is no dot.
func (w *writer) dots() bool {
	n := dot(w.in[w.at:])
	if n == 0 {
		return false
	}
	w.at += n
	if len(w.out) > 0 && w.out[len(w.out)-1] == '/' {
		kind, used := afterDot(w.in[w.at:])
		if kind == parentDirectory {
			w.out = backUp(w.out)
		}
		if kind != noDirectory {
			w.at += used
			return true
		}
	}
	w.out = append(w.out, '.')
	return true
}

// character takes one character or escape. False: no path may have it.
func (w *writer) character() bool {
	const hex = "0123456789ABCDEF"
	c := w.in[w.at]
	switch {
	case c == '%':
		return w.escape()
	case c == '\\':
		w.out = append(w.out, '/')
	case c == 0:
		return false
	case needsEscape(c):
		w.out = append(w.out, '%', hex[c>>4], hex[c&15])
	default:
		w.out = append(w.out, c)
	}
	w.at++
	return true
}

func (w *writer) escape() bool {
	v, ok := unhex(w.in[w.at:])
	switch {
	case !ok:
		w.broken = len(w.out)
		w.out = append(w.out, '%')
		w.at++
		return true
	case v == 0:
		return false
	case unreserved(v):
		w.out = append(w.out, v)
		if escapes(w.out, w.broken, w.in[w.at+3:]) {
			w.out = slices.Insert(w.out, w.broken+1, '2', '5')
		}
	default:
		w.out = append(w.out, w.in[w.at:w.at+3]...)
	}
	w.at += 3
	return true
}

// plainDots takes the parameters off segments that are one or two dots: "..;x" is "..". Only plain dots count here, and only slashes part.
func plainDots(path string) string {
	if !strings.Contains(path, ".;") {
		return path
	}
	segments := strings.Split(path, "/")
	for i, s := range segments {
		if name, _, ok := strings.Cut(s, ";"); ok && (name == "." || name == "..") {
			segments[i] = name
		}
	}
	return strings.Join(segments, "/")
}

// dot is the length of a dot, plain or escaped, at the start of s.
func dot(s string) int {
	switch {
	case strings.HasPrefix(s, "."):
		return 1
	case strings.HasPrefix(s, "%2e"), strings.HasPrefix(s, "%2E"):
		return 3
	default:
		return 0
	}
}

type directory uint8

const (
	noDirectory directory = iota
	currentDirectory
	parentDirectory
)

// afterDot reads what follows a dot at the start of a segment, and how much of it belongs to the directory.
func afterDot(s string) (directory, int) {
	if s == "" {
		return currentDirectory, 0
	}
	if s[0] == '/' || s[0] == '\\' {
		return currentDirectory, 1
	}
	n := dot(s)
	switch {
	case n == 0:
		return noDirectory, 0
	case len(s) == n:
		return parentDirectory, n
	case s[n] == '/' || s[n] == '\\':
		return parentDirectory, n + 1
	default:
		return noDirectory, 0
	}
}

// backUp drops the last segment; what is left ends in a slash.
func backUp(out []byte) []byte {
	i := len(out) - 1
	if i > 0 {
		i--
	}
	for i > 0 && out[i] != '/' {
		i--
	}
	return out[:i+1]
}

// escapes tells whether the character that was just unescaped makes an escape out of a percent sign that was none.
func escapes(out []byte, broken int, rest string) bool {
	n := len(out)
	switch {
	case broken < 0 || !isHex(out[n-1]):
		return false
	case broken == n-3:
		return isHex(out[n-2])
	case broken == n-2:
		return rest != "" && isHex(rest[0])
	default:
		return false
	}
}

func unhex(s string) (byte, bool) {
	if len(s) < 3 || !isHex(s[1]) || !isHex(s[2]) {
		return 0, false
	}
	return hexValue(s[1])<<4 | hexValue(s[2]), true
}

func isHex(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'f' || 'A' <= c && c <= 'F'
}

func hexValue(c byte) byte {
	switch {
	case c <= '9':
		return c - '0'
	case c <= 'F':
		return c - 'A' + 10
	default:
		return c - 'a' + 10
	}
}

func unreserved(c byte) bool {
	return '0' <= c && c <= '9' || 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || c == '-' || c == '_' || c == '~'
}

func needsEscape(c byte) bool {
	return c <= ' ' || c >= 0x7f || strings.IndexByte("\"#<>?^`{|}", c) >= 0
}

// mergeSlashes makes runs of slashes one. Envoy leaves two of a path that has nothing else.
func mergeSlashes(path string) string {
	path, query, has := strings.Cut(path, "?")
	if strings.Contains(path, "//") && strings.Trim(path, "/") == "" {
		path = "//"
	} else {
		for strings.Contains(path, "//") {
			path = strings.ReplaceAll(path, "//", "/")
		}
	}
	if has {
		path += "?" + query
	}
	return path
}
