package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

const (
	defaultAdmin = "127.0.0.1:15014"
	adminHelp    = "admin address of the control plane: HOST:PORT or unix:PATH"
)

// admin asks the admin API of a running control plane.
type admin struct{ addr string }

func (a *admin) flag(cmd *cobra.Command) {
	cmd.Flags().StringVar(&a.addr, "admin-addr", defaultAdmin, adminHelp)
}

func (a *admin) ask(ctx context.Context, method, path string, query url.Values) ([]byte, error) {
	host, dial := a.addr, (&net.Dialer{}).DialContext
	if path, ok := strings.CutPrefix(a.addr, "unix:"); ok {
		host = "localhost"
		dial = func(ctx context.Context, _, _ string) (net.Conn, error) {
			return (&net.Dialer{}).DialContext(ctx, "unix", path)
		}
	}
	client := &http.Client{Transport: &http.Transport{DialContext: dial}, Timeout: 30 * time.Second}
	u := url.URL{Scheme: "http", Host: host, Path: path, RawQuery: query.Encode()}
	req, err := http.NewRequestWithContext(ctx, method, u.String(), nil)
	if err != nil {
		return nil, err
	}
	resp, err := client.Do(req)
	if err != nil {
		var op *net.OpError
		if errors.As(err, &op) && op.Op == "dial" {
			return nil, fmt.Errorf("no control plane answers at %s: is `credence serve` running there? (--admin-addr): %w", a.addr, op.Err)
		}
		return nil, err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(resp.Body)
	if err != nil {
		return nil, err
	}
	if resp.StatusCode != http.StatusOK {
		return nil, errors.New(strings.TrimSpace(string(body)))
	}
	return body, nil
}

func newConfigDump() *cobra.Command {
	var a admin
	var workload string
	cmd := &cobra.Command{
		Use:     "config-dump --workload NAMESPACE/NAME",
		Short:   "Print the xDS resources that the proxies of a workload are given, without secrets",
		Example: "  credence config-dump --workload production/payment-1 | jq '.lds[].name'",
		Args:    cobra.NoArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := workloadOf(workload); err != nil {
				return err
			}
			body, err := a.ask(cmd.Context(), http.MethodGet, "/api/v1/config-dump", url.Values{"workload": {workload}})
			if err != nil {
				return err
			}
			_, err = cmd.OutOrStdout().Write(body)
			return err
		},
	}
	a.flag(cmd)
	cmd.Flags().StringVar(&workload, "workload", "", "the workload, as NAMESPACE/NAME")
	must(cmd.MarkFlagRequired("workload"))
	return cmd
}

func newLogLevel() *cobra.Command {
	var a admin
	cmd := &cobra.Command{
		Use:     "log-level [[COMPONENT=]LEVEL]",
		Short:   "Show or change the log levels of a running control plane",
		Example: "  credence log-level\n  credence log-level debug\n  credence log-level xds=debug",
		Args:    cobra.MaximumNArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			method, query := http.MethodGet, url.Values{}
			if len(args) == 1 {
				component, level, ok := strings.Cut(args[0], "=")
				if !ok {
					component, level = "", args[0]
				}
				method, query = http.MethodPut, url.Values{"component": {component}, "level": {level}}
			}
			body, err := a.ask(cmd.Context(), method, "/api/v1/log-levels", query)
			if err != nil {
				return err
			}
			var levels map[string]string
			if err := json.Unmarshal(body, &levels); err != nil {
				return err
			}
			return printLevels(cmd.OutOrStdout(), levels)
		},
	}
	a.flag(cmd)
	return cmd
}
