package explain

import "strings"

// params are query parameters, decoded as Envoy decodes them: percent escapes, and nothing else (a plus stays a plus).
type params []Header

func paramsOf(path string) params {
	out := rawParamsOf(path)
	for i := range out {
		out[i] = Header{unescape(out[i].Name), unescape(out[i].Value)}
	}
	return out
}

// rawParamsOf are query parameters as they were sent: so does Envoy match them.
func rawParamsOf(path string) params {
	_, query, ok := strings.Cut(path, "?")
	if !ok {
		return nil
	}
	query, _, _ = strings.Cut(query, "#")
	if query == "" {
		return nil
	}
	query = strings.TrimSuffix(query, "&")
	var out params
	for pair := range strings.SplitSeq(query, "&") {
		name, value, _ := strings.Cut(pair, "=")
		out = append(out, Header{name, value})
	}
	return out
}

func (p params) first(name string) (string, bool) {
	for _, x := range p {
		if x.Name == name {
			return x.Value, true
		}
	}
	return "", false
}

func unescape(s string) string {
	if !strings.Contains(s, "%") {
		return s
	}
	var out strings.Builder
	for i := 0; i < len(s); i++ {
		if c, ok := unhex(s[i:]); ok && s[i] == '%' {
			out.WriteByte(c)
			i += 2
			continue
		}
		out.WriteByte(s[i])
	}
	return out.String()
}

// cookie is a cookie's value. Quotes around it are taken off.
func cookie(h *headers, name string) (string, bool) {
	for _, line := range h.all("cookie") {
		for pair := range strings.SplitSeq(line, ";") {
			k, v, ok := strings.Cut(strings.TrimSpace(pair), "=")
			if ok && k == name {
				if len(v) > 1 && v[0] == '"' && v[len(v)-1] == '"' {
					v = v[1 : len(v)-1]
				}
				return v, true
			}
		}
	}
	return "", false
}
