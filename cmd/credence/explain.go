package main

import (
	"encoding/json"
	"fmt"
	"io"
	"net/netip"
	"os"
	"strings"

	"github.com/spf13/cobra"

	"github.com/credence-mesh/credence/internal/offline"
	"github.com/credence-mesh/credence/internal/settings"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/explain"
)

const explainLong = `Tells what the proxy of a workload does with one request, and why: it builds the configuration that the proxy would get and evaluates it,
without Envoy and without contacting anybody. It prints the verdict, the rule that decided, for a denial the ALLOW rule that came nearest,
and every step in order.

A token is verified with the keys that policies give inline and that credence.yaml names as files; --claims takes claims as verified.

Exit status 0 where the request passes, 1 where it is refused, 2 where something decides that cannot be evaluated here.`

type explainFlags struct {
	config, file, workload, peer, source, token, claims, output string
	headers                                                     []string
	req                                                         explain.Request
}

func newExplain() *cobra.Command {
	var f explainFlags
	cmd := &cobra.Command{
		Use:     "explain",
		Short:   "Tell what becomes of a request, and which rule says so",
		Long:    explainLong,
		Example: "  credence explain --config mesh/ --workload shop/orders --port 8080 --peer spiffe://cluster.local/ns/shop/sa/web --path /orders/1",
		Args:    cobra.NoArgs,
		RunE:    func(cmd *cobra.Command, _ []string) error { return runExplain(cmd, f) },
	}
	flags := cmd.Flags()
	flags.StringVar(&f.config, "config", "", "directory of resources")
	flags.StringVar(&f.file, "file", "", "credence.yaml")
	flags.StringVar(&f.workload, "workload", "", "NAMESPACE/NAME of the workload that is asked")
	flags.Uint32Var(&f.req.Port, "port", 0, "port of the workload")
	flags.StringVar(&f.peer, "peer", "plaintext", "SPIFFE ID of the caller, or tls (TLS without a client certificate), or plaintext")
	flags.StringVar(&f.source, "source-ip", "127.0.0.1", "address from which the connection comes")
	flags.StringVar(&f.req.ServerName, "sni", "", "server name of the TLS connection")
	flags.StringVar(&f.req.Method, "method", "GET", "HTTP method")
	flags.StringVar(&f.req.Path, "path", "/", "path, with its query")
	flags.StringVar(&f.req.Host, "host", "", "Host header (default: NAME.NAMESPACE of the workload)")
	flags.StringArrayVar(&f.headers, "header", nil, "header as NAME=VALUE; may be repeated")
	flags.StringVar(&f.token, "token", "", "file that holds a token; its signature is verified")
	flags.StringVar(&f.claims, "claims", "", "file that holds claims as JSON; they are taken as verified")
	flags.Int64Var(&f.req.Body, "body-bytes", 0, "size of the body")
	flags.StringVarP(&f.output, "output", "o", "text", "form of the output: text or json")
	for _, name := range []string{"config", "workload", "port"} {
		_ = cmd.MarkFlagRequired(name) // the flag is there
	}
	cmd.MarkFlagsMutuallyExclusive("token", "claims")
	return cmd
}

func runExplain(cmd *cobra.Command, f explainFlags) error {
	namespace, name, ok := strings.Cut(f.workload, "/")
	if !ok {
		return fmt.Errorf("--workload %q is not NAMESPACE/NAME", f.workload)
	}
	if err := f.request(); err != nil {
		return err
	}
	mesh, err := openMesh(cmd.ErrOrStderr(), f.file, f.config)
	if err != nil {
		return err
	}
	v, err := mesh.Explain(cmd.Context(), namespace, name, f.req)
	if err != nil {
		return err
	}
	switch f.output {
	case "json":
		err = writeJSON(cmd.OutOrStdout(), v)
	case "text":
		err = printVerdict(cmd.OutOrStdout(), v)
	default:
		return fmt.Errorf("--output %q: use text or json", f.output)
	}
	switch {
	case err != nil:
		return err
	case v.Decision == explain.Deny:
		return exitError(1)
	case v.Decision != explain.Allow:
		return exitError(2)
	}
	return nil
}

// openMesh reads resources; what is wrong with them is told on out, because it changes verdicts.
func openMesh(out io.Writer, settingsFile string, paths ...string) (*offline.Mesh, error) {
	s, problems, err := settings.Load(settingsFile)
	if err != nil {
		return nil, err
	}
	mesh, found, err := offline.Open(s, paths...)
	if err != nil {
		return nil, err
	}
	for _, p := range append(problems, found...) {
		if p.Severity == policy.Error {
			fmt.Fprintln(out, p)
		}
	}
	return mesh, nil
}

func (f *explainFlags) request() error {
	var err error
	if f.req.Transport, f.req.Peer, err = explain.Caller(f.peer); err != nil {
		return fmt.Errorf("--peer: %w", err)
	}
	if f.req.SourceIP, err = netip.ParseAddr(f.source); err != nil {
		return fmt.Errorf("--source-ip: %w", err)
	}
	for _, h := range f.headers {
		name, value, ok := strings.Cut(h, "=")
		if !ok || name == "" {
			return fmt.Errorf("--header %q is not NAME=VALUE", h)
		}
		f.req.Headers = append(f.req.Headers, explain.Header{Name: name, Value: value})
	}
	if f.token != "" {
		b, err := os.ReadFile(f.token)
		if err != nil {
			return fmt.Errorf("--token: %w", err)
		}
		f.req.Token = strings.TrimSpace(string(b))
	}
	if f.claims != "" {
		b, err := os.ReadFile(f.claims)
		if err != nil {
			return fmt.Errorf("--claims: %w", err)
		}
		if err := json.Unmarshal(b, &f.req.Claims); err != nil {
			return fmt.Errorf("--claims %s: %w", f.claims, err)
		}
	}
	return nil
}

func writeJSON(out io.Writer, v any) error {
	enc := json.NewEncoder(out)
	enc.SetIndent("", "  ")
	enc.SetEscapeHTML(false)
	return enc.Encode(v)
}

func printVerdict(out io.Writer, v explain.Verdict) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s", strings.ToUpper(v.Decision))
	if v.Code != 0 {
		fmt.Fprintf(&b, " %d", v.Code)
	}
	fmt.Fprintf(&b, ": %s\n", v.Because)
	if v.Policy != "" && v.Nearest == nil {
		fmt.Fprintf(&b, "  by   %s", v.Policy)
		if v.Rule != explain.NoRule {
			fmt.Fprintf(&b, " rule %d", v.Rule)
		}
		fmt.Fprintf(&b, " (%s)\n", v.At)
	}
	if n := v.Nearest; n != nil {
		fmt.Fprintf(&b, "nearest miss: %s rule %d (%s)\n", n.Policy, n.Rule, n.At)
		for _, x := range n.Failed {
			fmt.Fprintf(&b, "  %s: wants %s, got %s (%s)\n", x.Field, x.Want, x.Got, x.At)
		}
	}
	b.WriteString("\nsteps:\n")
	for _, s := range v.Steps {
		fmt.Fprintf(&b, "  %-8s %-13s %s\n", s.Name, s.Outcome, s.Detail)
	}
	_, err := io.WriteString(out, b.String())
	return err
}
