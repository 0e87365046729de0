package file

import (
	"maps"
	"slices"
	"time"

	"github.com/credence-mesh/credence/policy"
)

// A deletion is held back when it takes more than massObjects objects, and more than half of all, within massWindow: that is what an
// unmounted volume or a slip of the hand looks like. Files that merely move are no deletion.
const (
	massObjects = 10
	massWindow  = 5 * time.Second
)

// ConfirmFile, created or touched in the directory, says that a deletion which is held back was meant.
const ConfirmFile = ".credence-confirm-delete"

// hold decides about objects that no file has any more. It returns those to delete, and those to put back that were deleted a moment ago as
// the first part of what has turned out to be a mass deletion.
func (t *tree) hold(del []policy.Key, before int, now time.Time) ([]policy.Key, []policy.Resource) {
	t.recent = slices.DeleteFunc(t.recent, func(d deletion) bool {
		return now.Sub(d.at) > massWindow || len(t.claims[d.key]) > 0
	})
	if len(del) == 0 {
		return nil, nil
	}
	total := len(del) + len(t.recent)
	if total <= massObjects || 2*total <= before+len(t.recent) {
		for _, k := range del {
			if r, ok := t.set.Lookup(k); ok {
				t.recent = append(t.recent, deletion{k, r, now})
			}
		}
		return del, nil
	}
	for _, k := range del {
		if r, ok := t.set.Lookup(k); ok {
			t.held[k] = r
		}
	}
	var back []policy.Resource
	for _, d := range t.recent {
		t.held[d.key] = d.resource
		back = append(back, d.resource)
	}
	t.recent = nil
	return nil, back
}

// confirm deletes what is held back.
func (t *tree) confirm() {
	t.set = t.set.Apply(nil, slices.Collect(maps.Keys(t.held)))
	clear(t.held)
}
