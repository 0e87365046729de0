package opa

import (
	"errors"
	"strings"
	"testing"
)

func TestCanonical(t *testing.T) {
	t.Parallel()
	for in, want := range map[string]string{
		"/": "/", "/a/b": "/a/b", "/a//b///": "/a/b/", "/%61": "/a", "/%C3%A9": "/é", "/a%20b": "/a b", "/a%3Fb": "/a?b", "/...": "/...", "/.a": "/.a", "/a:b@c": "/a:b@c",
	} {
		if got, _, err := canonical(in + "?q=//..;%2f"); got != want || err != nil {
			t.Errorf("%s: %q %v, want %q", in, got, err, want)
		}
	}
	for in, want := range map[string]error{
		"": errPathForm, "*": errPathForm, "http://x/": errPathForm, "/%2F": errPathSlash, `/\`: errPathSlash, "/%5c": errPathSlash, "/%25": errPathEscape, "/%": errPathEscape, "/%4": errPathEscape,
		"/%zz": errPathEscape, "/%c0%af": errPathEscape, "/\xff": errPathEscape, "/%00": errPathControl, "/\x7f": errPathControl, "/a;b": errPathParam, "/%3b": errPathParam, "/..": errPathDots,
		"/%2e/": errPathDots, "/a/.%2E": errPathDots, "/a#b": errPathHash,
	} {
		if got, _, err := canonical(in); !errors.Is(err, want) || got != "" {
			t.Errorf("%q: %q %v, want %v", in, got, err, want)
		}
	}
}

// FuzzCanonical holds that a canonical path is its own canonical form, apart from what decoding has made plain.
func FuzzCanonical(f *testing.F) {
	for _, s := range []string{"/api/v1/tenants/A", "//a/%2e%2e/b", "/%74enants/B?x=1", "/a%2fb", "/a;b=c/..", "/%c0%af"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, target string) {
		path, _, err := canonical(target)
		if err != nil {
			return
		}
		switch {
		case !strings.HasPrefix(path, "/"), strings.Contains(path, "//"), strings.ContainsAny(path, "\\;%\x00\r\n"), strings.Contains(path+"/", "/../"), strings.Contains(path+"/", "/./"):
			t.Fatalf("%q gives %q", target, path)
		}
		if again, _, err := canonical(strings.NewReplacer("?", "%3f", "#", "%23").Replace(path)); err != nil || again != path {
			t.Fatalf("%q gives %q, which gives %q, %v", target, path, again, err)
		}
	})
}

// FuzzToken holds that no text that OPA would decode as a token passes unverified.
func FuzzToken(f *testing.F) {
	f.Add("Bearer ", "eyJhbGciOiJub25lIn0.eyJyb2xlcyI6WyJhZG1pbiJdfQ.", " x")
	f.Add("a=", "e30.e30.", ",")
	f.Fuzz(func(t *testing.T, before, token, after string) {
		parts := strings.Split(token, ".")
		if len(parts) != 3 || len(before) > 4 || strings.ContainsAny(before+token+after, "\r\n") {
			return
		}
		header, ok := decodeSegment(parts[0])
		if !ok || !strings.HasPrefix(string(header), `{"alg":`) || !strings.HasSuffix(string(header), `"}`) || strings.Count(string(header), `"`) != 4 || strings.ContainsAny(string(header), "\\\x00") {
			return
		}
		if _, ok := decodeSegment(parts[1]); !ok {
			return
		}
		if _, ok := decodeSegment(parts[2]); !ok {
			return
		}
		for _, r := range string(header) {
			if r < 0x20 || r > 0x7e {
				return
			}
		}
		if (&request{}).noForeignToken(before + token + after) {
			t.Fatalf("%q passes", before+token+after)
		}
	})
}
