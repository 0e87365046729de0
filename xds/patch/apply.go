package patch

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/xds/filter"
	"github.com/credence-mesh/credence/xds/ir"
	"github.com/credence-mesh/credence/xds/resource"
)

// Settings is what patching needs to know beside the resources.
type Settings struct {
	Direction     ir.Direction
	RootNamespace string
	Check         func(*resource.Messages) error               // what the resources must pass after every patch
	Weaker        func(before, after *resource.Messages) error // what guards less after a patch than before it
	Limits        func() map[string][]filter.Limit             // the rate limit configurations, by domain; called where a filter needs one
}

// Apply applies EnvoyFilters to resources. A patch that cannot be read, or after which the resources no longer pass the check, is left out
// alone, and told.
func Apply(m *resource.Messages, filters []*policy.EnvoyFilter, s Settings) (*resource.Messages, []policy.Problem) {
	a := &applier{settings: s, messages: m}
	list := a.patches(filters)
	if len(list) == 0 {
		return m, nil
	}
	if slices.ContainsFunc(list, editsShared) {
		a.messages = m.Clone()
		if err := a.messages.Thaw(); err != nil {
			for _, p := range list {
				a.problem(p, policy.Problem{Field: p.field(".patch"), Code: "ENVOYFILTER_INVALID", Says: err.Error() + "; the patch is left out", Try: "report this"})
			}
			return m, a.problems
		}
	}
	for _, p := range list {
		a.apply(p)
	}
	return a.messages, a.problems
}

// editsShared tells whether a patch is about clusters or routes, which parts share.
func editsShared(p *one) bool {
	n := phase(p.spec.ApplyTo)
	return n >= 0 && n <= phase(networkingv1alpha3.EnvoyFilter_HTTP_ROUTE)
}

// applier holds the resources as patched so far.
type applier struct {
	settings Settings
	messages *resource.Messages
	problems []policy.Problem
}

// one is one patch of one EnvoyFilter.
type one struct {
	object  *policy.EnvoyFilter
	index   int
	spec    *networkingv1alpha3.EnvoyFilter_EnvoyConfigObjectPatch
	matched int // how many places it changed
}

func (p *one) field(rest string) string {
	return fmt.Sprintf("spec.configPatches[%d]%s", p.index, rest)
}

func (p *one) source() resource.Source {
	return resource.Source{Object: p.object.Key.String(), At: p.object.At.String()}
}

// phase: what is referred to is patched before what refers to it.
func phase(t networkingv1alpha3.EnvoyFilter_ApplyTo) int {
	return slices.Index([]networkingv1alpha3.EnvoyFilter_ApplyTo{
		networkingv1alpha3.EnvoyFilter_CLUSTER, networkingv1alpha3.EnvoyFilter_ROUTE_CONFIGURATION, networkingv1alpha3.EnvoyFilter_VIRTUAL_HOST,
		networkingv1alpha3.EnvoyFilter_HTTP_ROUTE, networkingv1alpha3.EnvoyFilter_LISTENER, networkingv1alpha3.EnvoyFilter_FILTER_CHAIN,
		networkingv1alpha3.EnvoyFilter_NETWORK_FILTER, networkingv1alpha3.EnvoyFilter_HTTP_FILTER,
	}, t)
}

// patches is what applies to this direction, in Istio's order: the root namespace first, then by priority, age and name.
func (a *applier) patches(filters []*policy.EnvoyFilter) []*one {
	filters = slices.Clone(filters)
	slices.SortFunc(filters, func(x, y *policy.EnvoyFilter) int {
		return cmp.Or(
			compareBool(y.Key.Namespace == a.settings.RootNamespace, x.Key.Namespace == a.settings.RootNamespace),
			cmp.Compare(x.Spec.GetPriority(), y.Spec.GetPriority()), x.Created.Compare(y.Created),
			cmp.Compare(x.Key.Name, y.Key.Name), cmp.Compare(x.Key.Namespace, y.Key.Namespace),
		)
	})
	var out []*one
	for _, f := range filters {
		for i, spec := range f.Spec.GetConfigPatches() {
			p := &one{object: f, index: i, spec: spec}
			if a.concerns(p) {
				out = append(out, p)
			}
		}
	}
	slices.SortStableFunc(out, func(x, y *one) int { return cmp.Compare(phase(x.spec.ApplyTo), phase(y.spec.ApplyTo)) })
	return out
}

func compareBool(x, y bool) int {
	switch {
	case x == y:
		return 0
	case x:
		return 1
	default:
		return -1
	}
}

// concerns tells whether a patch is about this direction.
func (a *applier) concerns(p *one) bool {
	var in ir.Direction
	switch p.spec.GetMatch().GetContext() {
	case networkingv1alpha3.EnvoyFilter_ANY:
		in = a.settings.Direction
	case networkingv1alpha3.EnvoyFilter_SIDECAR_INBOUND:
		in = ir.Inbound
	case networkingv1alpha3.EnvoyFilter_SIDECAR_OUTBOUND:
		in = ir.Outbound
	case networkingv1alpha3.EnvoyFilter_GATEWAY:
		in = ir.Edge
	default:
		return false
	}
	return in == a.settings.Direction
}

func (a *applier) problem(p *one, said policy.Problem) {
	said.Object = p.object.Key.String()
	said.At = p.object.Where(said.Field)
	a.problems = append(a.problems, said)
}

// apply tries a patch on a copy, which is kept only where it passes the check.
func (a *applier) apply(p *one) {
	if len(p.spec.GetMatch().GetProxy().GetMetadata()) > 0 {
		a.problem(p, policy.Problem{
			Field: p.field(".match.proxy.metadata"), Code: "ENVOYFILTER_PROXY_METADATA", Severity: policy.Warning,
			Says: "proxies have no metadata here, so the patch applies to none", Try: "select the workload by spec.workloadSelector",
		})
		return
	}
	t := &trial{one: p, applier: a, messages: a.messages.Clone()}
	before := len(a.problems)
	if err := t.run(); err != nil {
		a.refuse(p, before, "ENVOYFILTER_INVALID", err)
		return
	}
	if p.matched == 0 {
		if p.spec.GetMatch().GetContext() != networkingv1alpha3.EnvoyFilter_ANY {
			a.problem(p, policy.Problem{
				Field: p.field(".match"), Code: "ENVOYFILTER_NO_MATCH", Severity: policy.Warning,
				Says: "the patch matches nothing at a workload that it applies to", Try: "compare names and ports with `credence config-dump`",
			})
		}
		return
	}
	if err := a.settings.Check(t.messages); err != nil {
		a.refuse(p, before, "ENVOYFILTER_QUARANTINED", err)
		return
	}
	if err := a.settings.Weaker(a.messages, t.messages); err != nil && !a.waived(p, err) {
		a.refuse(p, before, "ENVOYFILTER_WEAKER_GUARDS", err)
		return
	}
	a.messages = t.messages
}

// AnnotationWeaker on an EnvoyFilter is the reason why its patches may make guards weaker.
const AnnotationWeaker = "credence.dev/allow-weaker-guards"

// waived tells whether the author of a patch that makes guards weaker has said why; it is told all the same.
func (a *applier) waived(p *one, err error) bool {
	reason := strings.TrimSpace(p.object.Annotations[AnnotationWeaker])
	if reason == "" {
		return false
	}
	a.problem(p, policy.Problem{
		Field: p.field(".patch"), Code: "ENVOYFILTER_WEAKER_GUARDS", Severity: policy.Warning,
		Says: fmt.Sprintf("%v; the patch is in force because: %s", err, reason), Try: "write a policy instead",
	})
	return true
}

// refuse leaves a patch out; what was told about it while it was tried no longer matters.
func (a *applier) refuse(p *one, before int, code string, err error) {
	a.problems = a.problems[:before]
	try := "compare it with Envoy's reference of the message"
	if code == "ENVOYFILTER_WEAKER_GUARDS" {
		try = "write a policy instead; where it must be, annotate the EnvoyFilter with " + AnnotationWeaker + ": \"<reason>\""
	}
	a.problem(p, policy.Problem{
		Field: p.field(".patch"), Code: code, Says: err.Error() + "; the patch is left out", Try: try,
	})
}

// trial is a patch being applied to a copy of the resources.
type trial struct {
	*one
	applier  *applier
	messages *resource.Messages
}

func (t *trial) run() error {
	switch to := t.spec.GetApplyTo(); to {
	case networkingv1alpha3.EnvoyFilter_CLUSTER:
		return t.clusters()
	case networkingv1alpha3.EnvoyFilter_ROUTE_CONFIGURATION, networkingv1alpha3.EnvoyFilter_VIRTUAL_HOST, networkingv1alpha3.EnvoyFilter_HTTP_ROUTE:
		return t.tables()
	case networkingv1alpha3.EnvoyFilter_LISTENER:
		return t.listeners()
	case networkingv1alpha3.EnvoyFilter_FILTER_CHAIN:
		return t.chains(t.chain)
	case networkingv1alpha3.EnvoyFilter_NETWORK_FILTER:
		return t.chains(t.network)
	case networkingv1alpha3.EnvoyFilter_HTTP_FILTER:
		return t.chains(t.http)
	default:
		return fmt.Errorf("applyTo %s is not supported", to)
	}
}

func (t *trial) operation() networkingv1alpha3.EnvoyFilter_Patch_Operation {
	return t.spec.GetPatch().GetOperation()
}

// changed counts a place, and remembers for a resource that this EnvoyFilter is behind it.
func (t *trial) changed(kind resource.Type, name string) {
	t.matched++
	t.messages.From(kind, name, t.source())
}
