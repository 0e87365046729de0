package explain

// answer is yes, no, or not known. The zero value is not known: what is forgotten never decides.
type answer uint8

const (
	maybe answer = iota
	no
	yes
)

func answerOf(b bool) answer {
	if b {
		return yes
	}
	return no
}

func (a answer) not() answer {
	switch a {
	case yes:
		return no
	case no:
		return yes
	default:
		return maybe
	}
}

// every is yes where all are, and no where one is.
func every[T any](of []T, ask func(T) answer) answer {
	out := yes
	for _, x := range of {
		switch ask(x) {
		case no:
			return no
		case maybe:
			out = maybe
		case yes:
		}
	}
	return out
}

// some is yes where one is, and no where all are.
func some[T any](of []T, ask func(T) answer) answer {
	out := no
	for _, x := range of {
		switch ask(x) {
		case yes:
			return yes
		case maybe:
			out = maybe
		case no:
		}
	}
	return out
}
