package verified

default allow := false

allow if {
	[valid, _, claims] := io.jwt.decode_verify(input.token, {"cert": data.keys, "iss": "https://id.shop.test/"})
	valid
	claims.role == "staff"
}
