package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/credence-mesh/credence/internal/settings"
	"github.com/credence-mesh/credence/internal/validate"
	"github.com/credence-mesh/credence/policy"
)

const validateLong = `Reads resources as "credence serve" would and prints what is wrong (error), what is in force but does not do what its author
would expect (warning), and what is worth knowing (info). Nothing is contacted and nothing is changed.

Exit status 1 where there is an error, 0 otherwise.`

func newValidate() *cobra.Command {
	var output, file string
	var quiet bool
	cmd := &cobra.Command{
		Use:     "validate PATH...",
		Short:   "Print what is wrong and what is surprising in files or directories",
		Long:    validateLong,
		Example: "  credence validate mesh/\n  credence validate mesh/ -o json | jq '.[] | select(.severity == \"error\")'",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, paths []string) error {
			set, problems, err := settings.Load(file)
			if err != nil {
				return err
			}
			found, err := validate.Paths(set.Mesh, set.OPA.Decision, paths...)
			if err != nil {
				return err
			}
			return report(cmd.OutOrStdout(), append(problems, found...), output, quiet)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "form of the output: text or json")
	cmd.Flags().StringVar(&file, "file", "", "credence.yaml, for what it says of the mesh")
	cmd.Flags().BoolVarP(&quiet, "quiet", "q", false, "leave out what is only worth knowing (info)")
	return cmd
}

func report(out io.Writer, problems []policy.Problem, form string, quiet bool) error {
	problems = validate.Sorted(problems)
	errors, warnings := 0, 0
	shown := []policy.Problem{}
	for _, p := range problems {
		switch p.Severity {
		case policy.Error:
			errors++
		case policy.Warning:
			warnings++
		case policy.Info:
			if quiet {
				continue
			}
		}
		shown = append(shown, p)
	}
	switch form {
	case "json":
		enc := json.NewEncoder(out)
		enc.SetIndent("", "  ")
		enc.SetEscapeHTML(false)
		if err := enc.Encode(shown); err != nil {
			return err
		}
	case "text":
		f, ok := out.(*os.File)
		color := ok && term.IsTerminal(int(f.Fd()))
		for _, p := range shown {
			printProblem(out, p, color)
		}
		fmt.Fprintf(out, "%s, %s\n", count(errors, "error"), count(warnings, "warning"))
	default:
		return fmt.Errorf("--output %q: use text or json", form)
	}
	if errors > 0 {
		return exitError(1)
	}
	return nil
}

func count(n int, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

func printProblem(out io.Writer, p policy.Problem, color bool) {
	severity := p.Severity.String()
	if color {
		code := map[policy.Severity]string{policy.Error: "31", policy.Warning: "33", policy.Info: "36"}[p.Severity]
		severity = "\x1b[" + code + "m" + severity + "\x1b[0m"
	}
	fmt.Fprintf(out, "%s: %s: %s", p.At, severity, p.Says)
	fmt.Fprintf(out, " [%s]\n", p.Code)
	if p.Object != "" {
		where := p.Object
		if p.Field != "" {
			where += ": " + p.Field
		}
		fmt.Fprintf(out, "    in   %s\n", where)
	}
	if p.Try != "" {
		fmt.Fprintf(out, "    try  %s\n", p.Try)
	}
}
