package limit

import "context"

// Hit is one addition to one counter.
type Hit struct {
	Owner   string // who asks: a store in bounded space gives each owner a share of it. It is no part of the name
	Key     string // names the counter; the window is no part of it
	Seconds int64  // length of the window, which begins at a multiple of it
	Add     uint32 // zero only reads
	Limit   uint32 // above which the caller refuses: a store under pressure keeps the counters of offenders
}

// Store counts. Add makes all additions at now, in seconds since the epoch, and puts into counts, which has as many elements, each counter's
// value afterwards. A counter begins at zero in each window. An error means that nothing is known: the caller must not take it for "within the limit".
type Store interface {
	Add(ctx context.Context, now int64, hits []Hit, counts []uint64) error
}
