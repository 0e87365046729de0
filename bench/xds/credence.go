package main

import (
	"context"
	"errors"
	"net"
	"strconv"
	"strings"
	"sync/atomic"

	"github.com/spiffe/go-spiffe/v2/spiffeid"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/snapshot"
	"github.com/credence-mesh/credence/xds/compile"
	"github.com/credence-mesh/credence/xds/resource"
	"github.com/credence-mesh/credence/xds/server"
)

// credence is our server behind our pipeline; only the translation of policies is simulated, since the peer has none.
type credence struct {
	pipeline   *snapshot.Pipeline
	server     *server.Server
	set        *policy.Set
	workloads  int
	resources  int
	generation atomic.Int64
	shared     []*resource.Resource
}

func newCredence(ctx context.Context, dir string, workloads, resources int) (*credence, error) {
	c := &credence{workloads: workloads, resources: resources}
	for n := range resources - 1 {
		m := shared(n)
		r, err := resource.New(resource.Cluster, m.Name, m)
		if err != nil {
			return nil, err
		}
		c.shared = append(c.shared, r)
	}
	config, err := serverTLS(dir)
	if err != nil {
		return nil, err
	}
	c.pipeline = snapshot.New(c)
	c.server, err = server.New(server.Options{Credentials: credentials.NewTLS(config), Authenticate: proven, Views: c.pipeline,
		Status: snapshot.NewStatus(c.pipeline)})
	if err != nil {
		return nil, err
	}
	go func() { _ = c.pipeline.Run(ctx) }() // it ends with ctx, and only so
	var entries []policy.Resource
	for n := range workloads {
		entries = append(entries, c.entry(n))
	}
	c.set = policy.NewSet(policy.DefaultMesh()).Apply(entries, nil)
	c.pipeline.Put(c.set, nil)
	<-c.pipeline.Ready()
	return c, nil
}

func proven(ctx context.Context) (identity.Proven, error) {
	p, ok := peer.FromContext(ctx)
	if !ok {
		return identity.Proven{}, errors.New("no peer")
	}
	info, ok := p.AuthInfo.(credentials.TLSInfo)
	if !ok || len(info.State.PeerCertificates) == 0 {
		return identity.Proven{}, errors.New("no certificate")
	}
	leaf := info.State.PeerCertificates[0]
	id, err := spiffeid.FromURI(leaf.URIs[0])
	return identity.Proven{ID: id, NotAfter: leaf.NotAfter}, err
}

func (c *credence) entry(n int) *policy.WorkloadEntry {
	e := &policy.WorkloadEntry{Spec: &networkingv1alpha3.WorkloadEntry{ServiceAccount: workloadName(n)}}
	e.Key = policy.Key{Kind: policy.KindWorkloadEntry, Namespace: "prod", Name: workloadName(n)}
	e.Digest = uint64(c.generation.Load())
	return e
}

// Parts implements snapshot.Builder.
func (c *credence) Parts(_ *policy.Set, w *policy.Workload) []compile.PartKey {
	return []compile.PartKey{{Kind: compile.InboundPart, Namespace: w.Namespace, Name: w.Name}, {Kind: compile.OutboundPart, Namespace: w.Namespace}}
}

// Build implements snapshot.Builder.
func (c *credence) Build(set *policy.Set, k compile.PartKey) ([]*resource.Resource, []policy.Problem, error) {
	if k.Kind == compile.OutboundPart {
		return c.shared, nil, nil
	}
	e, _ := policy.Get[*policy.WorkloadEntry](set, k.Namespace, k.Name)
	n, err := strconv.Atoi(strings.TrimPrefix(k.Name, "w"))
	if err != nil {
		return nil, nil, err
	}
	m := own(n, int(e.Digest))
	r, err := resource.New(resource.Cluster, m.Name, m)
	return []*resource.Resource{r}, nil, err
}

// Affected implements snapshot.Builder.
func (c *credence) Affected(_, _ *policy.Set, changes []policy.Change) compile.Affected {
	a := compile.Affected{Parts: map[compile.PartKey]bool{}}
	for _, x := range changes {
		k := x.New.Meta().Key
		a.Parts[compile.PartKey{Kind: compile.InboundPart, Namespace: k.Namespace, Name: k.Name}] = true
	}
	return a
}

func (c *credence) edit(n int) error {
	c.generation.Add(1)
	var put []policy.Resource
	for i := range n {
		put = append(put, c.entry(i))
	}
	c.set = c.set.Apply(put, nil)
	c.pipeline.Put(c.set, nil)
	return nil
}

func (c *credence) editAll() error { return c.edit(c.workloads) }
func (c *credence) editOne() error { return c.edit(1) }

func (c *credence) serve(ctx context.Context, l net.Listener) error { return c.server.Serve(ctx, l) }
