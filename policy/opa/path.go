package opa

import (
	"errors"
	"strings"
	"unicode/utf8"
)

// errPath says why a path is refused before any policy sees it: two servers could read it differently.
var (
	errPathForm    = errors.New("the path does not begin with a slash")
	errPathEscape  = errors.New("the path has an invalid or a doubled percent-encoding")
	errPathSlash   = errors.New("the path has an encoded slash or a backslash")
	errPathControl = errors.New("the path has a control character")
	errPathParam   = errors.New("the path has a semicolon")
	errPathDots    = errors.New("the path has a dot segment")
	errPathHash    = errors.New("the path has a fragment")
)

// canonical splits a request target into the one path that policies see, and the query. Percent-encodings are decoded and repeated slashes
// merged. A path that servers read in more than one way is an error: encoded or reversed slashes, percent-encoded percent signs, control
// characters, path parameters (;), a fragment. So are dot segments: Envoy has resolved those that it recognises before it asks, and one that is
// left, or appears by decoding, was hidden from it.
func canonical(target string) (path, query string, err error) {
	raw, query, _ := strings.Cut(target, "?")
	if !strings.HasPrefix(raw, "/") {
		return "", "", errPathForm
	}
	b := make([]byte, 0, len(raw))
	for i := 0; i < len(raw); i++ {
		c, escaped := raw[i], false
		if c == '%' {
			if i+2 >= len(raw) {
				return "", "", errPathEscape
			}
			high, low := unhex(raw[i+1]), unhex(raw[i+2])
			if high > 15 || low > 15 {
				return "", "", errPathEscape
			}
			c, escaped, i = high<<4|low, true, i+2
		}
		if err := refuse(c, escaped); err != nil {
			return "", "", err
		}
		if c == '/' && len(b) > 0 && b[len(b)-1] == '/' {
			continue
		}
		b = append(b, c)
	}
	path = string(b)
	if !utf8.ValidString(path) {
		return "", "", errPathEscape // for example the overlong %c0%af, a slash to some
	}
	for segment := range strings.SplitSeq(path[1:], "/") {
		if segment == "." || segment == ".." {
			return "", "", errPathDots
		}
	}
	return path, query, nil
}

func refuse(c byte, escaped bool) error {
	switch {
	case c < 0x20 || c == 0x7f:
		return errPathControl
	case c == '\\', c == '/' && escaped:
		return errPathSlash
	case c == '%':
		return errPathEscape
	case c == ';':
		return errPathParam
	case c == '#' && !escaped:
		return errPathHash
	default:
		return nil
	}
}

func unhex(c byte) byte {
	switch {
	case '0' <= c && c <= '9':
		return c - '0'
	case 'a' <= c && c <= 'f':
		return c - 'a' + 10
	case 'A' <= c && c <= 'F':
		return c - 'A' + 10
	default:
		return 255
	}
}
