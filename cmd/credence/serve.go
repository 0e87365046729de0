package main

import (
	"fmt"
	"net"
	"os"

	"github.com/spf13/cobra"
	"go.uber.org/zap/zapcore"

	"github.com/credence-mesh/credence/internal/logs"
	"github.com/credence-mesh/credence/internal/settings"
	"github.com/credence-mesh/credence/policy"
)

const serveLong = `Runs the control plane: watches a directory of resources, issues identities, and serves each proxy what it must enforce.

The directory may hold any number of YAML and rego files in any depth. Edits take effect within a fraction of a second and without dropping a
connection. A document with a mistake is refused by file, line and field, in the log and in "credence status"; the last good version of that
object stays in force, and every other object is unaffected.

Proxies reach the xDS address over mutual TLS only. They prove who they are with a token once ("credence token create"), then with the credential
that they got for it. The admin address is for you, on this machine: health, metrics, status.

It prints one line when it is ready.`

const serveExample = `  credence serve --config mesh/ --state state/
  credence serve --config mesh/ --state state/ --file credence.yaml --xds-addr 0.0.0.0:15012`

// serveFlags are the flags of serve.
type serveFlags struct {
	config, file, state, xds, admin string
}

func newServe() *cobra.Command {
	var f serveFlags
	cmd := &cobra.Command{
		Use:     "serve --config DIR",
		Short:   "Run the control plane",
		Long:    serveLong,
		Example: serveExample,
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			l := logs.New(os.Stderr, zapcore.InfoLevel)
			s, err := f.settings(l)
			if err != nil {
				return err
			}
			c, err := newControlPlane(cmd.Context(), f, s, l)
			if err != nil {
				return err
			}
			return c.run(cmd.Context(), cmd.OutOrStdout())
		},
	}
	cmd.Flags().StringVar(&f.config, "config", "", "directory of resources to watch")
	cmd.Flags().StringVar(&f.file, "file", "", "settings of the process and the mesh (credence.yaml)")
	cmd.Flags().StringVar(&f.state, "state", defaultState, stateHelp)
	cmd.Flags().StringVar(&f.xds, "xds-addr", defaultXDS, "address for proxies: HOST:PORT; its HOST is also put into the server's certificate")
	cmd.Flags().StringVar(&f.admin, "admin-addr", defaultAdmin, "admin address: HOST:PORT on loopback, or unix:PATH")
	must(cmd.MarkFlagRequired("config"))
	return cmd
}

const defaultXDS = "127.0.0.1:15012"

// settings reads the settings file, and refuses one that was not understood.
func (f serveFlags) settings(l *logs.Loggers) (settings.Settings, error) {
	s, problems, err := settings.Load(f.file)
	if err != nil {
		return s, err
	}
	bad := 0
	for _, p := range problems {
		printProblem(os.Stderr, p, false)
		if p.Severity == policy.Error {
			bad++
		}
	}
	if bad > 0 {
		return s, fmt.Errorf("%s: %s; nothing is started with settings that were not understood", f.file, count(bad, "error"))
	}
	if err := l.Set("", s.Log.Level); err != nil {
		return s, fmt.Errorf("%s: log.level: %w", f.file, err)
	}
	return s, nil
}

// serverNames splits what the server's certificate is to name into DNS names and addresses; localhost and loopback are always among them.
func serverNames(xdsAddr string, names []string) (dns []string, ips []net.IP) {
	host, _, _ := net.SplitHostPort(xdsAddr)
	dns, ips = []string{"localhost"}, []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback}
	for _, n := range append(names, host) {
		switch ip := net.ParseIP(n); {
		case n == "" || n == "localhost":
		case ip == nil:
			dns = append(dns, n)
		case !ip.IsUnspecified() && !ip.IsLoopback():
			ips = append(ips, ip)
		}
	}
	return dns, ips
}
