package ir

import "sync/atomic"

// Memo keeps what package translate made of an immutable piece, beside the piece, so that parts which share the piece share that too, and a
// change costs what it touches. It goes when the piece goes. The zero value holds nothing.
type Memo struct{ made atomic.Pointer[any] }

// Load is what was kept; nil where nothing was.
func (m *Memo) Load() any {
	if v := m.made.Load(); v != nil {
		return *v
	}
	return nil
}

// Keep keeps v, unless somebody was faster; it gives what is kept.
func (m *Memo) Keep(v any) any {
	if m.made.CompareAndSwap(nil, &v) {
		return v
	}
	return m.Load()
}
