package authz

// Never tells whether an expression is known to match nothing.
func Never(e Expr) bool {
	switch e := e.(type) {
	case nil:
		return true
	case Any:
		for _, x := range e.Of {
			if !Never(x) {
				return false
			}
		}
		return true
	case All:
		for _, x := range e.Of {
			if Never(x) {
				return true
			}
		}
		return false
	case Not:
		return Always(e.Of)
	default:
		return false
	}
}

// Always tells whether an expression is known to match everything.
func Always(e Expr) bool {
	switch e := e.(type) {
	case Any:
		for _, x := range e.Of {
			if Always(x) {
				return true
			}
		}
		return false
	case All:
		for _, x := range e.Of {
			if !Always(x) {
				return false
			}
		}
		return true
	case Not:
		return Never(e.Of)
	default:
		return false
	}
}

// atPort decides conditions on the destination port, and takes out what then decides nothing, so that proxies evaluate no more than needed.
func atPort(e Expr, port uint32) Expr {
	switch e := e.(type) {
	case DestPort:
		switch port {
		case 0:
			return e
		case e.Port:
			return All{}
		default:
			return Any{}
		}
	case Not:
		return Not{Of: atPort(e.Of, port)}
	case All:
		return simpleAll(e.Of, port)
	case Any:
		return simpleAny(e.Of, port)
	default:
		return e
	}
}

func simpleAll(of []Expr, port uint32) Expr {
	var out []Expr
	for _, x := range of {
		x = atPort(x, port)
		if Never(x) {
			return Any{}
		}
		if !Always(x) {
			out = append(out, x)
		}
	}
	if len(out) == 1 {
		return out[0]
	}
	return All{Of: out}
}

func simpleAny(of []Expr, port uint32) Expr {
	var out []Expr
	for _, x := range of {
		x = atPort(x, port)
		if Always(x) {
			return All{}
		}
		if !Never(x) {
			out = append(out, x)
		}
	}
	if len(out) == 1 {
		return out[0]
	}
	return Any{Of: out}
}
