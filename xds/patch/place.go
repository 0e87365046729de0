package patch

import (
	"errors"
	"fmt"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"
)

// edit applies an operation to a list. hit tells which elements the match names; relative tells whether it names any in particular. The
// count is of places changed. front is where INSERT_FIRST, and INSERT_BEFORE without a relative, put the new element; end where ADD does.
type edit[T any] struct {
	list       []T
	hit        func(T) bool
	relative   bool
	front, end int
	make       func() (T, error)
	merge      func(T) (T, error)
}

func (e edit[T]) apply(op networkingv1alpha3.EnvoyFilter_Patch_Operation) ([]T, int, error) {
	switch op {
	case networkingv1alpha3.EnvoyFilter_Patch_ADD:
		return e.insert(e.end)
	case networkingv1alpha3.EnvoyFilter_Patch_INSERT_FIRST:
		return e.insert(e.front)
	case networkingv1alpha3.EnvoyFilter_Patch_INSERT_BEFORE:
		if !e.relative {
			return e.insert(e.front)
		}
		for i, x := range e.list {
			if e.hit(x) {
				return e.insert(max(i, e.front))
			}
		}
		return e.list, 0, nil
	case networkingv1alpha3.EnvoyFilter_Patch_INSERT_AFTER:
		if !e.relative {
			return e.insert(e.end)
		}
		for i := len(e.list) - 1; i >= 0; i-- {
			if e.hit(e.list[i]) {
				return e.insert(min(max(i+1, e.front), max(e.end, e.front)))
			}
		}
		return e.list, 0, nil
	case networkingv1alpha3.EnvoyFilter_Patch_REMOVE, networkingv1alpha3.EnvoyFilter_Patch_MERGE, networkingv1alpha3.EnvoyFilter_Patch_REPLACE:
		return e.change(op)
	case networkingv1alpha3.EnvoyFilter_Patch_INVALID:
		return nil, 0, errors.New("the patch has no operation")
	default:
		return nil, 0, fmt.Errorf("operation %s is not supported", op)
	}
}

func (e edit[T]) insert(at int) ([]T, int, error) {
	x, err := e.make()
	if err != nil {
		return nil, 0, err
	}
	out := append([]T(nil), e.list[:at]...)
	return append(append(out, x), e.list[at:]...), 1, nil
}

func (e edit[T]) change(op networkingv1alpha3.EnvoyFilter_Patch_Operation) ([]T, int, error) {
	var out []T
	n := 0
	for _, x := range e.list {
		if !e.hit(x) {
			out = append(out, x)
			continue
		}
		n++
		if op == networkingv1alpha3.EnvoyFilter_Patch_REMOVE {
			continue
		}
		with := e.merge
		if op == networkingv1alpha3.EnvoyFilter_Patch_REPLACE {
			with = func(T) (T, error) { return e.make() }
		}
		y, err := with(x)
		if err != nil {
			return nil, 0, err
		}
		out = append(out, y)
	}
	return out, n, nil
}
