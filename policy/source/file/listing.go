package file

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/credence-mesh/credence/policy/kinds"
)

// The bounds of a directory.
const (
	maxNesting = 64      // directories in each other
	maxEntries = 1 << 20 // files and directories together
)

var (
	errTooMany = fmt.Errorf("more than %d files", maxEntries)
	errTooDeep = fmt.Errorf("more than %d directories in each other", maxNesting)
)

// listing is what a directory holds now: the files that are read, by path, and the directories.
type listing struct {
	root    string
	files   map[string]fs.FileInfo
	dirs    []string
	seen    func(dir string) // called before a directory is read, so that it is watched first; may be nil
	bad     map[string]error // what could not be read, and may hold policies
	visited map[string]bool  // directories that were listed, by their paths without links
	linked  bool             // a link leads to a directory, which may have another path too
	entries int
	most    int         // bound of entries
	ended   func() bool // ends the listing early, which is then of no use; may be nil
}

func newListing(root string) listing {
	return listing{
		root: root, files: map[string]fs.FileInfo{}, bad: map[string]error{}, visited: map[string]bool{}, most: maxEntries,
	}
}

// walk lists a directory. Links are followed, as Kubernetes' volumes need it, but each directory is listed once, whatever leads to it.
// Hidden entries are left out: ..data and its kin, which the links point into, .git, and editors' files.
func (l *listing) walk(dir string) { l.directory(dir, 0) }

func (l *listing) directory(dir string, depth int) {
	if l.ended != nil && l.ended() {
		return
	}
	plain, err := filepath.EvalSymlinks(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return
	}
	if err != nil {
		l.bad[dir] = err
		return
	}
	if l.visited[plain] {
		return
	}
	if depth > maxNesting {
		l.bad[dir] = errTooDeep
		return
	}
	l.visited[plain] = true
	l.dirs = append(l.dirs, dir)
	if l.seen != nil {
		l.seen(dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		l.bad[dir] = err
	}
	for _, e := range entries {
		if l.entries++; l.entries > l.most {
			l.bad[l.root] = errTooMany
			return
		}
		l.entry(filepath.Join(dir, e.Name()), e, depth)
	}
}

func (l *listing) entry(path string, e fs.DirEntry, depth int) {
	name := e.Name()
	if strings.HasPrefix(name, ".") {
		return
	}
	if e.IsDir() {
		l.directory(path, depth+1)
		return
	}
	linked := e.Type()&fs.ModeSymlink != 0
	if !linked && !kinds.Wanted(name) {
		return
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		if exists(path) && (couldHold(name) || errors.Is(err, fs.ErrPermission)) {
			l.bad[path] = err
		}
	case info.IsDir():
		l.linked = true
		l.directory(path, depth+1)
	case !kinds.Wanted(name):
	case info.Mode().IsRegular():
		l.files[path] = info
	default:
		l.bad[path] = errNotRegular
	}
}

// couldHold tells whether a link that cannot be followed could lead to policies: to a file that is read, or to a directory.
func couldHold(name string) bool { return kinds.Wanted(name) || filepath.Ext(name) == "" }

// exists tells whether a path is there, be it a link that leads nowhere.
func exists(path string) bool {
	_, err := os.Lstat(path)
	return err == nil
}
