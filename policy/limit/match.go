package limit

import (
	"encoding/binary"
	"strings"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
)

// node is a descriptor, made ready for matching.
type node struct {
	children  map[string]*node
	wildcards []string // names of children that end in "*", in the order of the configuration
	wildcard  string   // the value to share a bucket under, where share_threshold is on
	limit     *rule    // nil: no limit at this depth
}

// rule is a limit as it applies to one descriptor of a request.
type rule struct {
	Rate
	path          string // of the limit in the configuration: "free.path_/search"; a label of metrics
	shadow, quota bool
	current       *rlsv3.RateLimitResponse_RateLimit // shared by all answers, never changed
}

// compile makes the tree of one configuration.
func compile(c Config) *node {
	root := &node{}
	root.add(c.Descriptors, "")
	return root
}

func (n *node) add(descriptors []Descriptor, path string) {
	n.children = make(map[string]*node, len(descriptors))
	for _, d := range descriptors {
		name := d.name()
		child := &node{}
		if strings.HasSuffix(name, "*") {
			n.wildcards = append(n.wildcards, name)
			if d.ShareThreshold {
				child.wildcard = strings.TrimPrefix(name, d.Key+"_")
			}
		}
		if d.Rate.Limits() {
			child.limit = newRule(d.Rate, path+name)
			child.limit.shadow, child.limit.quota = d.Shadow, d.Quota
		}
		child.add(d.Descriptors, path+name+".")
		n.children[name] = child
	}
}

func newRule(r Rate, path string) *rule {
	return &rule{Rate: r, path: path, current: &rlsv3.RateLimitResponse_RateLimit{
		Name: r.Name, RequestsPerUnit: r.Requests, Unit: rlsv3.RateLimitResponse_RateLimit_Unit(r.Unit),
	}}
}

// match finds the limit of a descriptor, and the values that share a bucket under a wildcard. The limit applies only where the entries end: a
// descriptor with more entries than the configuration has levels has no limit. At each level the exact value is sought first, then the
// wildcards in their order, then the key alone.
func (n *node) match(entries []*ratelimitv3.RateLimitDescriptor_Entry) (*rule, map[int]string) {
	var shared map[int]string
	for i, e := range entries {
		next := n.child(e)
		if next == nil {
			return nil, nil
		}
		if next.wildcard != "" {
			if shared == nil {
				shared = map[int]string{}
			}
			shared[i] = next.wildcard
		}
		if i == len(entries)-1 {
			return next.limit, shared
		}
		if len(next.children) == 0 {
			return nil, nil
		}
		n = next
	}
	return nil, nil
}

func (n *node) child(e *ratelimitv3.RateLimitDescriptor_Entry) *node {
	name := e.GetKey() + "_" + e.GetValue()
	if c := n.children[name]; c != nil {
		return c
	}
	for _, w := range n.wildcards {
		if strings.HasPrefix(name, w[:len(w)-1]) {
			return n.children[w]
		}
	}
	return n.children[e.GetKey()]
}

// split separates what is matched from what only names the bucket.
func split(entries []*ratelimitv3.RateLimitDescriptor_Entry) (matched, reserved []*ratelimitv3.RateLimitDescriptor_Entry) {
	n := 0
	for _, e := range entries {
		if strings.HasPrefix(e.GetKey(), ReservedPrefix) {
			n++
		}
	}
	if n == 0 {
		return entries, nil
	}
	matched = make([]*ratelimitv3.RateLimitDescriptor_Entry, 0, len(entries)-n)
	reserved = make([]*ratelimitv3.RateLimitDescriptor_Entry, 0, n)
	for _, e := range entries {
		if strings.HasPrefix(e.GetKey(), ReservedPrefix) {
			reserved = append(reserved, e)
		} else {
			matched = append(matched, e)
		}
	}
	return matched, reserved
}

// bucketKey names the counter of a descriptor. Every part carries its length, so that no value can be mistaken for two.
func bucketKey(domain string, unit Unit, matched, reserved []*ratelimitv3.RateLimitDescriptor_Entry, shared map[int]string) string {
	b := make([]byte, 0, 128)
	b = append(b, byte(unit))
	b = appendPart(b, domain)
	for i, e := range matched {
		value := e.GetValue()
		if w, ok := shared[i]; ok {
			value = w
		}
		b = appendPart(appendPart(b, e.GetKey()), value)
	}
	for _, e := range reserved {
		b = appendPart(appendPart(b, e.GetKey()), e.GetValue())
	}
	return string(b)
}

func appendPart(b []byte, s string) []byte {
	return append(binary.AppendUvarint(b, uint64(len(s))), s...)
}
