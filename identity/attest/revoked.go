package attest

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
	"time"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/state"
)

const revokedFile = "revoked.json"

// Revocation takes back certificates: the one of a serial, or all that were issued to an identity or to a workload until At. Exactly one of
// the three is set.
type Revocation struct {
	Serial   string    `json:"serial,omitempty"` // hexadecimal, as Proven says it
	ID       string    `json:"id,omitempty"`
	Workload string    `json:"workload,omitempty"` // NAMESPACE/NAME
	At       time.Time `json:"at"`
	Reason   string    `json:"reason,omitempty"`
}

func (r Revocation) covers(p identity.Proven) bool {
	switch {
	case r.Serial != "":
		return r.Serial == p.Serial
	case r.ID != "":
		return r.ID == p.ID.String()
	case r.Workload != "":
		return p.Workload != (identity.Workload{}) && r.Workload == p.Workload.String()
	default:
		return false
	}
}

// Revocations are the revocations of a state directory. A change that another process makes is seen at the next question.
type Revocations struct {
	dir *state.Dir

	mu    sync.Mutex
	stamp state.Stamp
	list  []Revocation
}

// OpenRevocations reads the revocations. A file that cannot be read is an error: what it revokes must not come back.
func OpenRevocations(dir *state.Dir) (*Revocations, error) {
	r := &Revocations{dir: dir}
	stamp := dir.Stamp(revokedFile)
	list, err := readRevocations(dir)
	if err != nil {
		return nil, err
	}
	r.stamp, r.list = stamp, list
	return r, nil
}

func readRevocations(dir *state.Dir) ([]Revocation, error) {
	b, err := dir.Read(revokedFile)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("revocations: %w", err)
	}
	var list []Revocation
	if err := json.Unmarshal(b, &list); err != nil {
		return nil, fmt.Errorf("revocations: %s: %w", revokedFile, err)
	}
	return list, nil
}

// Revoked tells whether what a peer has proved was taken back. While the file cannot be read, the last list that could be stands.
func (r *Revocations) Revoked(p identity.Proven) bool {
	return slices.ContainsFunc(r.current(), func(v Revocation) bool { return v.covers(p) })
}

// recheck is how often Run looks for a revocation that another process made.
const recheck = time.Second

// Run calls changed after every change of the revocations, so that open streams of what was revoked are closed, until ctx ends.
func (r *Revocations) Run(ctx context.Context, changed func()) error {
	ticker := time.NewTicker(recheck)
	defer ticker.Stop()
	for last := r.dir.Stamp(revokedFile); ; {
		select {
		case <-ctx.Done():
			return nil
		case <-ticker.C:
		}
		if stamp := r.dir.Stamp(revokedFile); stamp != last {
			last = stamp
			changed()
		}
	}
}

// List is what is revoked now.
func (r *Revocations) List() []Revocation { return slices.Clone(r.current()) }

func (r *Revocations) current() []Revocation {
	r.mu.Lock()
	defer r.mu.Unlock()
	if stamp := r.dir.Stamp(revokedFile); stamp != r.stamp && stamp != (state.Stamp{}) {
		if list, err := readRevocations(r.dir); err == nil {
			r.stamp, r.list = stamp, list
		}
	}
	return r.list
}

// Add revokes. It is in force at once, here and in every process that shares the state directory.
func (r *Revocations) Add(ctx context.Context, v Revocation) error {
	set := 0
	for _, s := range []string{v.Serial, v.ID, v.Workload} {
		if s != "" {
			set++
		}
	}
	if set != 1 {
		return errors.New("revoke: one of a serial, an ID and a workload is needed")
	}
	unlock, err := r.dir.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	list, err := readRevocations(r.dir)
	if err != nil {
		return err
	}
	list = append(list, v)
	b, err := json.MarshalIndent(list, "", "  ")
	if err != nil {
		return err
	}
	if err := r.dir.Write(revokedFile, b); err != nil {
		return err
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.stamp, r.list = r.dir.Stamp(revokedFile), list
	return nil
}
