package main

import (
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"text/tabwriter"
	"time"

	"github.com/spf13/cobra"

	"github.com/credence-mesh/credence/console"
	"github.com/credence-mesh/credence/snapshot"
)

func newStatus() *cobra.Command {
	var a admin
	var output string
	cmd := &cobra.Command{
		Use:   "status",
		Short: "List the proxies: who they are, what they acknowledged, what they refused; and what is wrong",
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			body, err := a.ask(cmd.Context(), http.MethodGet, "/api/v1/status", nil)
			if err != nil {
				return err
			}
			if output == "json" {
				_, err := cmd.OutOrStdout().Write(body)
				return err
			}
			var s console.Status
			if err := json.Unmarshal(body, &s); err != nil {
				return err
			}
			return printStatus(cmd.OutOrStdout(), s, time.Now())
		},
	}
	a.flag(cmd)
	cmd.Flags().StringVarP(&output, "output", "o", "text", "form of the output: text or json")
	return cmd
}

func printStatus(out io.Writer, s console.Status, now time.Time) error {
	ready := "ready"
	if !s.Ready {
		ready = "not ready yet"
	}
	fmt.Fprintf(out, "credence %s, %s, up %s: %s in force, %s, %s connected\n", s.Version, ready, age(now.Sub(s.Started)),
		count(s.Objects, "object"), count(s.Workloads, "workload"), proxies(len(s.Proxies)))
	if len(s.Proxies) > 0 {
		fmt.Fprintln(out)
		w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
		fmt.Fprintln(w, "WORKLOAD\tINSTANCE\tIDENTITY\tCONNECTED\tCREDENTIAL ENDS\tSTATE\tACKNOWLEDGED")
		for _, p := range s.Proxies {
			fmt.Fprintf(w, "%s\t%s\t%s\t%s ago\t%s\t%s\t%s\n", p.Workload, p.Instance, p.Identity, age(now.Sub(p.Since)),
				ends(p.Credential, now), stateOf(p), versions(p.Types))
		}
		if err := w.Flush(); err != nil {
			return err
		}
	}
	for _, p := range s.Proxies {
		if p.Nack != nil {
			fmt.Fprintf(out, "\n%s~%s refused %s %s ago, and keeps its last good configuration:\n    %s\n", p.Workload, p.Instance,
				p.Nack.Type, age(now.Sub(p.Nack.When)), p.Nack.Says)
			for _, src := range p.Nack.Sources {
				fmt.Fprintf(out, "    from %s\n", src)
			}
		}
	}
	if len(s.Problems) > 0 {
		fmt.Fprintln(out)
		for _, p := range s.Problems {
			printProblem(out, p, false)
		}
	}
	return nil
}

func stateOf(p snapshot.ProxyStatus) string {
	switch {
	case p.Nack != nil:
		return "REFUSED"
	case p.InStep:
		return "in step"
	default:
		return "behind"
	}
}

// ends tells when a credential ends. A supervised proxy renews its own at half life; that of a bare Envoy is renewed by hand.
func ends(at, now time.Time) string {
	switch left := at.Sub(now); {
	case at.IsZero():
		return "-"
	case left <= 0:
		return "ENDED"
	default:
		return "in " + age(left)
	}
}

func versions(types []snapshot.TypeStatus) string {
	var out []string
	for _, t := range types {
		switch {
		case t.InStep && t.Acked != "":
			out = append(out, t.Type+" "+t.Acked)
		case t.InStep:
			out = append(out, t.Type)
		default:
			out = append(out, fmt.Sprintf("%s %s of %s", t.Type, orDash(t.Acked), t.Wanted))
		}
	}
	return strings.Join(out, ", ")
}

func orDash(s string) string {
	if s == "" {
		return "-"
	}
	return s
}

// age is a duration as people say it: two units at the most.
func age(d time.Duration) string {
	switch {
	case d < 0:
		return "the past"
	case d < 2*time.Minute:
		return d.Round(time.Second).String()
	case d < 2*time.Hour:
		return fmt.Sprintf("%dm", int(d.Minutes()))
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh", int(d.Hours()))
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

func printLevels(out io.Writer, levels map[string]string) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	for _, c := range slices.Sorted(maps.Keys(levels)) {
		fmt.Fprintf(w, "%s\t%s\n", c, levels[c])
	}
	return w.Flush()
}

func proxies(n int) string {
	if n == 1 {
		return "1 proxy"
	}
	return fmt.Sprintf("%d proxies", n)
}
