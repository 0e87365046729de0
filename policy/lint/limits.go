package lint

import (
	"fmt"
	"slices"
	"strings"

	"go.yaml.in/yaml/v3"
	"google.golang.org/protobuf/types/known/structpb"
	networkingv1alpha3 "istio.io/api/networking/v1alpha3"

	"github.com/credence-mesh/credence/policy"
)

// descriptor is a node of envoyproxy/ratelimit's configuration, with the line of its key.
type descriptor struct {
	key     string
	line    int
	limited bool
	below   []descriptor
}

// config is one configuration of the rate limiter.
type config struct {
	object *policy.Object
	field  string
	domain string
	line   int // of the domain, in the file
	top    []descriptor
}

// limits finds global rate limits that limit nothing, or not what was meant.
func (l *linter) limits() {
	configs := l.configs()
	used := map[string]bool{}
	for f := range policy.All[*policy.EnvoyFilter](l.set) {
		for i, p := range f.Spec.GetConfigPatches() {
			l.patch(f, fmt.Sprintf("spec.configPatches[%d]", i), p.GetPatch(), configs, used)
		}
	}
	for _, c := range configs {
		if !used[c.domain] {
			l.at(c, c.line, finding{CodeLimitUnusedDomain, policy.Warning, fmt.Sprintf("no EnvoyFilter has a ratelimit filter of domain %q: these limits hold nowhere", c.domain), "domain: " + c.domain + " in the filter, or the filter's domain here"})
		}
		for _, d := range c.top {
			l.shared(c, d)
		}
	}
}

func (l *linter) at(c config, line int, f finding) {
	l.found = append(l.found, policy.Problem{
		At: policy.Origin{File: c.object.At.File, Line: line}, Object: c.object.Key.String(), Field: c.field,
		Code: f.code, Severity: f.severity, Says: f.says, Try: f.try,
	})
}

func (l *linter) patch(f *policy.EnvoyFilter, at string, p *networkingv1alpha3.EnvoyFilter_Patch, configs []config, used map[string]bool) {
	name := p.GetValue().GetFields()["name"].GetStringValue()
	value := at + ".patch.value"
	switch {
	case strings.HasSuffix(name, ".buffer"):
		l.warn(&f.Object, value+".name", CodeBufferStreaming, "select only workloads without gRPC and streaming, or switch it off on their routes",
			"the buffer filter holds every request until its body is complete: gRPC streams and uploads in pieces stop working")
	case strings.HasSuffix(name, ".http.ratelimit"):
		l.globalLimit(f, value, p.GetValue().GetFields()["typed_config"].GetStructValue(), configs, used)
	}
}

func (l *linter) globalLimit(f *policy.EnvoyFilter, value string, typed *structpb.Struct, configs []config, used map[string]bool) {
	domain := typed.GetFields()["domain"].GetStringValue()
	used[domain] = true
	if !l.patched(f, func(p *networkingv1alpha3.EnvoyFilter_EnvoyConfigObjectPatch) bool {
		return mentions(p.GetPatch().GetValue(), "rate_limits")
	}) {
		l.warn(&f.Object, value+".typed_config", CodeLimitWithoutActions, "nothing, or say rate_limits in the filter or by a VIRTUAL_HOST patch to choose the descriptors yourself",
			"no route has rate_limits actions, so that in Istio nothing would be counted; here the descriptors of domain %q are made from verified claims and the path", domain)
	}
	cluster := text(typed, "rate_limit_service", "grpc_service", "envoy_grpc", "cluster_name")
	defined := l.patched(f, func(p *networkingv1alpha3.EnvoyFilter_EnvoyConfigObjectPatch) bool {
		return p.GetApplyTo() == networkingv1alpha3.EnvoyFilter_CLUSTER && text(p.GetPatch().GetValue(), "name") == cluster
	})
	if cluster != "" && !defined && !strings.HasPrefix(cluster, "outbound|") {
		l.warn(&f.Object, value+".typed_config.rate_limit_service.grpc_service.envoy_grpc.cluster_name", CodeLimitWithoutCluster,
			"add the cluster (applyTo: CLUSTER), or keep to the limiter that is built in",
			"no cluster %q is defined, so that in Istio every call would fail; here the limiter that is built in answers", cluster)
	}
	if !slices.ContainsFunc(configs, func(c config) bool { return c.domain == domain }) {
		l.warn(&f.Object, value+".typed_config.domain", CodeLimitUnknownDomain, "add a ConfigMap or a file with domain: "+domain,
			"no configuration has domain %q: nothing is limited", domain)
	}
}

func (l *linter) patched(f *policy.EnvoyFilter, is func(*networkingv1alpha3.EnvoyFilter_EnvoyConfigObjectPatch) bool) bool {
	for _, g := range inScope[*policy.EnvoyFilter](l, f.Key.Namespace) {
		if slices.ContainsFunc(g.Spec.GetConfigPatches(), is) {
			return true
		}
	}
	return false
}

func text(s *structpb.Struct, steps ...string) string {
	for _, step := range steps[:len(steps)-1] {
		s = s.GetFields()[step].GetStructValue()
	}
	return s.GetFields()[steps[len(steps)-1]].GetStringValue()
}

// mentions tells whether a field of this name is anywhere in a value.
func mentions(s *structpb.Struct, field string) bool {
	for k, v := range s.GetFields() {
		if k == field || mentions(v.GetStructValue(), field) {
			return true
		}
		for _, item := range v.GetListValue().GetValues() {
			if mentions(item.GetStructValue(), field) {
				return true
			}
		}
	}
	return false
}

// shared finds a limit per class of customers that all customers of the class share.
func (l *linter) shared(c config, d descriptor) {
	if !class(d.key) || !d.limited || slices.ContainsFunc(d.below, func(b descriptor) bool { return single(b.key) }) {
		return
	}
	l.at(c, d.line, finding{
		CodeLimitSharedBucket, policy.Warning,
		"envoyproxy/ratelimit counts all customers of a tier together, so that one can use up what the others are entitled to; here the descriptors that are generated name the customer, from a verified claim, and each has a count of its own",
		"nothing here; for other limiters, or with rate_limits actions of your own, put a descriptor without a value around it: key: tenant_id",
	})
}

func class(key string) bool {
	return strings.Contains(key, "tier") || strings.Contains(key, "plan")
}

// single tells whether a descriptor key stands for one customer.
func single(key string) bool {
	for _, part := range []string{"tenant", "customer", "client", "user", "subject", "account", "api_key", "remote_address", "org"} {
		if strings.Contains(key, part) {
			return true
		}
	}
	return key == "sub"
}

func (l *linter) configs() []config {
	var out []config
	for r := range policy.All[*policy.RateLimit](l.set) {
		if c, first, ok := parse(r.Config); ok {
			c.object = &r.Object
			out = append(out, c.shift(r.At.Line-first))
		}
	}
	for m := range policy.All[*policy.ConfigMap](l.set) {
		for key, value := range m.Data {
			if c, _, ok := parse(value); ok {
				c.object, c.field = &m.Object, "data["+key+"]"
				out = append(out, c.shift(m.Where(c.field).Line)) // the text starts below its key
			}
		}
	}
	return out
}

// parse reads a text as a configuration, and tells the line of its first field.
func parse(value string) (c config, first int, ok bool) {
	var doc yaml.Node
	if !strings.Contains(value, "descriptors") || yaml.Unmarshal([]byte(value), &doc) != nil || len(doc.Content) == 0 {
		return config{}, 0, false
	}
	root := doc.Content[0]
	for i := 0; i+1 < len(root.Content); i += 2 {
		switch root.Content[i].Value {
		case "domain":
			c.domain, c.line = root.Content[i+1].Value, root.Content[i].Line
		case "descriptors":
			c.top = descriptors(root.Content[i+1])
			ok = true
		}
	}
	return c, root.Line, ok && c.domain != ""
}

func descriptors(list *yaml.Node) []descriptor {
	var out []descriptor
	for _, n := range list.Content {
		d := descriptor{line: n.Line}
		for i := 0; i+1 < len(n.Content); i += 2 {
			switch n.Content[i].Value {
			case "key":
				d.key = n.Content[i+1].Value
			case "rate_limit":
				d.limited = true
			case "descriptors":
				d.below = descriptors(n.Content[i+1])
			}
		}
		out = append(out, d)
	}
	return out
}

func (c config) shift(lines int) config {
	c.line += lines
	for i := range c.top {
		c.top[i].line += lines
	}
	return c
}
