package file

import (
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"
	"time"

	"github.com/credence-mesh/credence/policy"
	"github.com/credence-mesh/credence/policy/kinds"
	"github.com/credence-mesh/credence/policy/strict"
)

// workers is how many files are parsed at a time.
const workers = 2

// Load reads files and directories once. The error is that a path cannot be read at all; what is wrong in a file is a Problem.
func Load(mesh policy.Mesh, paths ...string) (*policy.Set, []policy.Problem, error) {
	t := newTree(mesh)
	r := reader{seed: maphash.MakeSeed()}
	var jobs []job
	now, changed := time.Now(), map[string]*entry{}
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return nil, nil, fmt.Errorf("read %s: %w", p, err)
		}
		if !info.IsDir() {
			jobs = append(jobs, job{path: p, name: filepath.Base(p), named: true})
			continue
		}
		l := newListing(p)
		l.walk(p)
		for path, err := range l.bad {
			changed[path] = t.entryOf(0, content{job: job{path: path, name: relative(p, path)}, err: err}.result(), nil, now)
		}
		for file := range l.files {
			jobs = append(jobs, job{path: file, name: relative(p, file)})
		}
	}
	slices.SortFunc(jobs, func(a, b job) int { return strings.Compare(a.path, b.path) })
	for _, got := range r.read(jobs) {
		changed[got.path] = t.entryOf(got.hash, got.result(), nil, now)
	}
	t.update(changed, now)
	return t.set, t.problems(strings.Join(paths, " ")), nil
}

func relative(root, file string) string {
	if rel, err := filepath.Rel(root, file); err == nil {
		return filepath.ToSlash(rel)
	}
	return filepath.Base(file)
}

// job is a file to read. Its content is parsed unless its hash is that of what is known already.
type job struct {
	path, name string
	known      uint64 // 0: none
	named      bool   // the user named this very file, which may then be a pipe
}

// content is a file that was read.
type content struct {
	job
	hash   uint64
	same   bool
	err    error
	parsed kinds.Result
}

// result is what the file says; a file that cannot be read may still mean what it said before.
func (c content) result() kinds.Result {
	if c.err == nil {
		return c.parsed
	}
	return kinds.Unreadable(c.path, c.name, unreadable(c.path, c.err))
}

// unreadable tells why a path cannot be read; what follows from that is told beside it, for each object.
func unreadable(path string, err error) policy.Problem {
	try := "let the user that runs credence read it"
	if errors.Is(err, errNotRegular) || errors.Is(err, fs.ErrNotExist) || errors.Is(err, errTooMany) || errors.Is(err, errTooDeep) {
		try = "put a regular file in its place, or move it out of the directory"
	}
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return policy.Problem{At: policy.Origin{File: path}, Code: CodeUnreadable, Says: err.Error(), Try: try}
}

type reader struct{ seed maphash.Seed }

// read reads and parses files, a few at a time, and returns them in the order of jobs.
func (r reader) read(jobs []job) []content {
	out := make([]content, len(jobs))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(workers, len(jobs)) {
		wg.Go(func() {
			for i := range next {
				out[i] = r.one(jobs[i])
			}
		})
	}
	for i := range jobs {
		next <- i
	}
	close(next)
	wg.Wait()
	return out
}

func (r reader) one(j job) content {
	c := content{job: j}
	data, err := readBounded(j.path, j.named)
	if err != nil {
		c.err = err
		return c
	}
	c.hash = contentHash(r.seed, data)
	if j.known != 0 && c.hash == j.known {
		c.same = true
		return c
	}
	c.parsed = kinds.Decode(j.path, j.name, data)
	return c
}

var errNotRegular = errors.New("not a regular file")

// readBounded reads a regular file, or what the user named, and no more of it than is needed to see that it is too large. A pipe that nobody
// named is not waited for.
func readBounded(path string, named bool) ([]byte, error) {
	flags := os.O_RDONLY
	if !named {
		flags |= syscall.O_NONBLOCK
	}
	f, err := os.OpenFile(path, flags, 0)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return nil, err
	}
	if !named && !info.Mode().IsRegular() {
		return nil, errNotRegular
	}
	return io.ReadAll(io.LimitReader(f, strict.MaxFileBytes+1))
}
