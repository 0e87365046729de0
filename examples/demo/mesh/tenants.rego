# A tenant reads only what is its own. input.claims is what Envoy verified; input.path is the canonical path: one spelling, however it was asked for.
package envoy.authz

import rego.v1

default allow := false

segments := split(trim_prefix(input.path, "/"), "/")

scoped if "tenants" in segments

tenant_of_path := segments[i + 1] if {
	some i
	segments[i] == "tenants"
	count([j | segments[j] == "tenants"]) == 1
}

allow if {
	input.claims.sub
	not scoped
}

allow if {
	scoped
	input.claims.tenant_id == tenant_of_path
}

allow if "platform_admin" in input.claims.roles
