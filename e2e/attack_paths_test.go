package e2e

import "fmt"

// pathAttacks are request targets behind which something else may hide.
func pathAttacks() []vector {
	var out []vector
	add := func(threat, target, arrives string, status ...int) {
		out = append(out, vector{name: fmt.Sprintf("%q", target), threat: threat, raw: get(target), status: status, arrives: arrives})
	}
	for _, target := range []string{ // made canonical, and decided on as that
		"/public/../admin", "/public/./../admin", "/public/%2e%2e/admin", "/public/.%2e/admin", "/public/%2E./admin", "/./admin", "/public//../../admin",
		"/public/x/../../admin", `/public/..\admin`, `/public\..\admin`, "/public/%2e%2e%2e/../../../admin", "/public/..;/../../admin/",
		"/%61dmin", "/%61%64%6d%69%6e", "//admin", "///admin//x", "/public/%70rivate", "/public/./private", "/public//private", "/public/x/../private/y",
		"/public/private/", "/public/private//", "/public/private/.", "/public/%2e/private", "/public/private?x", "/public/private/?x=/public/",
		"/public/..//..//admin", "/public/../public/../admin", "/admin/../admin", "/public/../..",
	} {
		add("B19", target, "", 403, 400)
	}
	for _, target := range []string{ // refused, whatever lies behind
		"/public/..%2fadmin", "/public/..%2Fadmin", "/public%2f..%2fadmin", "/public/..%5cadmin", "/public/..%5Cadmin", "/public/%2e%2e%2fadmin", "/public/%2fadmin",
		"/public/%00", "/public/x%00/../../admin", "/public%00/private", "/public/%0a", "/public/%0d%0aX:y", "/public/%09", "/public/%1f", "/public/%7f", "/public/%7F",
		"/public/%c0%ae%c0%ae/admin", "/public/%C0%AE./admin", "/public/..%c0%afadmin", "/public/%e0%80%af", "/public/%f0%80%80%af", "/public/..%c1%9cadmin", "/public/%fe",
		"/public/%u002e%u002e/admin", "/public/%u2215", "/public/%", "/public/%2", "/public/%zz", "/public/%2g", "/public/%%32%65%%32%65/admin", "/%", "/public/%x",
	} {
		add("B19", target, "", 400)
	}
	for _, target := range []string{
		"/public/%252e%252e/admin", "/public/..%252fadmin", "/public/%2561dmin", "/public/%25252e%25252e/admin", "/public/%25", "/public/%255c..%255cadmin", "/public/100%25",
		"/%2561dmin", "/public/%25%32%65/admin", "/public/%2500", "/public/%25u002e",
	} {
		add("B20", target, "", 400)
	}
	for _, target := range []string{
		"/public;a=b/private", "/public/;/private", "/public/..;/admin", "/public/..;a=b/admin", "/public/%2e%2e;/admin", "/public/.;/private", "/public/private;x",
		"/public/%3b/private", "/public/..%3b/admin", "/public/..%3B/admin", "/;/admin", "/public/x;", "/;a=b/public/../admin", "/tenants;a=b/t2", "/tenants/t1;/../t2",
	} {
		add("B21", target, "", 400, 403)
	}
	for _, target := range []string{"/api/v2/x/tenants/t9", "/api/tenants/t9", "/tenants/t9", "/tenants", "/tenants/t1", "/x/tenants/t1/y", "/unknown", "/", "/admin", "/tenants/t11", "/internal/x"} {
		add("B22", target, "", 403)
	}
	for _, target := range []string{"/TENANTS/t1", "/Public/x", "/PUBLIC", "/HEALTH", "/Admin", "/pUBLIC/../ADMIN"} {
		add("B23", target, "", 403)
	}
	add("B24", "/public/x?q=1", "/public/x?q=1", 200)
	add("B24", "/public?q=/../admin", "/public?q=/../admin", 200)
	add("B24", "/public/x?q=%2f%00;", "/public/x?q=%2f%00;", 200, 400)
	add("B24", "/admin?/public/", "", 403)
	for _, target := range []string{"/healthXYZ", "/health/", "/health/x", "/health.json", "/publicly", "/public.bak", "/health%2e", "/health%20", "/health%23", "/health,"} {
		add("B25", target, "", 403)
	}
	add("B25", "/health", "/health", 200)
	for target, arrives := range map[string]string{"/segment/*/end": "/segment/*/end", "/segment/a*b/end": "/segment/a*b/end", "/segment/x/end": "/segment/x/end", "/segment/%2a/end": "/segment/%2a/end"} {
		add("B26", target, arrives, 200)
	}
	for _, target := range []string{"/segment//end", "/segment/a/b/end", "/segment/*/*/end", "/segment/**", "/segment/{*}/../x/y/end", "/segment/end", "/segment/x/end/"} {
		add("B26", target, "", 403, 400)
	}
	for _, target := range []string{"/public/x#/../../admin", "/public#", "/admin#/public/", "/public/#?x", "#/public/x"} {
		add("B27", target, "", 400)
	}
	add("B27", "/public/x%23/../../admin", "", 403)
	add("B27", "/public/x%3f/../../admin", "", 403)
	add("B27", "/admin%23/public/", "", 403)
	add("B27", "/public/x%23y", "/public/x%23y", 200)
	add("B27", "/admin?/../public/x", "", 403)
	add("B27", "?/public/x", "", 400, 403, 404)
	for _, target := range []string{"public/x", "*", `\public\x`, "/public/x HTTP/1.1 y", "/public/\x01x", "/public/\x7f", "/public/\x00x", "/public/\tx"} {
		add("B19", target, "", 400, 404, 403, 0)
	}
	add("B29", "/public/\xff/../../admin", "", 400, 403)
	add("B29", "/public/\xff%25", "", 400)
	add("B29", "/public/\xc0\xaf..\xc0\xafadmin", "", 400)
	add("B29", "/\xff;admin", "", 400, 403)
	return out
}
