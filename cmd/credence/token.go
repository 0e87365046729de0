package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"github.com/spiffe/go-spiffe/v2/spiffeid"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/attest"
	"github.com/credence-mesh/credence/identity/ca"
	"github.com/credence-mesh/credence/identity/state"
	"github.com/credence-mesh/credence/policy"
)

// openAuthority opens the authority of a state directory; where there is none yet it begins one for a trust domain.
func openAuthority(ctx context.Context, path, trustDomain string) (*state.Dir, *ca.Authority, error) {
	dir, err := state.Open(path)
	if err != nil {
		return nil, nil, err
	}
	a, err := ca.Open(ctx, dir, identity.TrustDomain{})
	if !errors.Is(err, ca.ErrNoAuthority) {
		return dir, a, err
	}
	td, err := spiffeid.TrustDomainFromString(trustDomain)
	if err != nil {
		return nil, nil, fmt.Errorf("trust domain %q: %w", trustDomain, err)
	}
	if a, err = ca.Open(ctx, dir, td); err == nil {
		fmt.Fprintf(os.Stderr, "credence: %s held no certificate authority: a new mesh is begun in it, trust domain %s; credence serve must be given the same directory\n", path, td.Name())
	}
	return dir, a, err
}

// workloadOf parses "namespace/name".
func workloadOf(s string) (identity.Workload, error) {
	ns, name, ok := strings.Cut(s, "/")
	if !ok || ns == "" || name == "" || strings.Contains(name, "/") {
		return identity.Workload{}, fmt.Errorf("--workload %q: want NAMESPACE/NAME, as in production/payment-1", s)
	}
	return identity.Workload{Namespace: ns, Name: name}, nil
}

const tokenCreateLong = `Prints a token by which one proxy proves, once, that it may be this workload. It is single use, it expires, and it carries the
fingerprint of the trust root, so that the proxy verifies the server before it sends anything.

Run it where the state directory of "credence serve" is; the server need not be restarted.`

func newToken() *cobra.Command {
	cmd := &cobra.Command{Use: "token", Short: "Make join tokens for proxies"}
	cmd.AddCommand(newTokenCreate())
	return cmd
}

func newTokenCreate() *cobra.Command {
	var stateDir, workload, trustDomain string
	var ttl time.Duration
	cmd := &cobra.Command{
		Use:     "create --state DIR --workload NAMESPACE/NAME",
		Short:   "Print a single-use join token for a workload",
		Long:    tokenCreateLong,
		Example: "  credence token create --state state/ --workload production/payment-1",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			w, err := workloadOf(workload)
			if err != nil {
				return err
			}
			dir, authority, err := openAuthority(cmd.Context(), stateDir, trustDomain)
			if err != nil {
				return err
			}
			tokens, err := attest.OpenTokens(dir)
			if err != nil {
				return err
			}
			token, err := attest.CreateToken(cmd.Context(), tokens, authority.Root(), w, ttl)
			if err != nil {
				return err
			}
			_, err = fmt.Fprintln(cmd.OutOrStdout(), token)
			return err
		},
	}
	cmd.Flags().StringVar(&stateDir, "state", defaultState, stateHelp)
	cmd.Flags().StringVar(&workload, "workload", "", "the workload that the proxy may be: a WorkloadEntry or a Gateway, as NAMESPACE/NAME")
	cmd.Flags().StringVar(&trustDomain, "trust-domain", policy.DefaultMesh().TrustDomain, "trust domain of a mesh that is only now begun; an existing state directory knows its own")
	cmd.Flags().DurationVar(&ttl, "ttl", 15*time.Minute, "how long the token may wait to be used")
	must(cmd.MarkFlagRequired("workload"))
	return cmd
}

const (
	defaultState = "credence-state"
	stateHelp    = "directory of the certificate authority, tokens and cached keys; only its owner may read it"
)

// must is for errors that only a mistake in this program can cause.
func must(err error) {
	if err != nil {
		panic(err)
	}
}
