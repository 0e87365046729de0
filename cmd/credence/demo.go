package main

import (
	"io"
	"os"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"github.com/credence-mesh/credence/examples/demo"
	"github.com/credence-mesh/credence/internal/envoy"
)

const demoLong = `Plays a story on four real Envoys: a gateway, order-service, payment-service, and an intruder with a valid identity but no right.
Each row of the table that it prints is a real request: what was tried, what was expected, what was seen. Exit status 1 where a row differs.

Everything runs on loopback, in a temporary directory that is removed afterwards.`

func newDemo() *cobra.Command {
	var hold, verbose bool
	var named string
	cmd := &cobra.Command{
		Use:   "demo",
		Short: "Four real Envoys, zero trust: play the story and check every request",
		Long:  demoLong,
		Args:  cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			binary, err := envoy.Locate(cmd.Context(), named)
			if err != nil {
				return err
			}
			self, err := os.Executable()
			if err != nil {
				return err
			}
			var log io.Writer
			if verbose {
				log = cmd.ErrOrStderr()
			}
			return demo.Run(cmd.Context(), demo.Options{
				Binary: self, Envoy: binary.Path, Out: cmd.OutOrStdout(), Color: term.IsTerminal(int(os.Stdout.Fd())), Log: log, Hold: hold,
			})
		},
	}
	cmd.Flags().BoolVar(&hold, "hold", false, "leave the mesh running after the story, and print how to talk to it")
	cmd.Flags().BoolVarP(&verbose, "verbose", "v", false, "show what every process says")
	cmd.Flags().StringVar(&named, "envoy", os.Getenv("ENVOY_PATH"), "the Envoy binary; default: ENVOY_PATH, envoy on PATH, or what `make envoy` fetched")
	return cmd
}
