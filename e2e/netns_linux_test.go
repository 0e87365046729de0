package e2e

import (
	"context"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/credence-mesh/credence/internal/envoytest"
)

// envoyGroup is the group that proxies run as; iptables leaves its connections alone.
const envoyGroup = 1337

// uncaptured marks the connections of a test that iptables is to leave alone: those of a client without a sidecar.
const uncaptured = 7

// netns is a network namespace of the test's own. Names, addresses and rules in it touch nothing outside.
type netns struct {
	t    *testing.T
	name string
}

// needNamespaces skips the test where namespaces or iptables cannot be used.
func needNamespaces(t *testing.T) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("this test makes network namespaces: run it as root")
	}
	for _, tool := range []string{"ip", "iptables"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("this test captures traffic: install %s", tool)
		}
	}
	probe := fmt.Sprintf("cr%d-probe", os.Getpid())
	if out, err := exec.CommandContext(t.Context(), "ip", "netns", "add", probe).CombinedOutput(); err != nil {
		t.Skipf("no network namespace can be made here: %s", out)
	}
	defer func() { _ = exec.Command("ip", "netns", "del", probe).Run() }()
	for _, rule := range []string{
		"-t nat -A OUTPUT -p tcp -m owner --gid-owner 1337 -j RETURN", "-t nat -A OUTPUT -p tcp -m mark --mark 7 -j RETURN", "-t nat -A OUTPUT -p tcp -j REDIRECT --to-ports 15001",
	} {
		args := append([]string{"netns", "exec", probe, "iptables"}, strings.Fields(rule)...)
		if out, err := exec.CommandContext(t.Context(), "ip", args...).CombinedOutput(); err != nil {
			t.Skipf("this kernel has no such iptables rule (%s): %s", rule, out)
		}
	}
}

func newNetns(t *testing.T, suffix string) netns {
	t.Helper()
	n := netns{t, fmt.Sprintf("cr%d-%s", os.Getpid(), suffix)}
	n.run("ip", "netns", "add", n.name)
	t.Cleanup(func() { n.run("ip", "netns", "del", n.name) })
	n.exec("ip link set lo up")
	return n
}

func (n netns) run(name string, args ...string) {
	n.t.Helper()
	if out, err := exec.Command(name, args...).CombinedOutput(); err != nil {
		n.t.Fatalf("%s %v: %v: %s", name, args, err, out)
	}
}

// exec runs a command in the namespace.
func (n netns) exec(command string) {
	n.t.Helper()
	n.run("ip", append([]string{"netns", "exec", n.name}, strings.Fields(command)...)...)
}

// link joins two namespaces by a cable.
func link(a, b netns, addrA, addrB string) {
	a.t.Helper()
	pid := os.Getpid() % 100000
	left, right := fmt.Sprintf("cra%d", pid), fmt.Sprintf("crb%d", pid)
	a.run("ip", "link", "add", left, "netns", a.name, "type", "veth", "peer", "name", right, "netns", b.name)
	for _, end := range []struct {
		n         netns
		dev, addr string
	}{{a, left, addrA}, {b, right, addrB}} {
		end.n.exec("ip addr add " + end.addr + "/24 dev " + end.dev)
		end.n.exec("ip link set " + end.dev + " up")
		end.n.exec("ip route add default dev " + end.dev) // a service's address is on no network, and has to be routed before it can be captured
	}
}

// capture sends what leaves to 15001 and what comes in to 15006.
func (n netns) capture() {
	n.t.Helper()
	for _, rule := range []string{
		"OUTPUT -o lo -d 127.0.0.0/8 -j RETURN",
		fmt.Sprintf("OUTPUT -m owner --gid-owner %d -j RETURN", envoyGroup),
		fmt.Sprintf("OUTPUT -m mark --mark %d -j RETURN", uncaptured),
		"OUTPUT -p tcp -j REDIRECT --to-ports 15001",
		"PREROUTING -p tcp -j REDIRECT --to-ports 15006",
	} {
		n.exec("iptables -t nat -A " + rule)
	}
}

// inside runs f on a thread that is in the namespace: sockets that f makes belong to it for good.
func (n netns) inside(f func() error) error {
	done := make(chan error, 1)
	go func() {
		runtime.LockOSThread() // never unlocked: the thread ends with the goroutine, and with it its membership
		file, err := os.Open(filepath.Join("/run/netns", n.name))
		if err != nil {
			done <- err
			return
		}
		defer func() { _ = file.Close() }()
		if err := unix.Setns(int(file.Fd()), unix.CLONE_NEWNET); err != nil {
			done <- fmt.Errorf("enter %s: %w", n.name, err)
			return
		}
		done <- f()
	}()
	return <-done
}

// listen opens a listener in the namespace until the test ends.
func (n netns) listen(addr string) net.Listener {
	n.t.Helper()
	var l net.Listener
	err := n.inside(func() (err error) {
		l, err = net.Listen("tcp", addr)
		return err
	})
	if err != nil {
		n.t.Fatal(err)
	}
	n.t.Cleanup(func() { _ = l.Close() })
	return l
}

// dial is a dialer whose connections come from the namespace, by a mark past iptables where marked.
func (n netns) dial(mark int) func(context.Context, string, string) (net.Conn, error) {
	d := net.Dialer{Control: func(_, _ string, raw syscall.RawConn) error {
		if mark == 0 {
			return nil
		}
		var err error
		return joinControl(raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_MARK, mark) }), &err)
	}}
	return func(ctx context.Context, network, addr string) (conn net.Conn, err error) {
		err = n.inside(func() error {
			conn, err = d.DialContext(ctx, network, addr)
			return err
		})
		return conn, err
	}
}

func joinControl(err error, inner *error) error {
	if err != nil {
		return err
	}
	return *inner
}

// forward makes an address outside reachable in the namespace under the same address.
func (n netns) forward(addr string) {
	n.t.Helper()
	l := n.listen(addr)
	go func() {
		for {
			in, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer func() { _ = in.Close() }()
				out, err := net.Dial("tcp", addr)
				if err != nil {
					return
				}
				defer func() { _ = out.Close() }()
				var both sync.WaitGroup
				both.Go(func() { _, _ = io.Copy(out, in); _ = out.(*net.TCPConn).CloseWrite() })
				both.Go(func() { _, _ = io.Copy(in, out); _ = in.(*net.TCPConn).CloseWrite() })
				both.Wait()
			}()
		}
	}()
}

// proxyIn runs the proxy of a workload in a namespace, as the group that iptables leaves alone.
func (w *world) proxyIn(n netns, workload string) {
	w.t.Helper()
	dir := w.proxyDir(workload)
	if err := os.MkdirAll(dir, 0o700); err != nil {
		w.t.Fatal(err)
	}
	cmd := exec.Command("ip", "netns", "exec", n.name, binary, "proxy", "--xds-addr", w.XDS, "--workload", workload,
		"--token", w.token(workload), "--state", dir, "--envoy", envoytest.Path(w.t), "--envoy-log-level", "warning")
	log := newTestLog(w.t)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: &syscall.Credential{Uid: 0, Gid: envoyGroup}}
	if err := cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	w.t.Cleanup(func() {
		_ = syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL)
		<-ended
	})
	w.until(workload+" to be ready", func() (bool, error) {
		select {
		case err := <-ended:
			ended <- err
			return false, fmt.Errorf("it ended: %w", err)
		default:
		}
		_, err := w.admin(workload, "/ready")
		return err == nil, err
	})
}
