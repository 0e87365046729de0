package policy

import (
	"fmt"
	"iter"
	"maps"
	"slices"
)

// Set is everything that users wrote and that is in force, indexed. It is immutable: Apply makes a new one that shares what did not change.
type Set struct {
	mesh  Mesh
	kinds map[Kind]*bucket
}

// bucket holds the objects of one kind.
type bucket struct {
	byNamespace map[string][]Resource // each sorted by name
}

// NewSet is an empty set of a mesh.
func NewSet(mesh Mesh) *Set { return &Set{mesh: mesh, kinds: map[Kind]*bucket{}} }

// Mesh is what was said once for the whole mesh.
func (s *Set) Mesh() Mesh { return s.mesh }

// Apply is the set after putting and deleting objects; the receiver is left as it was. Cost: the namespaces touched, not the set.
func (s *Set) Apply(put []Resource, del []Key) *Set {
	next := &Set{mesh: s.mesh, kinds: maps.Clone(s.kinds)}
	fresh := map[Kind]*bucket{}
	owned := map[Key]bool{} // kind and namespace whose slice was already copied
	slot := func(k Key) *bucket {
		b := fresh[k.Kind]
		if b == nil {
			b = &bucket{byNamespace: map[string][]Resource{}}
			if old := next.kinds[k.Kind]; old != nil {
				b.byNamespace = maps.Clone(old.byNamespace)
			}
			fresh[k.Kind], next.kinds[k.Kind] = b, b
		}
		if ns := (Key{Kind: k.Kind, Namespace: k.Namespace}); !owned[ns] {
			b.byNamespace[k.Namespace] = slices.Clone(b.byNamespace[k.Namespace])
			owned[ns] = true
		}
		return b
	}
	for _, k := range del {
		b := slot(k)
		if i, ok := find(b.byNamespace[k.Namespace], k.Name); ok {
			b.byNamespace[k.Namespace] = slices.Delete(b.byNamespace[k.Namespace], i, i+1)
		}
		if len(b.byNamespace[k.Namespace]) == 0 {
			delete(b.byNamespace, k.Namespace)
			delete(owned, Key{Kind: k.Kind, Namespace: k.Namespace})
		}
	}
	for _, r := range put {
		k := r.Meta().Key
		b := slot(k)
		list := b.byNamespace[k.Namespace]
		if i, ok := find(list, k.Name); ok {
			list[i] = r
		} else {
			b.byNamespace[k.Namespace] = slices.Insert(list, i, r)
		}
	}
	return next
}

func find(list []Resource, name string) (int, bool) {
	return slices.BinarySearchFunc(list, name, func(r Resource, n string) int {
		switch m := r.Meta().Key.Name; {
		case m < n:
			return -1
		case m > n:
			return 1
		default:
			return 0
		}
	})
}

func kindOf[T Resource]() Kind {
	var zero T
	return zero.kind()
}

// In yields the objects of one kind in one namespace, by name. Cluster-scoped kinds live in namespace "".
func In[T Resource](s *Set, namespace string) iter.Seq[T] {
	return func(yield func(T) bool) {
		b := s.kinds[kindOf[T]()]
		if b == nil {
			return
		}
		for _, r := range b.byNamespace[namespace] {
			if !yield(r.(T)) {
				return
			}
		}
	}
}

// All yields the objects of one kind by namespace and name. Its cost is the size of the kind.
func All[T Resource](s *Set) iter.Seq[T] {
	return func(yield func(T) bool) {
		b := s.kinds[kindOf[T]()]
		if b == nil {
			return
		}
		for _, ns := range slices.Sorted(maps.Keys(b.byNamespace)) {
			for _, r := range b.byNamespace[ns] {
				if !yield(r.(T)) {
					return
				}
			}
		}
	}
}

// Get finds one object.
func Get[T Resource](s *Set, namespace, name string) (T, bool) {
	if r, ok := s.Lookup(Key{Kind: kindOf[T](), Namespace: namespace, Name: name}); ok {
		return r.(T), true
	}
	var zero T
	return zero, false
}

// Lookup finds one object by its key.
func (s *Set) Lookup(k Key) (Resource, bool) {
	if b := s.kinds[k.Kind]; b != nil {
		if i, ok := find(b.byNamespace[k.Namespace], k.Name); ok {
			return b.byNamespace[k.Namespace][i], true
		}
	}
	return nil, false
}

// Same tells whether two sets hold the very same objects of some kinds. It compares identities and never reads the objects: a false
// answer may be wrong, a true one never is.
func Same(a, b *Set, kinds ...Kind) bool {
	for _, k := range kinds {
		if a.kinds[k] != b.kinds[k] {
			return false
		}
	}
	return true
}

// SameIn is Same for one namespace.
func SameIn(a, b *Set, namespace string, kinds ...Kind) bool {
	for _, k := range kinds {
		if a.kinds[k] == b.kinds[k] {
			continue
		}
		x, y := a.kinds[k].in(namespace), b.kinds[k].in(namespace)
		if len(x) != len(y) || len(x) > 0 && &x[0] != &y[0] {
			return false
		}
	}
	return true
}

func (b *bucket) in(namespace string) []Resource {
	if b == nil {
		return nil
	}
	return b.byNamespace[namespace]
}

// SpacesOf is the namespaces that hold an object of one of the kinds, sorted.
func (s *Set) SpacesOf(kinds ...Kind) []string {
	spaces := map[string]bool{}
	for _, k := range kinds {
		if b := s.kinds[k]; b != nil {
			for ns := range b.byNamespace {
				spaces[ns] = true
			}
		}
	}
	return slices.Sorted(maps.Keys(spaces))
}

// Len counts the objects of the set.
func (s *Set) Len() int {
	n := 0
	for _, b := range s.kinds {
		for _, l := range b.byNamespace {
			n += len(l)
		}
	}
	return n
}

// Change is one object before and after. Old is nil where it is new, New is nil where it is gone.
type Change struct{ Old, New Resource }

// Diff lists what differs between two sets, in the order of keys. Slices that both sets share are skipped without being read.
func Diff(old, new *Set) []Change {
	var out []Change
	kinds := map[Kind]bool{}
	for k := range old.kinds {
		kinds[k] = true
	}
	for k := range new.kinds {
		kinds[k] = true
	}
	for _, k := range slices.Sorted(maps.Keys(kinds)) {
		a, b := old.kinds[k], new.kinds[k]
		if a == b {
			continue
		}
		if a == nil {
			a = &bucket{}
		}
		if b == nil {
			b = &bucket{}
		}
		spaces := map[string]bool{}
		for ns := range a.byNamespace {
			spaces[ns] = true
		}
		for ns := range b.byNamespace {
			spaces[ns] = true
		}
		for _, ns := range slices.Sorted(maps.Keys(spaces)) {
			out = diffList(out, a.byNamespace[ns], b.byNamespace[ns])
		}
	}
	return out
}

func diffList(out []Change, a, b []Resource) []Change {
	if len(a) == len(b) && len(a) > 0 && &a[0] == &b[0] {
		return out
	}
	for len(a) > 0 || len(b) > 0 {
		switch {
		case len(b) == 0 || (len(a) > 0 && a[0].Meta().Key.Name < b[0].Meta().Key.Name):
			out = append(out, Change{Old: a[0]})
			a = a[1:]
		case len(a) == 0 || a[0].Meta().Key.Name > b[0].Meta().Key.Name:
			out = append(out, Change{New: b[0]})
			b = b[1:]
		default:
			x, y := a[0].Meta(), b[0].Meta()
			if a[0] != b[0] && (x.Digest != y.Digest || x.Void != y.Void || x.At.File != y.At.File) {
				out = append(out, Change{Old: a[0], New: b[0]})
			}
			a, b = a[1:], b[1:]
		}
	}
	return out
}

// Workload is what a proxy can be: a WorkloadEntry, or a Gateway.
type Workload struct {
	Namespace      string
	Name           string
	ServiceAccount string // never empty: "default" for a WorkloadEntry that names none, the Gateway's own name for a Gateway
	Labels         map[string]string
	Entry          *WorkloadEntry // one of the two is set
	Gateway        *Gateway
}

// String is "namespace/name".
func (w *Workload) String() string { return w.Namespace + "/" + w.Name }

// Meta is the object that makes the workload.
func (w *Workload) Meta() *Object {
	if w.Gateway != nil {
		return &w.Gateway.Object
	}
	return &w.Entry.Object
}

// AnnotationServiceAccount names the service account of a Gateway, where it is not the Gateway's own name.
const AnnotationServiceAccount = "credence.dev/service-account"

// Workload finds a workload by name. A WorkloadEntry wins over a Gateway of the same name (the sources refuse that pair).
func (s *Set) Workload(namespace, name string) (*Workload, bool) {
	if e, ok := Get[*WorkloadEntry](s, namespace, name); ok && e.Spec != nil {
		return entryWorkload(e), true
	}
	if g, ok := Get[*Gateway](s, namespace, name); ok && g.Spec != nil {
		return gatewayWorkload(g), true
	}
	return nil, false
}

// WorkloadsIn yields the workloads of a namespace.
func (s *Set) WorkloadsIn(namespace string) iter.Seq[*Workload] {
	return func(yield func(*Workload) bool) {
		for e := range In[*WorkloadEntry](s, namespace) {
			if e.Spec != nil && !yield(entryWorkload(e)) {
				return
			}
		}
		for g := range In[*Gateway](s, namespace) {
			if g.Spec != nil && !yield(gatewayWorkload(g)) {
				return
			}
		}
	}
}

// Workloads yields every workload of the mesh.
func (s *Set) Workloads() iter.Seq[*Workload] {
	return func(yield func(*Workload) bool) {
		for e := range All[*WorkloadEntry](s) {
			if e.Spec != nil && !yield(entryWorkload(e)) {
				return
			}
		}
		for g := range All[*Gateway](s) {
			if g.Spec != nil && !yield(gatewayWorkload(g)) {
				return
			}
		}
	}
}

func entryWorkload(e *WorkloadEntry) *Workload {
	w := &Workload{Namespace: e.Key.Namespace, Name: e.Key.Name, ServiceAccount: e.Spec.ServiceAccount, Entry: e}
	if w.ServiceAccount == "" {
		w.ServiceAccount = "default"
	}
	// Istio: the labels of the spec are the workload's; those of the metadata are kept where the spec does not say otherwise.
	w.Labels = maps.Clone(e.Labels)
	if w.Labels == nil {
		w.Labels = map[string]string{}
	}
	maps.Copy(w.Labels, e.Spec.Labels)
	return w
}

func gatewayWorkload(g *Gateway) *Workload {
	w := &Workload{Namespace: g.Key.Namespace, Name: g.Key.Name, ServiceAccount: g.Annotations[AnnotationServiceAccount], Gateway: g}
	if w.ServiceAccount == "" {
		w.ServiceAccount = g.Key.Name
	}
	w.Labels = maps.Clone(g.Labels)
	if w.Labels == nil {
		w.Labels = map[string]string{}
	}
	if i := g.Spec.Infrastructure; i != nil {
		for k, v := range i.Labels {
			w.Labels[string(k)] = string(v)
		}
	}
	// Istio labels the pods of a managed gateway so; policies that users have select by it.
	w.Labels["gateway.networking.k8s.io/gateway-name"] = g.Key.Name
	return w
}

// Selects tells whether a workload selector (Istio's matchLabels) selects labels. An empty selector selects everything in its scope.
func Selects(matchLabels, labels map[string]string) bool {
	for k, v := range matchLabels {
		if got, ok := labels[k]; !ok || got != v {
			return false
		}
	}
	return true
}

// String helps tests and logs.
func (s *Set) String() string { return fmt.Sprintf("policy.Set(%d objects)", s.Len()) }
