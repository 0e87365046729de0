package main

import (
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/spf13/cobra"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/cases"
)

const testLong = `Runs policy tests: YAML files that say who asks what, and what must become of it. Nothing is started and nothing is contacted; each case is
evaluated as "credence explain" does it. Rules that no case exercises are listed.

Exit status 1 where a case fails, 0 otherwise.`

func newTest() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use:     "test PATH...",
		Short:   "Run policy tests",
		Long:    testLong,
		Example: "  credence test tests/\n  credence test tests/ -o junit > report.xml",
		Args:    cobra.MinimumNArgs(1),
		RunE: func(cmd *cobra.Command, paths []string) error {
			files, err := suites(paths)
			if err != nil {
				return err
			}
			reports, err := runSuites(cmd, files)
			if err != nil {
				return err
			}
			return reportCases(cmd, reports, output)
		},
	}
	cmd.Flags().StringVarP(&output, "output", "o", "text", "form of the output: text, json or junit")
	return cmd
}

// suites are the YAML files of paths.
func suites(paths []string) ([]string, error) {
	var out []string
	for _, p := range paths {
		err := filepath.WalkDir(p, func(path string, d fs.DirEntry, err error) error {
			if err == nil && !d.IsDir() && (strings.HasSuffix(path, ".yaml") || strings.HasSuffix(path, ".yml")) {
				out = append(out, path)
			}
			return err
		})
		if err != nil {
			return nil, err
		}
	}
	if len(out) == 0 {
		return nil, fmt.Errorf("no YAML file in %s", strings.Join(paths, ", "))
	}
	return out, nil
}

func runSuites(cmd *cobra.Command, files []string) ([]cases.Report, error) {
	var reports []cases.Report
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, err
		}
		suite, problems := cases.Read(file, data)
		for _, p := range problems {
			if p.Severity == policy.Error {
				return nil, fmt.Errorf("%s", p)
			}
		}
		mesh, err := openMesh(cmd.ErrOrStderr(), suite.Settings, suite.Config...)
		if err != nil {
			return nil, fmt.Errorf("%s: %w", file, err)
		}
		results := cases.Run(cmd.Context(), suite, mesh)
		reports = append(reports, cases.Report{File: file, Results: results, Coverage: cases.Covered(mesh.Set(), results)})
	}
	return reports, nil
}

func reportCases(cmd *cobra.Command, reports []cases.Report, output string) error {
	var err error
	switch out := cmd.OutOrStdout(); output {
	case "text":
		err = cases.Text(out, reports)
	case "json":
		err = writeJSON(out, reports)
	case "junit":
		err = cases.JUnit(out, reports)
	default:
		err = fmt.Errorf("--output %q: use text, json or junit", output)
	}
	if err != nil {
		return err
	}
	for _, r := range reports {
		if r.Failed() > 0 {
			return exitError(1)
		}
	}
	return nil
}
