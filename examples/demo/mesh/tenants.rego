# A tenant reads only what is its own. input.claims is what Envoy verified; input.path is the canonical path: one spelling, however it was asked
# for. Whatever names tenants in any other way than /api/<version>/tenants/<tenant>/… is refused: a back end might read it more kindly than we do.
package envoy.authz

import rego.v1

default allow := false

segments := split(trim_prefix(input.path, "/"), "/")

names_tenants if {
	some s in segments
	contains(lower(s), "tenants")
}

own if {
	segments[0] == "api"
	segments[2] == "tenants"
	segments[3] == input.claims.tenant_id
	count([s | some s in segments; contains(lower(s), "tenants")]) == 1
}

allow if {
	input.claims.sub
	not names_tenants
}

allow if own

allow if {
	names_tenants
	"platform_admin" in input.claims.roles
}
