package main

import (
	"fmt"

	"github.com/spf13/cobra"

	"github.com/credence-mesh/credence/policy/compare"
)

const diffLong = `Tells whose verdict changes between two directories of resources: it derives callers and requests from the rules of both, adds strangers whom
no rule names, and asks both what "credence explain" would say. Names with "probe" stand for what a wildcard covers.

What is compared are decisions and status codes. A change that no derived question meets is not shown: keep policy tests for what matters.

Exit status 1 where a change opens or closes something, 0 otherwise.`

func newDiff() *cobra.Command {
	var output, file, fileNew string
	cmd := &cobra.Command{
		Use:     "diff OLD NEW",
		Short:   "Tell whose verdict changes between two directories of resources",
		Long:    diffLong,
		Example: "  git worktree add /tmp/main main && credence diff /tmp/main/mesh mesh",
		Args:    cobra.ExactArgs(2),
		RunE: func(cmd *cobra.Command, args []string) error {
			if fileNew == "" {
				fileNew = file
			}
			before, err := openMesh(cmd.ErrOrStderr(), file, args[0])
			if err != nil {
				return err
			}
			after, err := openMesh(cmd.ErrOrStderr(), fileNew, args[1])
			if err != nil {
				return err
			}
			r, err := compare.Sets(cmd.Context(), before, after)
			if err != nil {
				return err
			}
			switch output {
			case "json":
				err = writeJSON(cmd.OutOrStdout(), r)
			case "text":
				err = compare.Table(cmd.OutOrStdout(), r)
			default:
				err = fmt.Errorf("--output %q: use text or json", output)
			}
			if err == nil && r.Matters() {
				return exitError(1)
			}
			return err
		},
	}
	cmd.Flags().StringVar(&file, "file", "", "credence.yaml of OLD, and of NEW where --file-new is not given")
	cmd.Flags().StringVar(&fileNew, "file-new", "", "credence.yaml of NEW")
	cmd.Flags().StringVarP(&output, "output", "o", "text", "form of the output: text or json")
	return cmd
}
