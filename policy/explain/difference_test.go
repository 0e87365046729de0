package explain_test

import (
	"bufio"
	"cmp"
	"context"
	"crypto/tls"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/protobuf/encoding/protojson"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	securityv1beta1 "istio.io/api/security/v1beta1"

	"github.com/credence-mesh/credence/internal/envoytest"
	"github.com/credence-mesh/credence/internal/offline"
	"github.com/credence-mesh/credence/policy/explain"
)

const (
	pairsInCI  = 10_000
	seedInCI   = 20261123 // a change is judged by the same pairs as the one before it
	setsAtOnce = 100      // on one Envoy, a listener each
	pairsOfSet = 100
)

// TestAgreesWithEnvoy draws policies and requests, asks explain and a real Envoy, and demands that both say the same: the status, who decided,
// and the path that was decided on. CREDENCE_PAIRS draws more, CREDENCE_SEED others (0: at random); a disagreement is shrunk before it is told.
func TestAgreesWithEnvoy(t *testing.T) {
	pairs, seed := number(t, "CREDENCE_PAIRS", pairsInCI), number(t, "CREDENCE_SEED", seedInCI)
	if seed == 0 {
		seed = int(time.Now().UnixNano() % 1_000_000)
	}
	if testing.Short() {
		pairs = min(pairs, 1000)
	}
	t.Logf("seed %d: set CREDENCE_SEED to repeat this run", seed)
	ca := envoytest.NewCA(t, "mesh")
	decisions := startDecisions(t)
	asked := 0
	for batch := 0; asked < pairs; batch++ {
		d := dice{rand.New(rand.NewPCG(uint64(seed), uint64(batch)))}
		var sets []drawn
		for range min(setsAtOnce, (pairs-asked+pairsOfSet-1)/pairsOfSet) {
			sets = append(sets, d.set())
		}
		requests := make([][]explain.Request, len(sets))
		for i := range sets {
			for range pairsOfSet {
				requests[i] = append(requests[i], d.request())
			}
		}
		ok := t.Run(fmt.Sprintf("batch %d", batch), func(t *testing.T) {
			for n, x := range differences(t, newField(t, ca, decisions, sets), requests) {
				if n == 3 {
					t.Fatal("and more")
				}
				x = shrink(t, ca, decisions, x)
				t.Errorf("explain says %+v\nEnvoy says   %+v\n%s\nsteps: %+v", x.told, x.seen, x, x.steps)
			}
		})
		if !ok {
			return
		}
		asked += len(sets) * pairsOfSet
	}
	t.Logf("%d pairs agree", asked)
}

func number(t *testing.T, variable string, otherwise int) int {
	t.Helper()
	n, err := strconv.Atoi(cmp.Or(os.Getenv(variable), strconv.Itoa(otherwise)))
	if err != nil {
		t.Fatalf("%s: %v", variable, err)
	}
	return n
}

// said is what one of the two says about a request.
type said struct {
	code int    // 0: the connection is closed
	by   string // the rule that refused, "none" where no ALLOW rule matched
	path string // that was decided on
}

// difference is a request about which the two do not agree.
type difference struct {
	set        drawn
	request    explain.Request
	told, seen said
	steps      []explain.Step
}

func (x difference) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "mode: %s, profile istio: %v, paths: %q, gateway: %v behind %d\n", x.set.mode, x.set.istio, x.set.paths, x.set.edge, x.set.hops)
	for i, p := range x.set.authz {
		fmt.Fprintf(&b, "AuthorizationPolicy p%d: %s\n", i, protojson.Format(p))
	}
	for i, p := range x.set.jwt {
		fmt.Fprintf(&b, "RequestAuthentication r%d: %s\n", i, withoutKeys(p))
	}
	r := x.request
	fmt.Fprintf(&b, "request: %s %q host %q from %s as %q\n", r.Method, r.Path, r.Host, r.SourceIP, r.Peer)
	for _, h := range r.Headers {
		fmt.Fprintf(&b, "  %s: %s\n", h.Name, h.Value)
	}
	return b.String()
}

func withoutKeys(p *securityv1beta1.RequestAuthentication) string {
	p = proto.Clone(p).(*securityv1beta1.RequestAuthentication)
	for _, r := range p.JwtRules {
		r.Jwks = "its keys"
	}
	return protojson.Format(p)
}

// differences asks both about everything.
func differences(t *testing.T, f *field, requests [][]explain.Request) []difference {
	t.Helper()
	var mu sync.Mutex
	var out []difference
	var wg sync.WaitGroup
	next := make(chan int)
	for range 6 {
		wg.Go(func() {
			for i := range next {
				found := f.compare(i, requests[i])
				mu.Lock()
				out = append(out, found...)
				mu.Unlock()
			}
		})
	}
	for i := range requests {
		next <- i
	}
	close(next)
	wg.Wait()
	return out
}

func (f *field) compare(i int, requests []explain.Request) []difference {
	c := client{field: f, addr: f.addrs[i]}
	defer c.close()
	var out []difference
	for _, r := range requests {
		told, steps := f.told(i, r)
		if told.code < 0 && f.sets[i].edge {
			continue // a gateway listens on every address: which one a request came to is not known
		}
		var seen said
		for range 3 { // what a slow machine makes of a time limit is no verdict: a difference must last
			if seen = c.ask(r); agree(told, seen) {
				break
			}
		}
		if !agree(told, seen) {
			out = append(out, difference{set: f.sets[i], request: r, told: told, seen: seen, steps: steps})
		}
	}
	return out
}

func agree(a, b said) bool {
	if a.code != b.code {
		return false
	}
	return a.code == 400 || a.code == 0 || a == b
}

// told asks explain.
func (f *field) told(i int, r explain.Request) (said, []explain.Step) {
	v, headers := f.configs[i].Trace(context.Background(), f.meshes[i].Set(), f.decisions, r)
	s := said{code: v.Code}
	for _, h := range headers {
		if h.Name == ":path" {
			s.path = h.Value
		}
	}
	if last := v.Steps[len(v.Steps)-1]; v.Decision == explain.Deny && slices.Contains([]string{"deny", "allow", "refuse"}, last.Name) {
		s.by = cmp.Or(last.Policy, "none")
	}
	if v.Decision == explain.Unknown {
		s.code = -1
	}
	if !f.sets[i].edge {
		return s, v.Steps
	}
	if s.code == 404 && v.Steps[len(v.Steps)-1].Name == "route" {
		s.code = 200 // the gateway has no route; the one that newField gives it answers
	}
	if slices.ContainsFunc(v.Steps, func(x explain.Step) bool { return x.Outcome == explain.NotEvaluated }) {
		s.code = -1 // also of a refusal after it: somebody may have refused before, in another way
	}
	return s, v.Steps
}

// client keeps a connection for each kind of caller.
type client struct {
	field *field
	addr  string
	conns map[string]*conn
}

type conn struct {
	net.Conn
	in *bufio.Reader
}

func (c *client) close() {
	for _, x := range c.conns {
		_ = x.Close()
	}
}

func (c *client) dial(r explain.Request) (*conn, error) {
	key := r.SourceIP.String() + r.Peer
	if x := c.conns[key]; x != nil {
		return x, nil
	}
	d := net.Dialer{LocalAddr: net.TCPAddrFromAddrPort(addrPort(r.SourceIP)), Timeout: envoytest.Patience}
	raw, err := d.Dial("tcp", c.addr)
	if err != nil {
		return nil, err
	}
	if r.Transport != explain.Plaintext {
		pair := c.field.pairs[r.Peer]
		config := &tls.Config{RootCAs: c.field.ca.Pool(), ServerName: r.ServerName, Certificates: []tls.Certificate{pair.TLS}, NextProtos: []string{"http/1.1"}}
		secured := tls.Client(raw, config)
		if err := secured.Handshake(); err != nil {
			_ = raw.Close()
			return nil, err
		}
		raw = secured
	}
	x := &conn{Conn: raw, in: bufio.NewReader(raw)}
	if c.conns == nil {
		c.conns = map[string]*conn{}
	}
	c.conns[key] = x
	return x, nil
}

// ask sends a request as it is, byte for byte.
func (c *client) ask(r explain.Request) said {
	for attempt := 0; ; attempt++ {
		key := r.SourceIP.String() + r.Peer
		kept := c.conns[key] != nil
		s, err := c.once(r)
		if err == nil {
			return s
		}
		if x := c.conns[key]; x != nil {
			_ = x.Close()
			delete(c.conns, key)
		}
		if !kept || attempt > 2 { // a connection that was kept may have been closed; a new one that is closed is an answer
			return said{}
		}
	}
}

func (c *client) once(r explain.Request) (said, error) {
	x, err := c.dial(r)
	if err != nil {
		return said{}, err
	}
	var b strings.Builder
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: %s\r\n", r.Method, r.Path, r.Host)
	for _, h := range r.Headers {
		fmt.Fprintf(&b, "%s: %s\r\n", h.Name, h.Value)
	}
	b.WriteString("\r\n")
	_ = x.SetDeadline(time.Now().Add(envoytest.Patience))
	if _, err := io.WriteString(x, b.String()); err != nil {
		return said{}, err
	}
	res, err := http.ReadResponse(x.in, &http.Request{Method: r.Method})
	if err != nil {
		return said{}, err
	}
	body, err := io.ReadAll(res.Body)
	if err != nil {
		return said{}, err
	}
	_ = res.Body.Close()
	if res.Close || strings.EqualFold(res.Header.Get("Connection"), "close") {
		_ = x.Close()
		delete(c.conns, r.SourceIP.String()+r.Peer)
	}
	s := said{code: res.StatusCode}
	details, path, _ := strings.Cut(string(body), " ")
	if rest, ok := strings.CutPrefix(details, "rbac_access_denied_matched_policy["); ok {
		s.by = strings.TrimSuffix(rest, "]")
	}
	if s.path = path; res.StatusCode == 401 || s.path == "" {
		s.path = path
	}
	return s, nil
}

// shrink takes out whatever the disagreement does not need. Each round puts every smaller set on one Envoy.
func shrink(t *testing.T, ca *envoytest.CA, decisions *decisions, x difference) difference {
	t.Helper()
	for range 40 {
		smaller := x.smaller()
		sets, requests := make([]drawn, len(smaller)), make([][]explain.Request, len(smaller))
		for i, s := range smaller {
			sets[i], requests[i] = s.set, []explain.Request{s.request}
		}
		found := differences(t, newField(t, ca, decisions, sets), requests)
		if len(found) == 0 {
			return x
		}
		x = slices.MinFunc(found, func(a, b difference) int { return cmp.Compare(len(a.String()), len(b.String())) })
	}
	return x
}

// smaller is every way to take one thing out.
func (x difference) smaller() []difference {
	var out []difference
	add := func(change func(*difference)) {
		y := x
		y.set = x.set.clone()
		y.request.Headers = slices.Clone(x.request.Headers)
		change(&y)
		out = append(out, y)
	}
	for i := range x.set.authz {
		add(func(y *difference) { y.set.authz = slices.Delete(y.set.authz, i, i+1) })
		eachElement(x.set.authz[i], func(n int) { add(func(y *difference) { remove(y.set.authz[i], n) }) })
	}
	for i := range x.set.jwt {
		add(func(y *difference) { y.set.jwt = slices.Delete(y.set.jwt, i, i+1) })
		eachElement(x.set.jwt[i], func(n int) { add(func(y *difference) { remove(y.set.jwt[i], n) }) })
	}
	for i := range x.request.Headers {
		add(func(y *difference) { y.request.Headers = slices.Delete(y.request.Headers, i, i+1) })
	}
	for i := 1; i < min(len(x.request.Path), 40); i++ {
		add(func(y *difference) { y.request.Path = x.request.Path[:i] + x.request.Path[i+1:] })
	}
	return out
}

// eachElement counts the elements of all lists of a message.
func eachElement(m proto.Message, visit func(n int)) {
	n := 0
	walk(m.ProtoReflect(), func(protoreflect.List, int) bool {
		visit(n)
		n++
		return false
	})
}

// remove takes out the nth element of all lists.
func remove(m proto.Message, n int) {
	walk(m.ProtoReflect(), func(l protoreflect.List, i int) bool {
		if n--; n >= 0 {
			return false
		}
		for ; i < l.Len()-1; i++ {
			l.Set(i, l.Get(i+1))
		}
		l.Truncate(l.Len() - 1)
		return true
	})
}

// walk visits every element of every list in a fixed order until one is taken.
func walk(m protoreflect.Message, visit func(protoreflect.List, int) bool) bool {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		f := fields.Get(i)
		if !m.Has(f) || f.IsMap() {
			continue
		}
		if f.IsList() {
			l := m.Mutable(f).List()
			for n := range l.Len() {
				if visit(l, n) || f.Message() != nil && walk(l.Get(n).Message(), visit) {
					return true
				}
			}
			continue
		}
		if f.Message() != nil && walk(m.Mutable(f).Message(), visit) {
			return true
		}
	}
	return false
}

// field is many sets on one Envoy.
type field struct {
	ca        *envoytest.CA
	sets      []drawn
	meshes    []*offline.Mesh
	configs   []*explain.Config
	addrs     []string
	pairs     map[string]envoytest.Pair
	decisions explain.Authorizer
}
