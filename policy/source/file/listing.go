package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/credence-mesh/credence/policy/kinds"
)

// maxNesting bounds how deep directories are followed.
const maxNesting = 64

// listing is what a directory holds now: the files that are read, by path, and the directories.
type listing struct {
	root  string
	files map[string]fs.FileInfo
	dirs  []string
	seen  func(dir string) // called before a directory is read, so that it is watched first; may be nil
	bad   map[string]error // directories and links that could not be read
}

// walk lists a directory. Links are followed, as Kubernetes' volumes need it, but not into a directory that is being listed. Hidden
// entries are left out: ..data and its kin, which the links point into, .git, and editors' files.
func (l *listing) walk(dir string, above []fs.FileInfo) {
	info, err := os.Stat(dir)
	if err != nil || !info.IsDir() || len(above) > maxNesting {
		return
	}
	for _, a := range above {
		if os.SameFile(a, info) {
			return
		}
	}
	l.dirs = append(l.dirs, dir)
	if l.seen != nil {
		l.seen(dir)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		l.fail(dir, err)
	}
	above = append(above[:len(above):len(above)], info)
	for _, e := range entries {
		l.entry(filepath.Join(dir, e.Name()), e, above)
	}
}

func (l *listing) fail(path string, err error) {
	if l.bad == nil {
		l.bad = map[string]error{}
	}
	l.bad[path] = err
}

func (l *listing) entry(path string, e fs.DirEntry, above []fs.FileInfo) {
	name := e.Name()
	if strings.HasPrefix(name, ".") {
		return
	}
	if e.IsDir() {
		l.walk(path, above)
		return
	}
	linked := e.Type()&fs.ModeSymlink != 0
	if !linked && !kinds.Wanted(name) {
		return
	}
	info, err := os.Stat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist): // a link that leads nowhere, as editors use them for locks
	case err != nil:
		l.fail(path, err)
	case info.IsDir():
		l.walk(path, above)
	case info.Mode().IsRegular() && kinds.Wanted(name):
		l.files[path] = info
	}
}
