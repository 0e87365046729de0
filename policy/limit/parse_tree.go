package limit

import (
	"fmt"
	"strconv"
	"strings"

	"go.yaml.in/yaml/v3"

	"github.com/credence-mesh/credence/policy"
)

func (p *parser) root(n *yaml.Node) {
	p.mapping(n, "", 0, rootKeys, func(key string, v *yaml.Node) {
		if key == "domain" {
			p.config.Domain = p.text(v, key)
			return
		}
		p.config.Descriptors = p.descriptors(v, key, 1)
	})
	if p.config.Domain == "" {
		p.fail(n.Line, "domain", "RATELIMIT_NO_DOMAIN", "a configuration needs a domain, the one that the rate limit filter asks for", "add `domain: NAME`")
	}
}

func (p *parser) descriptors(n *yaml.Node, field string, depth int) []Descriptor {
	var out []Descriptor
	lines := map[string]policy.Origin{}
	p.sequence(n, field, func(i int, item *yaml.Node) {
		at := fmt.Sprintf("%s[%d]", field, i)
		d := p.descriptor(item, at, depth)
		if first, twice := lines[d.name()]; twice && d.Key != "" {
			p.fail(resolve(item).Line, at, "RATELIMIT_DUPLICATE_DESCRIPTOR",
				fmt.Sprintf("the descriptor %s is already at %s", d.name(), first), "merge the two")
			return
		}
		lines[d.name()] = d.At
		out = append(out, d)
	})
	return out
}

func (p *parser) descriptor(n *yaml.Node, field string, depth int) Descriptor {
	line := resolve(n).Line
	d, before := Descriptor{At: p.place(line)}, len(p.problems)
	p.mapping(n, field, depth, descriptorKeys, func(key string, v *yaml.Node) {
		at := join(field, key)
		switch key {
		case "key":
			d.Key = p.text(v, at)
		case "value":
			d.Value = p.text(v, at)
		case "rate_limit":
			d.Rate = p.rate(v, at, depth+1)
		case "descriptors":
			d.Descriptors = p.descriptors(v, at, depth+1)
		case "shadow_mode":
			d.Shadow = p.flag(v, at)
		case "quota_mode":
			d.Quota = p.flag(v, at)
		case "share_threshold":
			d.ShareThreshold = p.flag(v, at)
		case "detailed_metric", "value_to_metric":
			if p.flag(v, at) {
				p.add(policy.Info, v.Line, at, "RATELIMIT_METRIC_FLAG", key+" has no effect: metrics carry the path of the limit in the configuration, never values of requests",
					"nothing; see docs/limits.md")
			}
		}
	})
	p.checkDescriptor(d, line, field)
	if len(p.problems) == before && !d.Rate.Limits() && len(d.Descriptors) == 0 {
		p.add(policy.Warning, line, field, "RATELIMIT_NO_LIMIT", "the descriptor has neither rate_limit nor descriptors: it limits nothing", "add a rate_limit")
	}
	return d
}

func (p *parser) checkDescriptor(d Descriptor, line int, field string) {
	switch {
	case d.Key == "":
		p.fail(line, join(field, "key"), "RATELIMIT_NO_KEY", "a descriptor needs a key", "add `key: NAME`")
	case strings.HasPrefix(d.Key, ReservedPrefix):
		p.fail(line, join(field, "key"), "RATELIMIT_RESERVED_KEY", "keys that begin with "+ReservedPrefix+" name buckets and are never matched", "choose another key")
	case d.ShareThreshold && !strings.HasSuffix(d.name(), "*"):
		p.fail(line, join(field, "share_threshold"), "RATELIMIT_SHARE_WITHOUT_WILDCARD", "share_threshold needs a value that ends in *", "end the value in *")
	}
}

func (p *parser) rate(n *yaml.Node, field string, depth int) Rate {
	var r Rate
	line, unit, counted, before := resolve(n).Line, "", false, len(p.problems)
	if resolve(n).Tag == "!!null" {
		return r
	}
	p.mapping(n, field, depth, rateKeys, func(key string, v *yaml.Node) {
		at := join(field, key)
		switch key {
		case "unit":
			unit, line = p.text(v, at), v.Line
		case "requests_per_unit":
			r.Requests, counted = p.count(v, at), true
		case "unlimited":
			r.Unlimited = p.flag(v, at)
		case "name":
			r.Name = p.text(v, at)
		case "replaces":
			r.Replaces = p.replaces(v, at, depth+1)
		}
	})
	p.checkRate(&r, line, field, unit)
	if len(p.problems) == before && !counted && !r.Unlimited {
		p.add(policy.Warning, line, join(field, "requests_per_unit"), "RATELIMIT_ZERO", "requests_per_unit is not said, which means 0: all requests are refused", "say how many")
	}
	return r
}

func (p *parser) checkRate(r *Rate, line int, field, unit string) {
	r.Unit = parseUnit(unit)
	switch {
	case r.Unlimited && r.Unit != NoUnit:
		p.fail(line, join(field, "unit"), "RATELIMIT_UNIT", "an unlimited rate has no unit", "remove unit, or unlimited")
	case r.Unlimited && unit != "", !r.Unlimited && r.Unit == NoUnit:
		p.fail(line, join(field, "unit"), "RATELIMIT_UNIT", fmt.Sprintf("%q is no unit", unit), suggestion(strings.ToLower(unit), unitNames[1:]))
	}
	for _, name := range r.Replaces {
		if name == "" || name == r.Name {
			p.fail(line, join(field, "replaces"), "RATELIMIT_REPLACES", "a limit replaces others, each by its name", "name another limit, or remove the entry")
		}
	}
}

func (p *parser) count(n *yaml.Node, field string) uint32 {
	n = resolve(n)
	v, err := strconv.ParseUint(strings.ReplaceAll(n.Value, "_", ""), 0, 32)
	if n.Kind != yaml.ScalarNode || n.Tag != "!!int" || err != nil {
		p.fail(n.Line, field, "RATELIMIT_NUMBER", fmt.Sprintf("%q is no whole number from 0 to 4294967295", n.Value), "write the number of requests")
	}
	return uint32(v)
}

func (p *parser) replaces(n *yaml.Node, field string, depth int) []string {
	var out []string
	p.sequence(n, field, func(i int, item *yaml.Node) {
		name := ""
		p.mapping(item, fmt.Sprintf("%s[%d]", field, i), depth, replacesKeys, func(_ string, v *yaml.Node) { name = p.text(v, field) })
		out = append(out, name)
	})
	return out
}
