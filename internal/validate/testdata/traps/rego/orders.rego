package orders

default allow := false

allow if {
	[_, claims, _] := io.jwt.decode(input.token)
	claims.role == "staff"
}
