// Package offline is a mesh without its control plane: resources are read and built as `credence serve` would, and requests are put to what the
// proxies would get. Nothing is contacted: of key sets, those in files and in policies are known.
package offline

import (
	"context"
	"fmt"
	"os"
	"sync"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/credence-mesh/credence/internal/settings"
	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/explain"
	"github.com/credence-mesh/credence/policy/jwt"
	"github.com/credence-mesh/credence/policy/opa"
	"github.com/credence-mesh/credence/policy/source/file"
	"github.com/credence-mesh/credence/xds/compile"
	"github.com/credence-mesh/credence/xds/resource"
	"github.com/credence-mesh/credence/xds/translate"
)

// Mesh is what a set of resources means. It is safe for concurrent use.
type Mesh struct {
	set       *policy.Set
	builder   *translate.Builder
	decisions *opa.Service
	mu        sync.Mutex
	configs   map[string]*explain.Config // by workload
}

// Open reads files and directories. Problems are about what users wrote; the mesh is complete in spite of them.
func Open(s settings.Settings, paths ...string) (*Mesh, []policy.Problem, error) {
	set, problems, err := file.Load(s.Mesh, paths...)
	if err != nil {
		return nil, nil, err
	}
	keys, more, err := keySets(s.JWKS)
	if err != nil {
		return nil, nil, err
	}
	m, told, err := New(set.Apply(keys, nil), s.OPA.Decision)
	return m, append(append(problems, more...), told...), err
}

// New is the mesh of a set. decision is the OPA decision of the settings.
func New(set *policy.Set, decision string) (*Mesh, []policy.Problem, error) {
	decisions, err := opa.New(opa.Options{Decision: decision}, prometheus.NewRegistry())
	if err != nil {
		return nil, nil, err
	}
	return &Mesh{set: set, builder: translate.NewBuilder(), decisions: decisions, configs: map[string]*explain.Config{}}, decisions.Update(set), nil
}

// keySets reads the key sets that the settings give as files.
func keySets(from []settings.JWKS) ([]policy.Resource, []policy.Problem, error) {
	var out []policy.Resource
	var problems []policy.Problem
	for _, j := range from {
		if j.File == "" {
			continue
		}
		b, err := os.ReadFile(j.File)
		if err != nil {
			return nil, nil, fmt.Errorf("jwks of %s: %w", j.URI, err)
		}
		keys, err := jwt.PublicKeys(b)
		if err != nil {
			problems = append(problems, policy.Problem{
				At: policy.Origin{File: j.File}, Object: "credence.yaml", Field: "jwks", Code: "JWKS_UNUSABLE", Says: err.Error(),
				Try: "the issuer's public keys as a JSON Web Key Set",
			})
			continue
		}
		out = append(out, &policy.JWKS{Object: policy.Object{Key: policy.Key{Kind: policy.KindJWKS, Name: j.URI}, At: policy.Origin{File: j.File}}, Document: keys})
	}
	return out, problems, nil
}

// Set is the resources.
func (m *Mesh) Set() *policy.Set { return m.set }

// Config is what the proxies of a workload get for the connections that come in.
func (m *Mesh) Config(w *policy.Workload) (*explain.Config, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if c, ok := m.configs[w.String()]; ok {
		return c, nil
	}
	resources, err := m.Resources(w)
	if err != nil {
		return nil, err
	}
	c, err := explain.Read(resources)
	if err == nil {
		m.configs[w.String()] = c
	}
	return c, err
}

// Resources is what the proxies of a workload get for the connections that come in.
func (m *Mesh) Resources(w *policy.Workload) ([]*resource.Resource, error) {
	var out []*resource.Resource
	for _, k := range m.builder.Parts(m.set, w) {
		if k.Kind == compile.OutboundPart {
			continue
		}
		resources, _, err := m.builder.Build(m.set, k)
		if err != nil {
			return nil, fmt.Errorf("workload %s cannot be built: %w", w, err)
		}
		out = append(out, resources...)
	}
	return out, nil
}

// Explain puts a request to a workload.
func (m *Mesh) Explain(ctx context.Context, namespace, name string, req explain.Request) (explain.Verdict, error) {
	w, ok := m.set.Workload(namespace, name)
	if !ok {
		return explain.Verdict{}, fmt.Errorf("no workload %s/%s: neither a WorkloadEntry nor a Gateway has that name", namespace, name)
	}
	c, err := m.Config(w)
	if err != nil {
		return explain.Verdict{}, err
	}
	if req.Host == "" {
		req.Host = name + "." + namespace
	}
	return c.Explain(ctx, m.set, m.decisions.Local(), req), nil
}
