package main

import (
	"context"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"path/filepath"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/collectors"
	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"go.uber.org/zap"
	"golang.org/x/sync/errgroup"
	"google.golang.org/grpc"

	"github.com/credence-mesh/credence/console"
	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/attest"
	"github.com/credence-mesh/credence/identity/attest/attestv1"
	"github.com/credence-mesh/credence/identity/ca"
	"github.com/credence-mesh/credence/identity/sds"
	"github.com/credence-mesh/credence/identity/state"
	"github.com/credence-mesh/credence/internal/logs"
	"github.com/credence-mesh/credence/internal/settings"
	"github.com/credence-mesh/credence/policy/jwt/jwks"
	"github.com/credence-mesh/credence/policy/limit"
	"github.com/credence-mesh/credence/policy/opa"
	"github.com/credence-mesh/credence/policy/source/file"
	"github.com/credence-mesh/credence/snapshot"
	"github.com/credence-mesh/credence/xds/server"
	"github.com/credence-mesh/credence/xds/translate"
)

// controlPlane is every part of `credence serve`, made top to bottom by newControlPlane and run by run.
type controlPlane struct {
	flags    serveFlags
	logs     *logs.Loggers
	log      *zap.Logger
	registry *prometheus.Registry

	source    *file.Source
	keys      *jwks.Stage
	limits    *limit.Service
	decisions *opa.Service
	pipeline  *snapshot.Pipeline
	status    *snapshot.Status
	own       *ca.Source
	revoked   *attest.Revocations
	authority *ca.Authority
	secrets   *sds.Secrets
	server    *server.Server
	facts     *facts

	xds, admin net.Listener
}

func newControlPlane(ctx context.Context, f serveFlags, s settings.Settings, l *logs.Loggers) (*controlPlane, error) {
	c := &controlPlane{flags: f, logs: l, log: l.For("serve"), registry: prometheus.NewRegistry()}
	c.registry.MustRegister(collectors.NewGoCollector(), collectors.NewProcessCollector(collectors.ProcessCollectorOpts{}))
	domain, err := spiffeid.TrustDomainFromString(s.Mesh.TrustDomain)
	if err != nil {
		return nil, fmt.Errorf("mesh.trustDomain: %w", err)
	}
	dir, err := state.Open(f.state)
	if err != nil {
		return nil, err
	}
	authority, err := ca.Open(ctx, dir, domain)
	if err != nil {
		return nil, err
	}
	c.authority, c.source = authority, file.New(f.config, s.Mesh)
	c.pipeline = snapshot.New(translate.NewBuilder())
	if err := c.makeDecisions(dir, s); err != nil {
		return nil, err
	}
	c.status = snapshot.NewStatus(c.pipeline)
	if err := snapshot.Register(c.registry, c.pipeline, c.status); err != nil {
		return nil, err
	}
	c.secrets = sds.New(sds.Config{Issuer: authority, Roots: authority, Domain: domain, TTL: s.Identity.SVIDTTL, Failed: c.svidFailed, Refused: c.secretRefused})
	dns, ips := serverNames(f.xds, s.Server.Names)
	c.own, err = ca.NewSource(ctx, authority, ca.Request{ID: identity.ServerID(domain), DNS: dns, IPs: ips})
	if err != nil {
		return nil, err
	}
	if err := c.makeServer(dir, authority, s.Identity.CredentialTTL); err != nil {
		return nil, err
	}
	c.facts = newFacts(c)
	for component, level := range s.Log.Levels {
		if err := l.Set(component, level); err != nil {
			return nil, fmt.Errorf("log.levels: %w", err)
		}
	}
	return c, c.listen()
}

// makeDecisions makes what decides beside Envoy: the issuers' keys, rate limits, OPA.
func (c *controlPlane) makeDecisions(dir *state.Dir, s settings.Settings) error {
	var mapped []jwks.Source
	for _, j := range s.JWKS {
		mapped = append(mapped, jwks.Source{URI: j.URI, File: j.File, URL: j.URL, CAFile: j.CAFile})
	}
	var err error
	if c.keys, err = jwks.New(jwks.Options{Dir: filepath.Join(dir.Path(), "jwks"), Sources: mapped, Registry: c.registry}); err != nil {
		return err
	}
	may := newGrants(c.pipeline)
	limited := identity.Callers{Authenticate: attest.FromContext, May: may.limits}
	if c.limits, err = limit.NewService(limit.NewMemory(limitCells), limit.NewClock(), limited, c.registry); err != nil {
		return err
	}
	c.decisions, err = opa.New(opa.Options{
		Callers: identity.Callers{Authenticate: attest.FromContext, May: may.decides}, Decision: s.OPA.Decision,
	}, c.registry)
	return err
}

// limitCells bounds the counters of the rate limiter that are kept at once: about 100 bytes each.
const limitCells = 1 << 20

// makeServer makes the one TLS port: configuration, attestation, decisions, limits.
func (c *controlPlane) makeServer(dir *state.Dir, authority *ca.Authority, maxTTL time.Duration) error {
	tokens, err := attest.OpenTokens(dir)
	if err != nil {
		return err
	}
	if c.revoked, err = attest.OpenRevocations(dir); err != nil {
		return err
	}
	channel := func() []*x509.Certificate { return []*x509.Certificate{authority.ChannelRoot()} }
	trust := attest.Trust{Domain: authority.TrustDomain(), Mesh: authority, Channel: channel, Revoked: c.revoked.Revoked}
	c.server, err = server.New(server.Options{
		Credentials: attest.Credentials(c.own, trust), Authenticate: attest.FromContext, Views: c.pipeline, Status: c.status,
		Secrets: c.secrets, Log: c.logs.For("xds"),
		GRPC: []grpc.ServerOption{grpc.ChainUnaryInterceptor(trust.Unary), grpc.ChainStreamInterceptor(trust.Stream)},
	})
	if err != nil {
		return err
	}
	attestv1.RegisterAttestationServer(c.server.Registrar(), attest.NewServer(attest.ServerConfig{
		Issuer: authority, Tokens: tokens, Workload: c.workload, MaxTTL: maxTTL, Audit: c.joined,
	}))
	c.decisions.Register(c.server.Registrar())
	c.limits.Register(c.server.Registrar())
	return nil
}

// workload is the identity that a workload has now; false where there is none.
func (c *controlPlane) workload(w identity.Workload) (identity.ID, bool) {
	s := c.pipeline.State(w)
	return s.ID, s.Exists()
}

func (c *controlPlane) joined(w identity.Workload, from string, err error) {
	log := c.logs.For("attest").With(zap.Stringer("proxy", w), zap.String("from", from))
	if err != nil {
		log.Warn("a credential was refused", zap.Error(err))
		return
	}
	log.Info("a credential was issued")
}

func (c *controlPlane) svidFailed(who identity.Workload, id identity.ID, ends time.Time, err error) {
	c.logs.For("identity").Error("an SVID could not be renewed", zap.Stringer("proxy", who), zap.Stringer("id", id), zap.Time("ends", ends), zap.Error(err))
}

func (c *controlPlane) secretRefused(who identity.Workload, _ identity.ID, name string, why error) {
	c.logs.For("identity").Warn("a secret was refused", zap.Stringer("proxy", who), zap.String("secret", name), zap.Error(why))
}

// disconnect closes the streams of proxies whose credential was revoked.
func (c *controlPlane) disconnect() {
	if n := c.server.Disconnect(c.revoked.Revoked); n > 0 {
		c.logs.For("xds").Warn("proxies with revoked credentials were disconnected", zap.Int("proxies", n))
	}
}

// watchAuthority tells, at the start and every hour, when the authority is near its end or its files are damaged.
func (c *controlPlane) watchAuthority(ctx context.Context) error {
	tick := time.NewTicker(time.Hour)
	defer tick.Stop()
	for {
		if err := c.authority.Check(ctx); err != nil && ctx.Err() == nil {
			c.logs.For("identity").Error("the certificate authority needs attention", zap.Error(err))
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

func (c *controlPlane) listen() error {
	var err error
	if c.xds, err = net.Listen("tcp", c.flags.xds); err != nil { //nolint:noctx // opened once, at start
		return fmt.Errorf("--xds-addr: %w", err)
	}
	if c.admin, err = console.Listen(c.flags.admin); err != nil {
		return errors.Join(fmt.Errorf("--admin-addr: %w", err), c.xds.Close())
	}
	return nil
}

// run runs every part until ctx ends or one fails.
func (c *controlPlane) run(ctx context.Context, out io.Writer) error {
	g, ctx := errgroup.WithContext(ctx)
	parts := map[string]func(context.Context) error{
		"configuration": func(ctx context.Context) error { return c.keys.Run(ctx, c.source, c.facts.apply) },
		"pipeline":      c.pipeline.Run,
		"lint":          c.facts.lint,
		"decisions":     c.decisions.Run,
		"own SVID":      c.own.Run,
		"secrets":       c.secrets.Run,
		"revocations":   func(ctx context.Context) error { return c.revoked.Run(ctx, c.disconnect) },
		"authority":     c.watchAuthority,
		"xds":           func(ctx context.Context) error { return c.server.Serve(ctx, c.xds) },
		"admin":         c.serveAdmin,
	}
	for name, run := range parts {
		g.Go(func() error {
			if err := run(ctx); err != nil && !errors.Is(err, context.Canceled) {
				return fmt.Errorf("%s: %w", name, err)
			}
			return nil
		})
	}
	g.Go(func() error { return c.announce(ctx, out) })
	return g.Wait()
}

// announce prints the one line that says that everything is there.
func (c *controlPlane) announce(ctx context.Context, out io.Writer) error {
	select {
	case <-ctx.Done():
		return nil
	case <-c.pipeline.Ready():
	}
	s := c.facts.Status()
	_, err := fmt.Fprintf(out, "credence is ready: %s in force, %s; proxies at %s, admin at %s\n",
		count(s.Objects, "object"), count(s.Workloads, "workload"), c.xds.Addr(), c.admin.Addr())
	return err
}

func (c *controlPlane) serveAdmin(ctx context.Context) error {
	s := &http.Server{Handler: console.Handler(c.facts, c.logs, c.registry), ReadHeaderTimeout: 5 * time.Second}
	stop := context.AfterFunc(ctx, func() { _ = s.Close() }) // what is asked for at the end is not waited for
	defer stop()
	if err := s.Serve(c.admin); !errors.Is(err, http.ErrServerClosed) {
		return err
	}
	return nil
}
