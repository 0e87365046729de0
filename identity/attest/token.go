package attest

import (
	"context"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path"
	"slices"
	"strings"
	"time"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/state"
)

// Lifetimes of a join token.
const (
	DefaultTokenTTL = 15 * time.Minute
	MaxTokenTTL     = 7 * 24 * time.Hour
)

const (
	tokenPrefix = "credence-v1."
	tokenFolder = "tokens"
	unusedExt   = ".unused"
	usedExt     = ".used"
)

// The reasons for which a token is refused.
var (
	ErrTokenMalformed = errors.New("not a join token: it begins with " + tokenPrefix + " and is printed by credence token create; was it cut?")
	ErrTokenUnknown   = errors.New("the join token is not known: it has expired, or it was made for another control plane")
	ErrTokenUsed      = errors.New("the join token was used before: a token joins one proxy; if you did not use it, somebody else did")
	ErrTokenExpired   = errors.New("the join token has expired: make a new one with credence token create")
	ErrTokenWorkload  = errors.New("the join token was made for another workload")
)

// token is a join token: a secret, and the fingerprint by which its holder knows the control plane before saying the secret.
type token struct {
	root   [sha256.Size]byte // SHA-256 of the DER of the mesh root
	secret [32]byte
}

func (t token) encode() string {
	e := base64.RawURLEncoding
	return tokenPrefix + e.EncodeToString(t.root[:]) + "." + e.EncodeToString(t.secret[:])
}

func parseToken(s string) (token, error) {
	var t token
	rest, ok := strings.CutPrefix(s, tokenPrefix)
	if !ok {
		return token{}, ErrTokenMalformed
	}
	root, secret, _ := strings.Cut(rest, ".")
	for _, f := range []struct {
		text string
		into []byte
	}{{root, t.root[:]}, {secret, t.secret[:]}} {
		b, err := base64.RawURLEncoding.Strict().DecodeString(f.text)
		if err != nil || len(b) != len(f.into) || strings.ContainsAny(f.text, "\r\n") {
			return token{}, ErrTokenMalformed
		}
		copy(f.into, b)
	}
	return t, nil
}

// file is where the token is kept: under a hash, so that neither its secret nor anything that a client says is ever a file name.
func (t token) file(ext string) string {
	sum := sha256.Sum256(t.secret[:])
	return path.Join(tokenFolder, hex.EncodeToString(sum[:])+ext)
}

// Tokens are the join tokens of a state directory. Of a token only a hash is kept.
type Tokens struct{ dir *state.Dir }

// record is what is kept of a token.
type record struct {
	Namespace string    `json:"namespace"`
	Name      string    `json:"name"`
	Expires   time.Time `json:"expires"`
}

// OpenTokens opens the tokens of a state directory.
func OpenTokens(dir *state.Dir) (*Tokens, error) {
	if err := dir.Folder(tokenFolder); err != nil {
		return nil, fmt.Errorf("join tokens: %w", err)
	}
	return &Tokens{dir: dir}, nil
}

// CreateToken makes a join token for one proxy of a workload and returns it: it cannot be shown again. root is the root of the mesh.
func CreateToken(ctx context.Context, ts *Tokens, root *x509.Certificate, w identity.Workload, ttl time.Duration) (string, error) {
	if ttl == 0 {
		ttl = DefaultTokenTTL
	}
	switch {
	case ttl < 0 || ttl > MaxTokenTTL:
		return "", fmt.Errorf("a join token lives at most %s", MaxTokenTTL)
	case w.Namespace == "" || w.Name == "" || strings.Contains(w.Namespace+w.Name, "/"):
		return "", errors.New("a join token needs a workload, as NAMESPACE/NAME")
	}
	t := token{root: sha256.Sum256(root.Raw)}
	rand.Read(t.secret[:])
	b, err := json.Marshal(record{Namespace: w.Namespace, Name: w.Name, Expires: time.Now().Add(ttl).UTC()})
	if err != nil {
		return "", err
	}
	unlock, err := ts.dir.Lock(ctx)
	if err != nil {
		return "", err
	}
	defer unlock()
	if err := ts.clean(); err != nil {
		return "", fmt.Errorf("join tokens: %w", err)
	}
	if err := ts.dir.Write(t.file(unusedExt), b); err != nil {
		return "", fmt.Errorf("join tokens: %w", err)
	}
	return t.encode(), nil
}

// Consume uses a token up for a workload. Of all that try, in any process, one gets nil; that it was used is on the disk by then.
func (ts *Tokens) Consume(text string, w identity.Workload) error {
	if err := ts.Check(text, w); err != nil {
		return err
	}
	t, err := parseToken(text)
	if err != nil {
		return err
	}
	err = ts.dir.Rename(t.file(unusedExt), t.file(usedExt))
	if errors.Is(err, fs.ErrNotExist) {
		return ErrTokenUsed
	}
	return err
}

// Check tells whether a token could be consumed now.
func (ts *Tokens) Check(text string, w identity.Workload) error {
	t, err := parseToken(text)
	if err != nil {
		return err
	}
	r, err := ts.read(t.file(unusedExt))
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return ts.missing(t)
	case err != nil:
		return err
	case !time.Now().Before(r.Expires):
		return ErrTokenExpired
	case r.workload() != w:
		return ErrTokenWorkload
	}
	return nil
}

func (ts *Tokens) missing(t token) error {
	if _, err := ts.read(t.file(usedExt)); err == nil {
		return ErrTokenUsed
	}
	return ErrTokenUnknown
}

func (ts *Tokens) read(name string) (record, error) {
	b, err := ts.dir.Read(name)
	if err != nil {
		return record{}, err
	}
	var r record
	if err := json.Unmarshal(b, &r); err != nil {
		return record{}, fmt.Errorf("join token: %s is damaged", name)
	}
	return r, nil
}

func (r record) workload() identity.Workload {
	return identity.Workload{Namespace: r.Namespace, Name: r.Name}
}

// TokenInfo is what may be shown of a token.
type TokenInfo struct {
	Hash     string // the first 12 digits of its hash
	Workload identity.Workload
	Expires  time.Time
	Used     bool
}

// List tells which tokens there are, used ones too until they expire; the first to expire comes first.
func (ts *Tokens) List() ([]TokenInfo, error) {
	names, err := ts.dir.List(tokenFolder)
	if err != nil {
		return nil, fmt.Errorf("join tokens: %w", err)
	}
	var out []TokenInfo
	for _, n := range names {
		r, err := ts.read(path.Join(tokenFolder, n))
		if err != nil || len(n) < 12 {
			continue // consumed or cleaned up meanwhile, or not a token
		}
		if time.Now().Before(r.Expires) {
			out = append(out, TokenInfo{Hash: n[:12], Workload: r.workload(), Expires: r.Expires, Used: strings.HasSuffix(n, usedExt)})
		}
	}
	slices.SortFunc(out, func(a, b TokenInfo) int { return a.Expires.Compare(b.Expires) })
	return out, nil
}

// Clean removes expired tokens.
func (ts *Tokens) Clean(ctx context.Context) error {
	unlock, err := ts.dir.Lock(ctx)
	if err != nil {
		return err
	}
	defer unlock()
	return ts.clean()
}

func (ts *Tokens) clean() error {
	if err := ts.dir.Sweep(tokenFolder); err != nil {
		return err
	}
	names, err := ts.dir.List(tokenFolder)
	if err != nil {
		return err
	}
	for _, n := range names {
		name := path.Join(tokenFolder, n)
		r, err := ts.read(name)
		if err == nil && time.Now().After(r.Expires) {
			err = ts.dir.Remove(name)
		}
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return err
		}
	}
	return nil
}
