package kinds

import (
	"math/bits"
	"regexp/syntax"
	"unicode/utf8"
)

// maxProgram is how many instructions Envoy lets a regular expression have (re2.max_program_size.error_level, where no runtime layer raises
// it). An expression with more is refused by the proxy, together with all routes of its listener.
const maxProgram = 100

// regexp checks an expression as Envoy does: the syntax is RE2's, and the program is not too large.
func (o *object) regexp(field, expr string) {
	parsed, err := syntax.Parse(expr, syntax.Perl)
	if err != nil {
		o.refuse(field, CodeBadRegex, "the syntax of RE2: no look-around, no back references", "%q is no regular expression", expr)
		return
	}
	if n := programSize(parsed); n > maxProgram {
		o.refuse(field, CodeBadRegex, "a shorter expression, mostly by * or + in place of a counted repetition; or a PathPrefix",
			"%q compiles to about %d instructions, and Envoy takes %d", expr, n, maxProgram)
	}
}

// programSize is how many instructions RE2 makes of an expression, or a few more. Envoy has RE2 read bytes and not characters, so that a class
// costs one instruction for each range among 256 values, and the two cases of a letter are one range.
func programSize(expr *syntax.Regexp) int {
	simple := expr.Simplify()
	prog, err := syntax.Compile(simple)
	if err != nil {
		return maxProgram + 1
	}
	n := 2 // an expression that is not anchored starts with a loop
	for _, i := range prog.Inst {
		switch i.Op {
		case syntax.InstRune, syntax.InstRune1:
			n += rangesOf(i.Rune)
		case syntax.InstRuneAnyNotNL:
			n += 2
		default:
			n++
		}
	}
	return n - branches(simple)
}

// branches counts the alternatives that RE2 joins without an instruction.
func branches(r *syntax.Regexp) int {
	n := 0
	if r.Op == syntax.OpAlternate {
		n = len(r.Sub) - 1
	}
	for _, s := range r.Sub {
		n += branches(s)
	}
	return n
}

// rangesOf is what a class of characters costs, given as pairs of bounds, or one character.
func rangesOf(class []rune) int {
	if len(class) == 1 {
		return utf8.RuneLen(class[0])
	}
	n := 0
	var upper, lower uint32 // the letters of each case
	for i := 0; i+1 < len(class); i += 2 {
		from, to := class[i], class[i+1]
		n += bits.Len32(uint32(from)) / 8 // a bound outside of ASCII is several bytes in the pattern
		switch {
		case from >= 'A' && to <= 'Z':
			upper |= letters(from-'A', to-'A')
		case from >= 'a' && to <= 'z':
			lower |= letters(from-'a', to-'a')
		}
		n++
	}
	if upper != 0 && upper == lower {
		n--
	}
	return n
}

func letters(from, to rune) uint32 { return (1<<(to-from+1) - 1) << from }
