package cases

import (
	"encoding/xml"
	"fmt"
	"io"
	"strings"
	"time"
)

// Report is the results of one suite.
type Report struct {
	File     string   `json:"file"`
	Results  []Result `json:"results"`
	Coverage Coverage `json:"coverage"`
}

// Failed counts the cases that did not pass.
func (r Report) Failed() int {
	n := 0
	for _, x := range r.Results {
		if !x.Passed {
			n++
		}
	}
	return n
}

// Text writes what a terminal shows.
func Text(out io.Writer, reports []Report) error {
	var b strings.Builder
	total, failed := 0, 0
	for _, r := range reports {
		for _, x := range r.Results {
			total++
			if x.Passed {
				continue
			}
			failed++
			fmt.Fprintf(&b, "FAIL  %s (%s)\n", x.Name, x.At)
			for _, w := range x.Wrong {
				fmt.Fprintf(&b, "      %s\n", w)
			}
			if n := x.Verdict.Nearest; n != nil {
				for _, f := range n.Failed {
					fmt.Fprintf(&b, "      nearest miss: %s rule %d: %s wants %s, got %s (%s)\n", n.Policy, n.Rule, f.Field, f.Want, f.Got, f.At)
				}
			}
		}
	}
	fmt.Fprintf(&b, "%d cases, %d failed\n", total, failed)
	for _, r := range reports {
		fmt.Fprintf(&b, "%s: %d of %d rules exercised\n", r.File, r.Coverage.Rules-len(r.Coverage.Unused), r.Coverage.Rules)
		for _, u := range r.Coverage.Unused {
			fmt.Fprintf(&b, "  never exercised: %s rule %d (%s)\n", u.Policy, u.Rule, u.At)
		}
	}
	_, err := io.WriteString(out, b.String())
	return err
}

type (
	junitSuites struct {
		XMLName xml.Name     `xml:"testsuites"`
		Suites  []junitSuite `xml:"testsuite"`
	}
	junitSuite struct {
		Name     string      `xml:"name,attr"`
		Tests    int         `xml:"tests,attr"`
		Failures int         `xml:"failures,attr"`
		Time     string      `xml:"time,attr"`
		Cases    []junitCase `xml:"testcase"`
	}
	junitCase struct {
		Name    string        `xml:"name,attr"`
		Class   string        `xml:"classname,attr"`
		File    string        `xml:"file,attr"`
		Time    string        `xml:"time,attr"`
		Failure *junitFailure `xml:"failure,omitempty"`
	}
	junitFailure struct {
		Message string `xml:"message,attr"`
		Text    string `xml:",chardata"`
	}
)

// JUnit writes the XML that CI systems read.
func JUnit(out io.Writer, reports []Report) error {
	var all junitSuites
	for _, r := range reports {
		s := junitSuite{Name: r.File, Tests: len(r.Results), Failures: r.Failed()}
		var total time.Duration
		for _, x := range r.Results {
			total += x.Took
			c := junitCase{Name: x.Name, Class: r.File, File: x.At, Time: seconds(x.Took)}
			if !x.Passed {
				c.Failure = &junitFailure{Message: x.Wrong[0], Text: strings.Join(x.Wrong, "\n")}
			}
			s.Cases = append(s.Cases, c)
		}
		s.Time = seconds(total)
		all.Suites = append(all.Suites, s)
	}
	if _, err := io.WriteString(out, xml.Header); err != nil {
		return err
	}
	enc := xml.NewEncoder(out)
	enc.Indent("", "  ")
	if err := enc.Encode(all); err != nil {
		return err
	}
	_, err := io.WriteString(out, "\n")
	return err
}

func seconds(d time.Duration) string { return fmt.Sprintf("%.6f", d.Seconds()) }
