package strict

import (
	"strconv"
	"strings"
)

// path is where a reader stands in an object. It is joined to a string only when there is something to tell.
type path []step

type step struct {
	name  string
	index int // where name is empty
}

func (p *path) push(name string) { *p = append(*p, step{name: name}) }
func (p *path) pushIndex(i int)  { *p = append(*p, step{index: i}) }
func (p *path) pop()             { *p = (*p)[:len(*p)-1] }

// String is "spec.rules[0].from" and "spec.customTags[auth.principal]": a key that is no plain name stands in brackets.
func (p path) String() string {
	var b strings.Builder
	for _, s := range p {
		switch {
		case s.name == "":
			b.WriteString("[" + strconv.Itoa(s.index) + "]")
		case !plainName(s.name):
			b.WriteString("[" + s.name + "]")
		default:
			if b.Len() > 0 {
				b.WriteByte('.')
			}
			b.WriteString(s.name)
		}
	}
	return b.String()
}

func plainName(s string) bool {
	for i := range len(s) {
		c := s[i]
		letter := c == '_' || c == '-' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z'
		if !letter && (i == 0 || c < '0' || c > '9') {
			return false
		}
	}
	return s != ""
}
