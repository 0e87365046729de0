package file

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/kinds"
)

// stamp is what tells cheaply that a file is as it was.
type stamp struct {
	info fs.FileInfo
	racy bool // so young when it was read that its time would not tell another change
}

func (s stamp) same(info fs.FileInfo) bool {
	return s.info != nil && !s.racy && os.SameFile(s.info, info) && s.info.Size() == info.Size() &&
		s.info.ModTime().Equal(info.ModTime()) && s.info.Mode() == info.Mode()
}

// flush takes up what was noted. It tells whether there is anything to publish.
func (f *follower) flush(now time.Time) bool {
	if f.all || f.linked {
		return f.scan(now)
	}
	dirty := f.dirty
	f.dirty = nil
	var look []string
	gone := map[string]bool{}
	for path := range dirty {
		switch info, err := os.Stat(path); {
		case filepath.Base(path) == ConfirmFile:
		case err == nil && info.IsDir():
			l := f.list(path)
			f.all = f.all || l.linked || link(path)
			for file := range l.files {
				look = append(look, file)
			}
			f.vanished(path, l, gone)
		case err == nil && kinds.Wanted(path):
			look = append(look, path)
			f.stamps[path] = stamp{info, true}
			delete(f.bad, path)
		case err != nil && !exists(path):
			maps.DeleteFunc(f.bad, func(bad string, _ error) bool { return inside(path, bad) })
			f.vanished(path, listing{}, gone)
		case err != nil && kinds.Wanted(path):
			look = append(look, path)
		case err != nil:
			f.all = true
		}
	}
	if !f.present() {
		f.all = true // look at everything when it is back
		return true
	}
	if f.all { // what links lead to has more than one path
		f.dirty = dirty
		return f.scan(now)
	}
	changed := f.take(look, gone, now)
	return f.confirmed(now) || changed
}

// present tells whether the directory is there. While it is not, nothing of what it said is given up.
func (f *follower) present() bool {
	info, err := os.Stat(f.dir)
	if err == nil && !info.IsDir() {
		err = errors.New("not a directory")
	}
	if err == nil {
		_, err = os.ReadDir(f.dir)
	}
	f.missing = err
	return err == nil
}

func (f *follower) list(dir string) listing {
	l := newListing(f.dir)
	l.seen, l.ended = f.watch.add, f.ended
	l.walk(dir)
	if f.ended() {
		return l
	}
	f.watch.forget(dir, l.dirs)
	maps.DeleteFunc(f.bad, func(path string, _ error) bool { return inside(dir, path) })
	maps.Copy(f.bad, l.bad)
	maps.DeleteFunc(f.listed, func(path string, _ bool) bool { return inside(dir, path) && !exists(path) })
	for _, d := range l.dirs {
		if l.bad[d] == nil {
			f.listed[d] = true
		}
	}
	return l
}

// scan looks at everything.
func (f *follower) scan(now time.Time) bool {
	was := f.missing != nil
	if !f.present() {
		f.all = true
		return !was
	}
	dirty := f.dirty
	f.all, f.dirty = false, nil
	f.watch.renew()
	l := f.list(f.dir)
	if f.ended() {
		return false
	}
	f.linked = l.linked
	var look []string
	for file, info := range l.files {
		if _, pending := f.pending[file]; f.stamps[file].same(info) && !pending && !dirty[file] {
			continue
		}
		f.stamps[file] = stamp{info, now.Sub(info.ModTime()) < racyWithin}
		look = append(look, file)
	}
	for path := range l.bad {
		if kinds.Wanted(path) {
			look = append(look, path)
		}
	}
	gone := map[string]bool{}
	f.vanished(f.dir, l, gone)
	changed := f.take(look, gone, now)
	f.started = true
	return f.confirmed(now) || changed || was
}

func link(path string) bool {
	info, err := os.Lstat(path)
	return err == nil && info.Mode()&fs.ModeSymlink != 0
}

// vanished notes the files at and below a path that are not listed any more; those of directories that could not be read are not counted.
func (f *follower) vanished(path string, l listing, gone map[string]bool) {
	for file := range f.tree.files {
		if _, there := l.files[file]; there || !inside(path, file) {
			continue
		}
		unknown := false
		for bad := range l.bad {
			unknown = unknown || inside(bad, file)
		}
		if !unknown {
			gone[file] = true
		}
	}
}

// take reads files and puts what they say in force. It tells whether anything changed.
func (f *follower) take(look []string, gone map[string]bool, now time.Time) bool {
	slices.Sort(look)
	jobs := make([]job, 0, len(look))
	for _, path := range slices.Compact(look) {
		j := job{path: path, name: relative(f.dir, path)}
		if e := f.tree.files[path]; e != nil {
			j.known = e.hash
		}
		jobs = append(jobs, j)
	}
	changed := map[string]*entry{}
	for _, c := range f.reader.read(jobs) {
		if errors.Is(c.err, fs.ErrNotExist) && !exists(c.path) {
			gone[c.path] = true
			continue
		}
		delete(gone, c.path)
		old := f.tree.files[c.path]
		if c.err != nil {
			delete(f.stamps, c.path) // whatever it looks like, it is tried again
			c.same = old != nil && old.hash == 0 && slices.Equal(old.problems, c.result().Problems)
		}
		if c.same {
			delete(f.pending, c.path)
			continue
		}
		e := f.tree.entryOf(c.hash, c.result(), old, now)
		if f.wait(c, old, e) {
			continue
		}
		changed[c.path] = e
	}
	f.shut(changed, now)
	for path := range gone {
		changed[path] = nil
		delete(f.stamps, path)
		delete(f.pending, path)
	}
	if len(changed) > 0 {
		f.tree.update(changed, now)
	}
	return len(changed) > 0
}

// shut closes what directories and links could hold that were never read.
func (f *follower) shut(changed map[string]*entry, now time.Time) {
	for path, err := range f.bad {
		if kinds.Wanted(path) || f.tree.files[path] != nil || f.started && f.known(path) {
			continue
		}
		changed[path] = f.tree.entryOf(0, kinds.Unreadable(path, path, unreadable(path, err)), nil, now)
	}
}

// known tells whether something was read at or below a path.
func (f *follower) known(path string) bool {
	if f.listed[path] {
		return true
	}
	for file := range f.tree.files {
		if inside(path, file) {
			return true
		}
	}
	return false
}

// wait tells whether a file that has become worse is to be looked at again first: it may be half written. What was read at the start is
// taken as it is.
func (f *follower) wait(c content, old, e *entry) bool {
	if !f.started || !loses(old, e) && !refuses(e) {
		delete(f.pending, c.path)
		return false
	}
	looks := 1
	if len(e.claims) == 0 && len(e.problems) == 0 {
		looks = emptyLooks
	}
	g := f.pending[c.path]
	if g.hash != c.hash {
		g = glance{hash: c.hash}
	}
	if g.looks >= looks {
		delete(f.pending, c.path)
		return false
	}
	g.looks++
	f.pending[c.path] = g
	return true
}

// glance is what a file that became worse held when it was looked at, and how often it was.
type glance struct {
	hash  uint64
	looks int
}

func loses(old, e *entry) bool {
	if old == nil {
		return len(e.claims) == 0
	}
	for k := range old.claims {
		if c, ok := e.claims[k]; !ok || c.left {
			return true
		}
	}
	return false
}

func refuses(e *entry) bool {
	return slices.ContainsFunc(e.problems, func(p policy.Problem) bool { return p.Severity == policy.Error })
}

// confirmed deletes what is held back where a user has said so since.
func (f *follower) confirmed(now time.Time) bool {
	if len(f.tree.held) == 0 {
		f.since = time.Time{}
		return false
	}
	if f.since.IsZero() {
		f.since = now
		return false
	}
	info, err := os.Stat(filepath.Join(f.dir, ConfirmFile))
	if err != nil || info.ModTime().Before(f.since.Truncate(time.Second)) {
		return false
	}
	f.tree.confirm()
	f.since = time.Time{}
	return true
}
