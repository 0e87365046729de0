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
	var skipped []policy.Problem
	for _, p := range paths {
		info, err := os.Stat(p)
		if err != nil {
			return nil, nil, fmt.Errorf("read %s: %w", p, err)
		}
		if !info.IsDir() {
			jobs = append(jobs, job{path: p, name: filepath.Base(p)})
			continue
		}
		l := listing{root: p, files: map[string]fs.FileInfo{}}
		l.walk(p, nil)
		for path, err := range l.bad {
			skipped = append(skipped, unreadable(path, err))
		}
		for file := range l.files {
			jobs = append(jobs, job{path: file, name: relative(p, file)})
		}
	}
	slices.SortFunc(jobs, func(a, b job) int { return strings.Compare(a.path, b.path) })
	now := time.Now()
	changed := map[string]*entry{}
	for _, got := range r.read(jobs) {
		changed[got.path] = t.entryOf(got.hash, got.result(), nil, now)
	}
	t.update(changed, now)
	problems := append(t.problems(strings.Join(paths, " ")), skipped...)
	slices.SortFunc(problems, policy.Problem.Compare)
	return t.set, problems, nil
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
	return kinds.Result{Unread: true, Problems: []policy.Problem{unreadable(c.path, c.err)}}
}

func unreadable(path string, err error) policy.Problem {
	var pe *fs.PathError
	if errors.As(err, &pe) {
		err = pe.Err
	}
	return policy.Problem{
		At: policy.Origin{File: path}, Code: CodeUnreadable, Says: err.Error() + "; what it held before stays in force",
		Try: "let the user that runs credence read it",
	}
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
	data, err := readBounded(j.path)
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

// readBounded reads a regular file, and no more of it than is needed to see that it is too large.
func readBounded(path string) ([]byte, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	return io.ReadAll(io.LimitReader(f, strict.MaxFileBytes+1))
}
