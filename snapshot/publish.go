package snapshot

import (
	"fmt"
	"slices"
	"time"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/compile"
)

// publish gives each workload its view. Workloads with equal layers get the very same view.
func (p *Pipeline) publish(dirty map[*workload]struct{}) {
	views := newViewSet()
	for w := range dirty {
		if w.err != nil {
			w.class.publish(State{})
			continue
		}
		layers, complete := p.layers(w)
		if !complete {
			w.class.publish(State{ID: w.id})
			continue
		}
		old := w.class.load()
		s := State{ID: w.id, View: old.View}
		if old.View == nil || !slices.Equal(old.View.layers, layers) {
			s.View = views.of(layers)
		}
		w.class.publish(s)
		if old.View != nil && old.View != s.View {
			old.View.supersede()
		}
	}
}

// layers are the good layers of a workload's parts; false while one of them is to be built.
func (p *Pipeline) layers(w *workload) ([]*Layer, bool) {
	out := make([]*Layer, 0, len(w.parts))
	for _, k := range w.parts {
		part := p.parts[k]
		if part.stale {
			return nil, false
		}
		if part.layer != nil {
			out = append(out, part.layer)
		}
	}
	return out, true
}

// viewSet finds the one view of equal layers among those that are published together.
type viewSet struct{ byFirst map[*Layer][]*View }

func newViewSet() *viewSet { return &viewSet{byFirst: map[*Layer][]*View{}} }

func (s *viewSet) of(layers []*Layer) *View {
	var first *Layer
	if len(layers) > 0 {
		first = layers[0]
	}
	for _, v := range s.byFirst[first] {
		if slices.Equal(v.layers, layers) {
			return v
		}
	}
	v := newView(layers)
	s.byFirst[first] = append(s.byFirst[first], v)
	return v
}

// tell publishes the report.
func (p *Pipeline) tell(start time.Time) {
	r := &Report{Parts: len(p.parts), Workloads: len(p.workloads), Published: p.report.Load().Published + 1, Took: time.Since(start)}
	r.told = append(r.told, p.problems)
	var own []policy.Problem
	for k := range p.telling {
		part := p.parts[k]
		r.told = append(r.told, part.problems)
		if part.err == nil {
			continue
		}
		if part.layer != nil {
			r.Kept = append(r.Kept, k)
		} else {
			r.Withheld = append(r.Withheld, k)
		}
		own = append(own, p.failure(k, part))
	}
	for w := range p.unnamed {
		own = append(own, policy.Problem{At: w.at.At, Object: w.at.Key.String(), Code: "WORKLOAD_WITHOUT_IDENTITY",
			Says: "no SPIFFE ID can be made for this workload, so its proxies are refused: " + w.err.Error(),
			Try:  "use a namespace and a service account of letters, digits, '.', '-' and '_'"})
	}
	r.told = append(r.told, own)
	slices.SortFunc(r.Kept, comparePart)
	slices.SortFunc(r.Withheld, comparePart)
	p.report.Store(r)
}

// failure tells the user that a part could not be built, and what its proxies have instead.
func (p *Pipeline) failure(k compile.PartKey, part *part) policy.Problem {
	pr := policy.Problem{Object: PartName(k), Code: "BUILD_FAILED_LAST_GOOD_KEPT",
		Says: fmt.Sprintf("could not be built (%v); its proxies keep the last good configuration", part.err),
		Try:  "undo the last change, or correct the object that the error names"}
	if part.layer == nil {
		pr.Code = "BUILD_FAILED_WITHHELD"
		pr.Says = fmt.Sprintf("could not be built (%v), and there is no earlier good configuration: its proxies get none of it", part.err)
		pr.Try = "correct the object that the error names"
	}
	for w := range part.users {
		if pr.At.File == "" || w.at.At.String() < pr.At.String() {
			pr.At = w.at.At
		}
	}
	return pr
}

// PartName is how a part is shown to users.
func PartName(k compile.PartKey) string {
	kind := [...]string{compile.InboundPart: "inbound", compile.OutboundPart: "outbound", compile.GatewayPart: "gateway"}[k.Kind]
	if k.Name == "" {
		return kind + " configuration of namespace " + k.Namespace
	}
	return kind + " configuration of " + k.Namespace + "/" + k.Name
}
