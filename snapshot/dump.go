package snapshot

import (
	"context"
	"encoding/json"
	"fmt"

	"google.golang.org/protobuf/encoding/protojson"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/xds/resource"
)

// Dump is all that the proxies of a workload are given, for people. Secrets are not part of it: they are in no view.
type Dump struct {
	Workload  string         `json:"workload"`
	Identity  string         `json:"identity"`
	Resources []DumpResource `json:"resources"`
}

// DumpResource is one resource of a Dump.
type DumpResource struct {
	Type    string          `json:"type"`
	Name    string          `json:"name"`
	Version string          `json:"version"`
	Sources []string        `json:"sources,omitempty"`
	Body    json.RawMessage `json:"body,omitempty"` // null where it cannot be shown
	Error   string          `json:"error,omitempty"`
}

// Dump shows what the proxies of a workload are given now. A part that no connected proxy needs is built for it.
func (p *Pipeline) Dump(ctx context.Context, w identity.Workload) (Dump, error) {
	wake := make(chan struct{}, 1)
	sub, ok := p.Subscribe(w, func() {
		select {
		case wake <- struct{}{}:
		default:
		}
	})
	if !ok {
		return Dump{}, fmt.Errorf("no workload %s: a WorkloadEntry or a Gateway of that name is needed", w)
	}
	defer sub.Close()
	for sub.State().View == nil {
		if !sub.State().Exists() {
			return Dump{}, fmt.Errorf("workload %s has no identity", w)
		}
		select {
		case <-wake:
		case <-ctx.Done():
			return Dump{}, ctx.Err()
		}
	}
	s := sub.State()
	d := Dump{Workload: w.String(), Identity: s.ID.String()}
	for t := range resource.NumTypes {
		for _, i := range s.View.List(t) {
			d.Resources = append(d.Resources, dumpItem(i))
		}
	}
	return d, nil
}

func dumpItem(i *Item) DumpResource {
	out := DumpResource{Type: i.Type.String(), Name: i.Name, Version: i.Version}
	for _, s := range i.Sources {
		out.Sources = append(out.Sources, s.String())
	}
	if i.Private {
		out.Error = "private: not shown"
		return out
	}
	body, err := protojson.Marshal(i.Body)
	if err != nil {
		out.Error = err.Error()
		return out
	}
	out.Body = body
	return out
}
