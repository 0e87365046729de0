package explain

import (
	"regexp"
	"strings"
	"sync"
)

// memory keeps what is costly to make: decoded messages, compiled expressions and rules.
type memory struct {
	messages    sync.Map // *anypb.Any → proto.Message
	expressions sync.Map // string → *regexp.Regexp, or nil where Go cannot read it
	rules       sync.Map // *rbacv3.RBAC → []*rule
	keys        sync.Map // JWKS document → []key
}

func newMemory() *memory { return &memory{} }

// expression compiles what Envoy gives to RE2, to be matched in full. RE2's \C is any byte: Go reads every byte that is no UTF-8 as one
// character, so that a dot which also takes newlines is the same.
func (m *memory) expression(s string) (*regexp.Regexp, bool) {
	if e, ok := m.expressions.Load(s); ok {
		re := e.(*regexp.Regexp)
		return re, re != nil
	}
	re, err := regexp.Compile(`^(?:` + anyByte(s) + `)$`)
	if err != nil {
		re = nil
	}
	m.expressions.Store(s, re)
	return re, err == nil
}

func anyByte(s string) string {
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		switch {
		case s[i] == '\\' && i+1 < len(s) && s[i+1] == 'C':
			out.WriteString(`(?s:.)`)
			i++
		case s[i] == '\\' && i+1 < len(s):
			out.WriteString(s[i : i+2])
			i++
		default:
			out.WriteByte(s[i])
		}
	}
	return out.String()
}
