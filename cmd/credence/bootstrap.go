package main

import (
	"errors"
	"fmt"
	"time"

	"github.com/spf13/cobra"

	"github.com/credence-mesh/credence/proxy"
)

const bootstrapLong = `Exchanges a join token for a credential and writes a complete bootstrap that a bare "envoy -c" runs.

The file holds a private key, so only its owner may read it. The credential in it is good for the control plane only (no peer accepts it), for one
workload, and for 90 days unless --credential-ttl says otherwise; "credence status" tells when it is near its end, and "credence bootstrap
--renew --out envoy.yaml" replaces it. The mesh identity of the proxy is another thing: it lives an hour and is rotated over SDS.`

func newBootstrap() *cobra.Command {
	var b proxy.Bare
	var workload, out string
	var renew bool
	cmd := &cobra.Command{
		Use:   "bootstrap --xds-addr HOST:PORT --token T --workload NAMESPACE/NAME --out FILE",
		Short: "Write an Envoy bootstrap for a proxy that you run yourself",
		Long:  bootstrapLong,
		Example: `  credence bootstrap --xds-addr 127.0.0.1:15012 --token "$token" --workload production/payment-1 --out envoy.yaml && envoy -c envoy.yaml
  credence bootstrap --renew --out envoy.yaml`,
		Args: cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var until time.Time
			var err error
			if renew {
				until, err = proxy.RenewBootstrap(cmd.Context(), out)
			} else {
				if b.Token == "" {
					return errors.New("a join token is needed: --token, from `credence token create` where the control plane's state is")
				}
				if b.Workload, err = workloadOf(workload); err != nil {
					return err
				}
				until, err = proxy.CreateBootstrap(cmd.Context(), out, b)
			}
			if err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s: its credential is good until %s\n", out, until.Format(time.RFC3339))
			return err
		},
	}
	cmd.Flags().StringVar(&b.XDSAddr, "xds-addr", defaultXDS, "address of the control plane: HOST:PORT")
	cmd.Flags().StringVar(&b.Token, "token", "", "join token, from `credence token create`; it is used up")
	cmd.Flags().StringVar(&workload, "workload", "", "who the proxy is: a WorkloadEntry or a Gateway, as NAMESPACE/NAME")
	cmd.Flags().StringVar(&out, "out", "", "the file to write")
	cmd.Flags().DurationVar(&b.TTL, "credential-ttl", 0, "how long the credential lives; default 90 days, or what the server allows")
	cmd.Flags().StringVar(&b.Admin, "envoy-admin", "", "Envoy's admin address: unix:PATH, or HOST:PORT on loopback; default: a free port on loopback")
	cmd.Flags().Int64Var(&b.MaxConnections, "max-connections", 0, "connections that Envoy takes before it refuses new ones; default 50000")
	cmd.Flags().BoolVar(&renew, "renew", false, "replace the credential in --out, which is still valid")
	must(cmd.MarkFlagRequired("out"))
	return cmd
}
