package policy

import (
	"cmp"
	"encoding/json"
	"fmt"
)

// Origin is where a user wrote something. Line counts from 1; 0 means the whole file.
type Origin struct {
	File string
	Line int
}

// String is "file:line", or the file alone when no line is known.
func (o Origin) String() string {
	if o.Line == 0 {
		return o.File
	}
	return fmt.Sprintf("%s:%d", o.File, o.Line)
}

// Severity tells what a Problem costs. The zero value is Error, so that a forgotten severity is never taken lightly.
type Severity uint8

// The severities, worst first.
const (
	Error   Severity = iota // the object (or the change to it) is not in force
	Warning                 // in force, but it does not do what its author would expect
	Info                    // in force; worth knowing
)

// String is the lower-case name that `credence validate -o json` prints.
func (s Severity) String() string {
	switch s {
	case Warning:
		return "warning"
	case Info:
		return "info"
	default:
		return "error"
	}
}

// Problem is what we tell a user about something that they wrote: where it is, a stable code, what is wrong, and what to try.
type Problem struct {
	At       Origin
	Object   string // "AuthorizationPolicy production/require-jwt", empty where no object could be read
	Field    string // "spec.rules[0].from[0].source", empty for the whole object
	Code     string // stable, UPPER_SNAKE, documented in docs/problems.md
	Says     string
	Try      string
	Severity Severity
}

// String is one line for a terminal or a log.
func (p Problem) String() string {
	s := fmt.Sprintf("%s: %s %s", p.At, p.Severity, p.Code)
	if p.Object != "" {
		s += ": " + p.Object
	}
	if p.Field != "" {
		s += ": " + p.Field
	}
	s += ": " + p.Says
	if p.Try != "" {
		s += " (try: " + p.Try + ")"
	}
	return s
}

// Compare orders problems by file, line, then code, so that output never shuffles.
func (p Problem) Compare(q Problem) int {
	return cmp.Or(
		cmp.Compare(p.At.File, q.At.File), cmp.Compare(p.At.Line, q.At.Line), cmp.Compare(p.Severity, q.Severity),
		cmp.Compare(p.Code, q.Code), cmp.Compare(p.Field, q.Field), cmp.Compare(p.Object, q.Object), cmp.Compare(p.Says, q.Says),
	)
}

// written is a Problem as `credence validate -o json` prints it; every key is always there.
type written struct {
	File     string `json:"file"`
	Line     int    `json:"line"`
	Object   string `json:"object"`
	Field    string `json:"field"`
	Code     string `json:"code"`
	Severity string `json:"severity"`
	Says     string `json:"says"`
	Try      string `json:"try"`
}

// MarshalJSON writes the form that `credence validate -o json` prints.
func (p Problem) MarshalJSON() ([]byte, error) {
	return json.Marshal(written{p.At.File, p.At.Line, p.Object, p.Field, p.Code, p.Severity.String(), p.Says, p.Try})
}

// UnmarshalJSON reads what MarshalJSON wrote. A severity that is not known counts as an error.
func (p *Problem) UnmarshalJSON(b []byte) error {
	var w written
	if err := json.Unmarshal(b, &w); err != nil {
		return err
	}
	*p = Problem{At: Origin{File: w.File, Line: w.Line}, Object: w.Object, Field: w.Field, Code: w.Code, Says: w.Says, Try: w.Try}
	for _, s := range []Severity{Warning, Info} {
		if w.Severity == s.String() {
			p.Severity = s
		}
	}
	return nil
}
