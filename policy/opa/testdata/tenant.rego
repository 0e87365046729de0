# Tenants reach what is theirs; what no rule names is denied.
package envoy.authz

import rego.v1

default allow := false

allow if {
	segments := split(input.attributes.request.http.path, "/")
	segments[1] == "api"
	segments[2] == "v1"
	segments[3] == "tenants"
	segments[4] == input.claims.tenant_id
}

allow if "admin" in input.roles

allow if {
	input.attributes.request.http.path == "/api/v1/catalogue"
	input.claims
}
