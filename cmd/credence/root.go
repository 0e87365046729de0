package main

import (
	"fmt"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"
)

const rootLong = `Credence gives plain Envoy proxies zero-trust API security: it turns a directory of Istio, Gateway API, ratelimit and rego
files into xDS, issues SPIFFE identities, and decides by OPA and rate limits, all in one binary.

Start with "credence validate DIR", then "credence serve --config DIR".`

func newRoot() *cobra.Command {
	root := &cobra.Command{
		Use:               "credence",
		Short:             "Zero-trust API security for plain Envoy",
		Long:              rootLong,
		SilenceUsage:      true,
		SilenceErrors:     true,
		PersistentPreRunE: func(cmd *cobra.Command, _ []string) error { return fromEnvironment(cmd.Flags()) },
	}
	root.AddCommand(newServe(), newValidate(), newExplain(), newTest(), newDiff(), newStatus(), newConfigDump(), newLogLevel(),
		newToken(), newSVID(), newBootstrap(), newProxy(), newDemo(), newVersion())
	root.SetUsageTemplate(root.UsageTemplate() + environmentHelp)
	return root
}

const environmentHelp = `
Every flag can also be set in the environment: --xds-addr as CREDENCE_XDS_ADDR, and so on; a flag wins.
`

// variable is the environment variable of a flag.
func variable(flag string) string {
	return "CREDENCE_" + strings.ToUpper(strings.ReplaceAll(flag, "-", "_"))
}

// fromEnvironment sets the flags that were not given from the environment.
func fromEnvironment(flags *pflag.FlagSet) error {
	var err error
	flags.VisitAll(func(f *pflag.Flag) {
		value, ok := os.LookupEnv(variable(f.Name))
		if f.Changed || !ok || f.Name == "help" || err != nil {
			return
		}
		if e := flags.Set(f.Name, value); e != nil {
			err = fmt.Errorf("%s: %w", variable(f.Name), e)
		}
	})
	return err
}
