// Package file reads a directory of YAML and rego into policy Sets, and follows what users and tools do to it: edits, atomic renames, symlink
// swaps, half-written files. What was good stays in force until something good takes its place.
package file

import (
	"cmp"
	"fmt"
	"hash/maphash"
	"maps"
	"slices"
	"time"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/kinds"
)

// The stable codes of this package; docs/problems.md explains each.
const (
	CodeLastGood         = "LAST_GOOD_IN_FORCE"
	CodeClosed           = "CLOSED_UNTIL_VALID"
	CodeDuplicate        = kinds.CodeDuplicateObject
	CodeWorkloadClash    = "WORKLOAD_NAME_CLASH"
	CodeUnreadable       = "FILE_UNREADABLE"
	CodeDirectoryMissing = "DIRECTORY_MISSING"
	CodeMassDelete       = "MASS_DELETE_HELD"
	CodeNoWatch          = "WATCH_UNAVAILABLE"
)

// tree is what all files say, and which of it is in force. One goroutine owns it.
type tree struct {
	set      *policy.Set
	files    map[string]*entry
	claims   map[policy.Key][]string        // the files that have an object, sorted
	owners   map[policy.Key]string          // the file whose version is in force
	troubled map[string]bool                // files with something to tell
	disputed map[policy.Key]bool            // keys that several files claim, or that clash
	held     map[policy.Key]policy.Resource // in force though no file has them any more: a mass deletion that nobody confirmed
	recent   []deletion
}

// entry is one file as it was last read.
type entry struct {
	hash     uint64
	claims   map[policy.Key]claim
	problems []policy.Problem
	closes   bool // something of it could not be read, and no earlier version is known: what it could cover is closed
}

// claim is a file's version of an object.
type claim struct {
	resource policy.Resource
	since    time.Time // set where the file now says something else, which was refused
	left     bool      // the file does not say it any more, but has an error, so that this may be a mistake too
}

type deletion struct {
	key      policy.Key
	resource policy.Resource
	at       time.Time
}

func newTree(mesh policy.Mesh) *tree {
	return &tree{
		set: policy.NewSet(mesh), files: map[string]*entry{}, claims: map[policy.Key][]string{}, owners: map[policy.Key]string{},
		troubled: map[string]bool{}, disputed: map[policy.Key]bool{}, held: map[policy.Key]policy.Resource{},
	}
}

// entryOf turns what a file says now into its claims; old is what it said before, or nil.
func (t *tree) entryOf(hash uint64, r kinds.Result, old *entry, now time.Time) *entry {
	e := &entry{hash: hash, claims: make(map[policy.Key]claim, len(r.Objects)), problems: r.Problems}
	for _, res := range r.Objects {
		m := res.Meta()
		if first, ok := e.claims[m.Key]; ok {
			e.problems = append(e.problems, duplicate(m, first.resource.Meta()))
			continue
		}
		e.claims[m.Key] = claim{resource: res}
	}
	for _, refused := range r.Refused {
		if _, ok := e.claims[refused.Key]; ok {
			continue
		}
		if c, ok := t.lastGood(refused.Key, old, now); ok {
			e.claims[refused.Key] = c
		} else if refused.Void != nil {
			e.claims[refused.Key] = claim{resource: refused.Void}
		}
	}
	t.standIn(e, r.Unread, old)
	if old != nil && refuses(e) {
		e.keep(old, now)
	}
	return e
}

// standIn closes what a file could cover of which something cannot be read. An earlier version stands instead, where there is one.
func (t *tree) standIn(e *entry, unread []kinds.Unread, old *entry) {
	if old != nil && !old.closes {
		return
	}
	for _, u := range unread {
		if c, ok := e.claims[u.Key]; ok && !c.since.IsZero() {
			continue // another file said it before
		}
		e.closes = true
		for _, r := range u.StandIns(t.set.Mesh().RootNamespace) {
			if _, ok := e.claims[r.Meta().Key]; !ok {
				e.claims[r.Meta().Key] = claim{resource: r}
			}
		}
	}
}

// keep holds on to what a file with an error does not say any more: with a lost line of "---", or of kind, an object vanishes by mistake.
func (e *entry) keep(old *entry, now time.Time) {
	for k, c := range old.claims {
		if _, ok := e.claims[k]; !ok && !kinds.StandIn(k) {
			c = c.stale(now)
			c.left = true
			e.claims[k] = c
		}
	}
}

func (c claim) stale(now time.Time) claim {
	if c.since.IsZero() && !c.resource.Meta().Void {
		c.since = now
	}
	return c
}

// lastGood finds the version that a refused object falls back to: the file's own, or the one in force, which may have come from a file
// that was renamed.
func (t *tree) lastGood(k policy.Key, old *entry, now time.Time) (claim, bool) {
	if old != nil {
		if c, ok := old.claims[k]; ok && !c.resource.Meta().Void {
			c.left = false
			return c.stale(now), true
		}
	}
	owner, owned := t.owners[k]
	if _, there := t.files[owner]; owned && there && slices.Contains(t.claims[k], owner) && t.files[owner] != old {
		return claim{}, false // another file has it in force: this one has no say
	}
	if r, ok := t.set.Lookup(k); ok && !r.Meta().Void {
		return claim{resource: r, since: now}, true
	}
	return claim{}, false
}

func duplicate(m, first *policy.Object) policy.Problem {
	return policy.Problem{
		At: m.At, Object: m.Key.String(), Code: CodeDuplicate, Says: fmt.Sprintf("also written at %s, which stays in force", first.At),
		Try: "remove one of the two",
	}
}

// update puts changed files in the place of what they were; nil means that a file is gone. Its cost is that of the changed files.
func (t *tree) update(changed map[string]*entry, now time.Time) {
	touched := map[policy.Key]bool{}
	for _, file := range slices.Sorted(maps.Keys(changed)) {
		t.replace(file, changed[file], touched)
	}
	var put []policy.Resource
	var del, mended []policy.Key
	before := len(t.owners) + len(t.held)
	for _, k := range order(touched) {
		winner, resource := t.winner(k)
		switch {
		case resource != nil:
			t.owners[k] = winner
			delete(t.held, k)
			put = append(put, resource)
		case t.held[k] == nil:
			if _, there := t.set.Lookup(k); there && kinds.StandIn(k) {
				mended = append(mended, k)
			} else if there {
				del = append(del, k)
			}
			delete(t.owners, k)
		}
	}
	del, back := t.hold(del, before, now)
	t.set = t.set.Apply(append(put, back...), append(mended, del...))
}

// replace swaps the claims of one file and notes whose keys must be decided again.
func (t *tree) replace(file string, e *entry, touched map[policy.Key]bool) {
	if old := t.files[file]; old != nil {
		for k := range old.claims {
			touch(touched, k)
			if i, ok := slices.BinarySearch(t.claims[k], file); ok {
				t.claims[k] = slices.Delete(t.claims[k], i, i+1)
			}
			if len(t.claims[k]) == 0 {
				delete(t.claims, k)
			}
		}
	}
	delete(t.files, file)
	delete(t.troubled, file)
	if e == nil {
		return
	}
	t.files[file] = e
	if len(e.problems) > 0 {
		t.troubled[file] = true
	}
	for k := range e.claims {
		touch(touched, k)
		if i, ok := slices.BinarySearch(t.claims[k], file); !ok {
			t.claims[k] = slices.Insert(t.claims[k], i, file)
		}
	}
}

func touch(touched map[policy.Key]bool, k policy.Key) {
	touched[k] = true
	if k.Kind == policy.KindWorkloadEntry { // whether a Gateway of that name may stand depends on it
		touched[policy.Key{Kind: policy.KindGateway, Namespace: k.Namespace, Name: k.Name}] = true
	}
}

// order sorts keys, WorkloadEntries before all others, since Gateways give way to them.
func order(keys map[policy.Key]bool) []policy.Key {
	return slices.SortedFunc(maps.Keys(keys), func(a, b policy.Key) int {
		return cmp.Or(cmp.Compare(late(a.Kind), late(b.Kind)), a.Compare(b))
	})
}

func late(k policy.Kind) int {
	if k == policy.KindGateway {
		return 1
	}
	return 0
}

// winner is the file whose version of an object is in force: the one that already is, else the first by name; what was refused comes last.
func (t *tree) winner(k policy.Key) (string, policy.Resource) {
	files := t.claims[k]
	clash := len(files) > 0 && t.clashes(k)
	if len(files) > 1 || clash {
		t.disputed[k] = true
	} else {
		delete(t.disputed, k)
	}
	if len(files) == 0 || clash {
		return "", nil
	}
	best, bestRank := "", 4
	for _, f := range files {
		c, rank := t.files[f].claims[k], 1
		switch {
		case c.resource.Meta().Void:
			rank = 3
		case c.left:
			rank = 2
		case t.owners[k] == f:
			rank = 0
		}
		if rank < bestRank {
			best, bestRank = f, rank
		}
	}
	return best, t.files[best].claims[k].resource
}

// clashes tells whether a Gateway has the name of a WorkloadEntry: a proxy could not tell which of the two it is.
func (t *tree) clashes(k policy.Key) bool {
	if k.Kind != policy.KindGateway {
		return false
	}
	_, taken := t.owners[policy.Key{Kind: policy.KindWorkloadEntry, Namespace: k.Namespace, Name: k.Name}]
	return taken
}

// contentHash tells equal files from changed ones within one process.
func contentHash(seed maphash.Seed, data []byte) uint64 { return maphash.Bytes(seed, data) }
