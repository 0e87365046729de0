package explain

import (
	"encoding/base64"
	"encoding/json"
	"maps"
	"slices"
	"strings"
	"time"

	jwtauthnv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/http/jwt_authn/v3"
	hcmv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/filters/network/http_connection_manager/v3"
)

// place puts the token, or one made of the claims, where its issuer's provider looks for it.
func (r *run) place(m *hcmv3.HttpConnectionManager) {
	token := r.req.Token
	if token == "" && r.req.Claims != nil {
		token = made(r.req.Claims, r.req.Now)
		r.assumed = token
	}
	if token == "" {
		return
	}
	p := r.providerOf(m, token)
	switch {
	case len(p.GetFromHeaders()) > 0:
		l := p.GetFromHeaders()[0]
		if _, has := r.headers.get(l.GetName()); !has {
			r.headers.add(l.GetName(), l.GetValuePrefix()+token)
		}
	case len(p.GetFromParams()) > 0:
		sep := "?"
		if strings.Contains(r.headers.path(), "?") {
			sep = "&"
		}
		r.headers.set(":path", r.headers.path()+sep+p.GetFromParams()[0]+"="+token)
	case len(p.GetFromCookies()) > 0:
		r.headers.add("cookie", p.GetFromCookies()[0]+"="+token)
	default:
		if _, has := r.headers.get("authorization"); !has {
			r.headers.add("authorization", "Bearer "+token)
		}
	}
}

// made is a token of claims. Nobody signed it: it is believed by this evaluation alone.
func made(claims map[string]any, now time.Time) string {
	full := maps.Clone(claims)
	if _, has := full["exp"]; !has {
		full["exp"] = now.Add(time.Hour).Unix()
	}
	payload, err := json.Marshal(full)
	if err != nil {
		payload = []byte("{}")
	}
	return encode([]byte(`{"alg":"ES256"}`)) + "." + encode(payload) + "." + encode([]byte("assumed"))
}

func encode(b []byte) string { return base64.RawURLEncoding.EncodeToString(b) }

// providerOf is the provider of a token's issuer; nil where no one accepts it.
func (r *run) providerOf(m *hcmv3.HttpConnectionManager, s string) *jwtauthnv3.JwtProvider {
	t, says := parse(s)
	if says != "" {
		return nil
	}
	for _, f := range m.GetHttpFilters() {
		config, _ := r.configuration(f)
		j, ok := config.(*jwtauthnv3.JwtAuthentication)
		if !ok {
			continue
		}
		for _, name := range slices.Sorted(maps.Keys(j.GetProviders())) {
			if p := j.GetProviders()[name]; p.GetIssuer() == t.issuer || p.GetIssuer() == "" {
				return p
			}
		}
	}
	return nil
}
