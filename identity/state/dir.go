// Package state keeps the few files that the control plane must not lose: authorities, tokens, revocations. A file is either its old or its
// new content, also when the process is killed or the disk is full; it is never readable by others; and several processes may share it.
package state

import (
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"time"
)

// MaxFile bounds the size of a file in bytes: larger ones were not written by us.
const MaxFile = 1 << 20

const (
	lockName   = "lock"
	tempPrefix = ".new-"
	forOthers  = fs.FileMode(0o077)
)

// Dir is a state directory.
type Dir struct {
	path string
	step func(string)
}

// Option changes how a Dir works.
type Option func(*Dir)

// Trace calls f before every change of the disk, with the name of the step. Tests end the process in it.
func Trace(f func(step string)) Option { return func(d *Dir) { d.step = f } }

// Open makes the directory where there is none. One that others can read is refused, unless it is empty: then it is closed to them.
func Open(path string, opts ...Option) (*Dir, error) {
	d := &Dir{path: path, step: func(string) {}}
	for _, o := range opts {
		o(d)
	}
	if err := d.prepare(path); err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	return d, nil
}

// Path is where the directory is.
func (d *Dir) Path() string { return d.path }

func (d *Dir) prepare(path string) error {
	d.step("mkdir " + filepath.Base(path))
	if err := os.MkdirAll(path, 0o700); err != nil {
		return err
	}
	info, err := os.Stat(path)
	switch {
	case err != nil:
		return err
	case !info.IsDir():
		return fmt.Errorf("%s is not a directory", path)
	case info.Mode().Perm()&forOthers == 0:
		return nil
	}
	entries, err := os.ReadDir(path)
	if err != nil {
		return err
	}
	if len(entries) > 0 {
		if info, err := os.Stat(path); err == nil && info.Mode().Perm()&forOthers == 0 {
			return nil // another process closed it since
		}
		return fmt.Errorf("%s is open to other users (mode %04o), and it holds private keys: run chmod 700 %s, and if others may have read "+
			"them, start anew with an empty directory", path, info.Mode().Perm(), path)
	}
	return os.Chmod(path, 0o700)
}

// Read gives the content of a file; the error is fs.ErrNotExist where there is none. A file that others can read is refused.
func (d *Dir) Read(name string) ([]byte, error) {
	path := filepath.Join(d.path, name)
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NOFOLLOW|syscall.O_NONBLOCK, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat() // of what was opened, not of what the name may mean by now
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, fmt.Errorf("%s is not a regular file", path)
	case info.Mode().Perm()&forOthers != 0:
		return nil, fmt.Errorf("%s is open to other users (mode %04o): run chmod 600 %s, and if others may have read it, replace what it "+
			"holds", path, info.Mode().Perm(), path)
	}
	b, err := io.ReadAll(io.LimitReader(f, MaxFile+1))
	if err != nil {
		return nil, err
	}
	if len(b) > MaxFile {
		return nil, fmt.Errorf("%s is larger than %d bytes", path, MaxFile)
	}
	return b, nil
}

// Stamp identifies the present content of a file without reading it: two equal stamps mean an unchanged file.
type Stamp struct {
	inode uint64
	size  int64
	mtime time.Time
}

// Stamp of a file; zero where there is none.
func (d *Dir) Stamp(name string) Stamp {
	info, err := os.Lstat(filepath.Join(d.path, name))
	if err != nil {
		return Stamp{}
	}
	s := Stamp{size: info.Size(), mtime: info.ModTime()}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		s.inode = st.Ino
	}
	return s
}

// Write replaces a file as a whole: after a crash it is the old one or the new one. When it returns nil the new one is on the disk.
func (d *Dir) Write(name string, content []byte) (err error) {
	target := filepath.Join(d.path, name)
	temp := filepath.Join(filepath.Dir(target), tempPrefix+rand.Text())
	defer func() {
		if err != nil {
			_ = os.Remove(temp)
		}
	}()
	if err := d.create(temp, content); err != nil {
		return fmt.Errorf("write %s: %w", name, err)
	}
	d.step("rename " + name)
	if err := os.Rename(temp, target); err != nil {
		return err
	}
	return d.flush(filepath.Dir(name))
}

func (d *Dir) create(path string, content []byte) error {
	d.step("create")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	half := len(content) / 2
	for _, part := range [][]byte{content[:half], content[half:]} {
		d.step("write")
		if _, err := f.Write(part); err != nil {
			return err
		}
	}
	d.step("fsync")
	if err := f.Sync(); err != nil {
		return err
	}
	return f.Close()
}

// flush puts the names of a folder on the disk: without it a rename may be undone by a power loss.
func (d *Dir) flush(folder string) error {
	d.step("fsync folder")
	f, err := os.Open(filepath.Join(d.path, folder))
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

// Rename moves a file; of several that try the same, one succeeds and the others get fs.ErrNotExist. When it returns nil the move is on the
// disk.
func (d *Dir) Rename(from, to string) error {
	d.step("rename " + from)
	if err := os.Rename(filepath.Join(d.path, from), filepath.Join(d.path, to)); err != nil {
		return err
	}
	return d.flush(filepath.Dir(to))
}

// Remove deletes a file. It may come back after a power loss.
func (d *Dir) Remove(name string) error {
	d.step("remove " + name)
	return os.Remove(filepath.Join(d.path, name))
}

// Folder makes a folder of the directory.
func (d *Dir) Folder(name string) error {
	if err := d.prepare(filepath.Join(d.path, name)); err != nil {
		return err
	}
	return d.flush(".")
}

// List names the files of a folder, without those that are still being written.
func (d *Dir) List(folder string) ([]string, error) {
	entries, err := os.ReadDir(filepath.Join(d.path, folder))
	if err != nil {
		return nil, err
	}
	var names []string
	for _, e := range entries {
		if n := e.Name(); !strings.HasPrefix(n, tempPrefix) && n != lockName && e.Type().IsRegular() {
			names = append(names, n)
		}
	}
	return names, nil
}

// Lock keeps every other process and goroutine out until unlock is called, or the process ends. ctx bounds the wait.
func (d *Dir) Lock(ctx context.Context) (unlock func(), err error) {
	f, err := os.OpenFile(filepath.Join(d.path, lockName), os.O_RDWR|os.O_CREATE|syscall.O_NOFOLLOW, 0o600)
	if err != nil {
		return nil, fmt.Errorf("state directory: %w", err)
	}
	for {
		err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil // closing the only descriptor releases the lock
		}
		if !errors.Is(err, syscall.EWOULDBLOCK) && !errors.Is(err, syscall.EINTR) {
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: %w", f.Name(), err)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, fmt.Errorf("lock %s: another process holds it: %w", f.Name(), ctx.Err())
		case <-time.After(5 * time.Millisecond):
		}
	}
}

// Sweep removes what killed writers left in a folder. The caller holds the lock and so do all writers of that folder.
func (d *Dir) Sweep(folder string) error {
	entries, err := os.ReadDir(filepath.Join(d.path, folder))
	if err != nil {
		return err
	}
	for _, e := range entries {
		if strings.HasPrefix(e.Name(), tempPrefix) {
			if err := os.Remove(filepath.Join(d.path, folder, e.Name())); err != nil {
				return err
			}
		}
	}
	return nil
}
