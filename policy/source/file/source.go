package file

import (
	"context"
	"fmt"
	"hash/maphash"
	"os"
	"path/filepath"
	"slices"
	"time"

	"github.com/credence-mesh/credence/policy"
)

// Timing. A change is taken up after a quiet time, at the latest after a while; a file that has just become worse is looked at twice.
const (
	quiet       = 100 * time.Millisecond
	latest      = 500 * time.Millisecond
	secondLook  = 250 * time.Millisecond
	pollEvery   = 5 * time.Second // where the kernel does not tell of changes
	rescanEvery = time.Minute     // in any case: a change that was missed costs a minute, not a day
	returnEvery = time.Second     // while the directory is not there
	racyWithin  = 2 * time.Second // a file this young may change again without its time telling
)

// emptyLooks is how often a file that became empty is looked at again before it counts: saving often begins with that, and may stall there.
const emptyLooks = 8

// Source is a directory that is followed.
type Source struct {
	dir  string
	mesh policy.Mesh
}

// New makes a source of a directory. Nothing is read before Run.
func New(dir string, mesh policy.Mesh) *Source { return &Source{dir: filepath.Clean(dir), mesh: mesh} }

// Run reads the directory and follows it until ctx ends, which is no error. put is called by one goroutine: first with what the directory
// holds at the start, then whenever the Set or the list of current problems may have changed. A directory that cannot be read at the start
// is an error.
func (s *Source) Run(ctx context.Context, put func(*policy.Set, []policy.Problem)) error {
	if info, err := os.Stat(s.dir); err != nil {
		return fmt.Errorf("read %s: %w", s.dir, err)
	} else if !info.IsDir() {
		return fmt.Errorf("read %s: not a directory", s.dir)
	}
	f := &follower{
		dir: s.dir, tree: newTree(s.mesh), reader: reader{seed: maphash.MakeSeed()}, stamps: map[string]stamp{},
		pending: map[string]glance{}, bad: map[string]error{}, listed: map[string]bool{}, put: put,
		ended: func() bool { return ctx.Err() != nil },
	}
	if err := f.watch.open(s.dir); err == nil {
		defer f.watch.close()
	}
	f.scan(time.Now())
	if ctx.Err() != nil {
		return nil
	}
	f.publish()
	f.follow(ctx)
	return nil
}

// follower owns the state of a running source.
type follower struct {
	dir     string
	tree    *tree
	reader  reader
	watch   watch
	stamps  map[string]stamp
	pending map[string]glance // files that became worse: they are looked at again before it counts
	dirty   map[string]bool
	all     bool             // everything is to be looked at
	linked  bool             // links lead to directories: what a path holds can only be told by looking at everything
	bad     map[string]error // what cannot be read: what it held stays
	listed  map[string]bool  // directories that were read
	ended   func() bool      // nothing more is wanted
	started bool             // the first scan is done
	missing error
	since   time.Time // when objects were held back; zero: none are
	put     func(*policy.Set, []policy.Problem)
}

// follow waits for one of four things and handles one at a time: a change is reported, changes have settled, a file wants its second look,
// or it is time to look at everything.
func (f *follower) follow(ctx context.Context) {
	settle, second := stopped(), stopped()
	pace := f.pace()
	rescan := time.NewTimer(pace)
	defer rescan.Stop()
	var first time.Time
	note := func(path string) {
		if !f.note(path) {
			return
		}
		now := time.Now()
		if first.IsZero() {
			first = now
		}
		settle.Reset(min(quiet, max(0, first.Add(latest).Sub(now))))
	}
	for {
		select {
		case <-ctx.Done():
			return
		case ev := <-f.watch.events():
			note(ev.Name)
			continue
		case err := <-f.watch.errors():
			f.reported(err)
			note(f.dir)
			continue
		case <-settle.C:
			first = time.Time{}
		case <-second.C:
			for file := range f.pending {
				f.mark(file)
			}
		case <-rescan.C:
			f.all, pace = true, 0
		}
		if f.flush(time.Now()) {
			f.publish()
		}
		if len(f.pending) > 0 {
			second.Reset(secondLook)
		}
		if p := f.pace(); p != pace { // never put off by mere changes
			pace = p
			rescan.Reset(p)
		}
	}
}

// reported handles an error of the watch. Any of them may mean that events were lost, as an overflow does, so everything is looked at.
func (f *follower) reported(err error) { f.all = f.all || err != nil }

func stopped() *time.Timer {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return t
}

func (f *follower) pace() time.Duration {
	switch {
	case f.missing != nil:
		return returnEvery
	case f.watch.broken != nil:
		return pollEvery
	default:
		return rescanEvery
	}
}

func (f *follower) mark(path string) {
	if f.dirty == nil {
		f.dirty = map[string]bool{}
	}
	f.dirty[path] = true
}

// note remembers a path that was reported, and tells whether it matters.
func (f *follower) note(path string) bool {
	path = filepath.Clean(path)
	base := filepath.Base(path)
	switch {
	case path == f.dir:
		f.all = true
	case filepath.Dir(path) == filepath.Dir(f.dir) && !inside(f.dir, path): // a sibling: the directory's own parent is watched
		return false
	case len(base) > 1 && base[:2] == "..": // Kubernetes swaps ..data: every link beside it now leads elsewhere
		f.mark(filepath.Dir(path))
	case base == ConfirmFile:
		f.mark(path)
	case base[0] == '.':
		return false
	default:
		f.mark(path)
	}
	return true
}

func (f *follower) publish() {
	problems := f.tree.problems(f.dir)
	for path, err := range f.bad {
		if e := f.tree.files[path]; e == nil || e.hash != 0 {
			p := unreadable(path, err)
			p.Says += "; what it held before stays in force"
			problems = append(problems, p)
		}
	}
	if f.missing != nil {
		problems = append(problems, policy.Problem{
			At: policy.Origin{File: f.dir}, Code: CodeDirectoryMissing, Says: f.missing.Error() + ": everything stays in force as it was",
			Try: "put the directory back",
		})
	}
	if f.watch.broken != nil {
		problems = append(problems, policy.Problem{
			At: policy.Origin{File: f.dir}, Code: CodeNoWatch, Severity: policy.Info,
			Says: fmt.Sprintf("the kernel does not report changes (%v): the directory is read every %s", f.watch.broken, pollEvery),
			Try:  "raise fs.inotify.max_user_watches and max_user_instances",
		})
	}
	slices.SortFunc(problems, policy.Problem.Compare)
	f.put(f.tree.set, slices.Compact(problems))
}
