package file

import (
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/fsnotify/fsnotify"
)

// watch asks the kernel to report changes of directories. Its zero value reports nothing.
type watch struct {
	notify *fsnotify.Watcher
	dirs   map[string]fs.FileInfo
	broken error // why changes are not reported, or not all of them
}

// open starts watching, with the parent of the root, so that a root which is replaced as a whole is noticed.
func (w *watch) open(root string) error {
	w.dirs = map[string]fs.FileInfo{}
	n, err := fsnotify.NewBufferedWatcher(1024)
	if err != nil {
		w.broken = err
		return err
	}
	w.notify = n
	_ = n.Add(filepath.Dir(root)) // where it may not be read, the slow rescan is enough
	return nil
}

func (w *watch) close() { _ = w.notify.Close() }

func (w *watch) events() <-chan fsnotify.Event {
	if w.notify == nil {
		return nil
	}
	return w.notify.Events
}

func (w *watch) errors() <-chan error {
	if w.notify == nil {
		return nil
	}
	return w.notify.Errors
}

// add watches a directory; one that was swapped for another of the same path is watched anew.
func (w *watch) add(dir string) {
	if w.notify == nil {
		return
	}
	info, err := os.Stat(dir)
	if err != nil {
		return
	}
	old := w.dirs[dir]
	if old != nil && os.SameFile(old, info) {
		return
	}
	if old != nil {
		_ = w.notify.Remove(dir) // gone already where the directory was deleted
	}
	if err := w.notify.Add(dir); err != nil {
		if !errors.Is(err, fs.ErrNotExist) { // a directory that is gone again needs no watch
			w.broken = err
		}
		return
	}
	w.dirs[dir] = info
}

// renew forgets an earlier failure before every directory is added again.
func (w *watch) renew() {
	if w.notify != nil {
		w.broken = nil
	}
}

// forget drops the directories at and below a path that are not there any more.
func (w *watch) forget(path string, present []string) {
	here := make(map[string]bool, len(present))
	for _, d := range present {
		here[d] = true
	}
	for d := range w.dirs {
		if !here[d] && inside(path, d) {
			_ = w.notify.Remove(d)
			delete(w.dirs, d)
		}
	}
}

// inside tells whether path is dir or below it.
func inside(dir, path string) bool {
	if dir == "." {
		return !filepath.IsAbs(path) && path != ".." && !strings.HasPrefix(path, "../")
	}
	rest, ok := strings.CutPrefix(path, dir)
	return ok && (rest == "" || rest[0] == filepath.Separator || strings.HasSuffix(dir, string(filepath.Separator)))
}
