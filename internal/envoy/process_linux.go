package envoy

import "syscall"

// dieWithParent keeps no Envoy behind when this process is killed. The group of its own keeps a terminal's Ctrl-C from ending Envoy before
// it was drained.
func dieWithParent() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL, Setpgid: true}
}
