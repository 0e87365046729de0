package limit

import (
	"math"
	"slices"

	ratelimitv3 "github.com/envoyproxy/go-control-plane/envoy/extensions/common/ratelimit/v3"
	rlsv3 "github.com/envoyproxy/go-control-plane/envoy/service/ratelimit/v3"
	"google.golang.org/protobuf/types/known/durationpb"
)

// maxAddend bounds what one descriptor of one request counts, so that no single call empties a large quota.
const maxAddend = 1000

// decision is one request on its way through the limits.
type decision struct {
	owner  string // the workload that asks
	req    *rlsv3.RateLimitRequest
	root   *node
	known  bool // the domain is configured; the limits of one that is not are none
	limits []*rule
	keys   []string
	hits   []Hit
	counts []uint64
	index  []int // of the descriptor in hits, or -1
	over   []bool
}

func newDecision(owner string, req *rlsv3.RateLimitRequest, root *node, known bool) *decision {
	n := len(req.GetDescriptors())
	return &decision{
		owner: owner, req: req, root: root, known: known,
		limits: make([]*rule, n), keys: make([]string, n), index: make([]int, n), over: make([]bool, n),
	}
}

// find matches every descriptor and lists what is to be counted.
func (d *decision) find() {
	for i, desc := range d.req.GetDescriptors() {
		d.match(i, desc)
	}
	replaced := d.replaced()
	for i, desc := range d.req.GetDescriptors() {
		d.index[i] = -1
		if r := d.limits[i]; r == nil || r.Unlimited {
			continue
		} else if r.Name != "" && slices.Contains(replaced, r.Name) {
			d.limits[i] = nil
			continue
		}
		d.index[i] = len(d.hits)
		d.hits = append(d.hits, Hit{Owner: d.owner, Key: d.keys[i], Seconds: unitSeconds[d.limits[i].Unit], Add: addend(d.req, desc), Limit: d.limits[i].Requests})
	}
	d.counts = make([]uint64, len(d.hits))
}

func (d *decision) match(i int, desc *ratelimitv3.RateLimitDescriptor) {
	if !d.known {
		return
	}
	matched, reserved := split(desc.GetEntries())
	r, shared := d.root.match(matched)
	if r != nil {
		d.limits[i] = r
		d.keys[i] = bucketKey(d.req.GetDomain(), r.Unit, matched, reserved, shared)
	}
}

// replaced are the names of the limits that another limit of this request replaces.
func (d *decision) replaced() []string {
	var names []string
	for _, r := range d.limits {
		if r != nil {
			names = append(names, r.Replaces...)
		}
	}
	return names
}

// addend is how much a descriptor counts: its own hits_addend, where zero only asks, else that of the request, where zero means one. What is
// negative only asks: no proxy can give a customer quota back. What is above maxAddend counts as maxAddend.
func addend(req *rlsv3.RateLimitRequest, desc *ratelimitv3.RateLimitDescriptor) uint32 {
	switch h := desc.GetHitsAddend(); {
	case desc.GetIsNegativeHits():
		return 0
	case h != nil:
		return uint32(min(h.GetValue(), maxAddend))
	default:
		return min(max(req.GetHitsAddend(), 1), maxAddend)
	}
}

// answer is what Envoy is told.
func (d *decision) answer(now int64) *rlsv3.RateLimitResponse {
	resp := &rlsv3.RateLimitResponse{
		OverallCode: rlsv3.RateLimitResponse_OK,
		Statuses:    make([]*rlsv3.RateLimitResponse_DescriptorStatus, len(d.limits)),
	}
	var strictest *rlsv3.RateLimitResponse_DescriptorStatus
	for i := range d.limits {
		s := d.status(i, now)
		if s.CurrentLimit != nil && (strictest == nil || s.LimitRemaining < strictest.LimitRemaining) {
			strictest = s
		}
		if s.Code == rlsv3.RateLimitResponse_OVER_LIMIT {
			resp.OverallCode, strictest = s.Code, s
		}
		resp.Statuses[i] = s
	}
	resp.ResponseHeadersToAdd = headers(strictest, now)
	return resp
}

func (d *decision) status(i int, now int64) *rlsv3.RateLimitResponse_DescriptorStatus {
	r := d.limits[i]
	switch {
	case r == nil:
		return &rlsv3.RateLimitResponse_DescriptorStatus{Code: rlsv3.RateLimitResponse_OK}
	case r.Unlimited:
		return &rlsv3.RateLimitResponse_DescriptorStatus{Code: rlsv3.RateLimitResponse_OK, LimitRemaining: math.MaxUint32}
	}
	count, limit := d.counts[d.index[i]], uint64(r.Requests)
	s := &rlsv3.RateLimitResponse_DescriptorStatus{
		Code: rlsv3.RateLimitResponse_OK, CurrentLimit: r.current,
		DurationUntilReset: &durationpb.Duration{Seconds: untilReset(r.Unit, now)},
	}
	d.over[i] = count > limit
	switch {
	case !d.over[i]:
		s.LimitRemaining = uint32(limit - count)
	case r.quota:
		s.DurationUntilReset = nil
	case !r.shadow:
		s.Code = rlsv3.RateLimitResponse_OVER_LIMIT
	}
	return s
}

func untilReset(u Unit, now int64) int64 {
	return unitSeconds[u] - now%unitSeconds[u]
}
