package main

import (
	"fmt"
	"os"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"

	"github.com/credence-mesh/credence/internal/logs"
	"github.com/credence-mesh/credence/proxy"
)

const proxyLong = `Runs Envoy for you: exchanges the join token for a credential, writes the bootstrap, starts Envoy, starts it again when it crashes,
keeps the credential fresh, and drains connections on SIGTERM. It ends with Envoy's exit status.

The token is needed the first time only: the credential is kept in --state and renewed at half of its life. Other users of the machine can read
a command line, but not CREDENCE_TOKEN in the environment. A proxy starts and serves also while the control plane is away, as long as its
credential is valid. What follows "--" is handed to Envoy.`

func newProxy() *cobra.Command {
	var c proxy.Config
	var workload string
	cmd := &cobra.Command{
		Use:   "proxy --xds-addr HOST:PORT --workload NAMESPACE/NAME [--token T] [-- ENVOY-ARGS...]",
		Short: "Run an Envoy as a workload of the mesh",
		Long:  proxyLong,
		Example: `  credence proxy --xds-addr 127.0.0.1:15012 --workload production/payment-1 --token "$token"
  CREDENCE_TOKEN="$token" credence proxy --xds-addr 127.0.0.1:15012 --workload production/payment-1`,
		RunE: func(cmd *cobra.Command, args []string) error {
			var err error
			if c.Workload, err = workloadOf(workload); err != nil {
				return err
			}
			c.Args, c.Stdout, c.Log = args, cmd.OutOrStdout(), logs.New(os.Stderr, zapcore.InfoLevel).For("proxy")
			code, err := proxy.Run(cmd.Context(), c)
			if err != nil {
				return fmt.Errorf("proxy %s: %w", c.Workload, err)
			}
			if code != 0 {
				return exitError(code)
			}
			return nil
		},
	}
	cmd.Flags().StringVar(&c.XDSAddr, "xds-addr", defaultXDS, "address of the control plane: HOST:PORT")
	cmd.Flags().StringVar(&c.Token, "token", "", "join token, from `credence token create`; needed only while --state has no valid credential")
	cmd.Flags().StringVar(&workload, "workload", "", "who the proxy is: a WorkloadEntry or a Gateway, as NAMESPACE/NAME")
	cmd.Flags().StringVar(&c.StateDir, "state", "credence-proxy", "directory of the credential and the bootstrap; one for each running proxy")
	cmd.Flags().StringVar(&c.Envoy, "envoy", os.Getenv("ENVOY_PATH"), "the Envoy binary; default: ENVOY_PATH, then envoy on PATH, then what `make envoy` fetched")
	cmd.Flags().StringVar(&c.Admin, "envoy-admin", "", "Envoy's admin address: unix:PATH, or HOST:PORT on loopback; default: admin.sock in --state")
	cmd.Flags().StringVar(&c.LogLevel, "envoy-log-level", "info", "Envoy's log level")
	cmd.Flags().DurationVar(&c.TTL, "credential-ttl", proxy.DefaultTTL, "how long the credential lives; renewed at half of that")
	cmd.Flags().DurationVar(&c.DrainTime, "drain-time", proxy.DefaultDrainTime, "how long clients get to finish on SIGTERM")
	cmd.Flags().Int64Var(&c.MaxConnections, "max-connections", 0, "connections that Envoy takes before it refuses new ones; default 50000")
	must(cmd.MarkFlagRequired("workload"))
	return cmd
}
