package main

import (
	"fmt"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/ca"
	"github.com/credence-mesh/credence/identity/mint"
)

const svidMintLong = `Makes an X.509-SVID for any identity of the mesh, straight from the state directory, and writes svid.pem, key.pem and bundle.pem.
For operators and tests: whoever can read the state directory can be anyone.`

func newSVID() *cobra.Command {
	cmd := &cobra.Command{Use: "svid", Short: "Make SVIDs by hand"}
	cmd.AddCommand(newSVIDMint())
	return cmd
}

func newSVIDMint() *cobra.Command {
	var stateDir, id, out string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:     "mint --state DIR --spiffe-id ID --out DIR",
		Short:   "Write an X.509-SVID, its key and the mesh's bundle to files",
		Long:    svidMintLong,
		Example: "  credence svid mint --state state/ --spiffe-id spiffe://cluster.local/ns/production/sa/order-service --out me/",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			who, err := spiffeid.FromString(id)
			if err != nil {
				return fmt.Errorf("--spiffe-id %q: %w", id, err)
			}
			if identity.Reserved(who) {
				return fmt.Errorf("--spiffe-id %s: identities under /credence/ are the control plane's own: who has one is believed by every proxy", who)
			}
			_, authority, err := openAuthority(cmd.Context(), stateDir, who.TrustDomain().Name())
			if err != nil {
				return err
			}
			svid, err := authority.Mint(cmd.Context(), ca.Request{ID: who, TTL: ttl})
			if err != nil {
				return err
			}
			if err := mint.Write(out, svid, authority.Bundle()); err != nil {
				return err
			}
			_, err = fmt.Fprintf(cmd.OutOrStdout(), "%s until %s: %s, %s and %s in %s\n", who,
				svid.Certificates[0].NotAfter.Format(time.RFC3339), mint.SVIDFile, mint.KeyFile, mint.BundleFile, out)
			return err
		},
	}
	cmd.Flags().StringVar(&stateDir, "state", defaultState, stateHelp)
	cmd.Flags().StringVar(&id, "spiffe-id", "", "the identity, such as spiffe://cluster.local/ns/production/sa/order-service")
	cmd.Flags().StringVar(&out, "out", "", "directory that the three files are written to")
	cmd.Flags().DurationVar(&ttl, "ttl", time.Hour, "how long it is valid")
	must(cmd.MarkFlagRequired("spiffe-id"))
	must(cmd.MarkFlagRequired("out"))
	return cmd
}
