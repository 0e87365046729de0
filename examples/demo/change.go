package demo

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/credence-mesh/credence/internal/load"
	"github.com/credence-mesh/credence/internal/mesh"
)

func changeRows() []row {
	return []row{
		{"a policy is edited on disk under load: the intruder may now call", "200, 0 failed", func(w *world) (string, error) {
			return underLoad(w, func() (string, error) {
				return w.edit("authorization.yaml", "sa/order-service]", "sa/order-service, cluster.local/ns/production/sa/intruder]", "200")
			})
		}},
		{"… and edited back", "403, 0 failed", func(w *world) (string, error) {
			return underLoad(w, func() (string, error) {
				return w.edit("authorization.yaml", "sa/order-service, cluster.local/ns/production/sa/intruder]", "sa/order-service]", "403")
			})
		}},
		{"a half-written policy file: the last good one stays in force", "403, 0 failed", func(w *world) (string, error) {
			return underLoad(w, func() (string, error) { return w.spoil("authorization.yaml") })
		}},
		{"payment-service's SVID rotates under load", "rotated, 0 failed", func(w *world) (string, error) {
			return underLoad(w, func() (string, error) { return w.rotation() })
		}},
	}
}

// loadRate is requests a second.
const loadRate = 200

// underLoad keeps order-service paying while something changes, and counts what fails.
func underLoad(w *world, change func() (string, error)) (string, error) {
	l := load.Start(w.ctx, loadRate, paying(w))
	flows := func() error {
		mark := l.Sent()
		return mesh.Until(w.ctx, "load", func() (bool, error) { return l.Sent() > mark+loadRate/4, nil })
	}
	err := flows()
	got, e := change()
	err = errors.Join(err, e, flows())
	result := l.Stop()
	if result.Failed > 0 {
		return fmt.Sprintf("%s, %s: %v", got, result, result.Errors[0]), err
	}
	return got + ", 0 failed", err
}

// edit replaces text in a file of the mesh directory, as an editor would (a new file renamed over the old one), and waits until the
// intruder's call is answered as wanted.
func (w *world) edit(file, old, new, want string) (string, error) {
	path := filepath.Join(w.config, file)
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if !bytes.Contains(data, []byte(old)) {
		return "", fmt.Errorf("%s does not contain %q", file, old)
	}
	if err := os.WriteFile(path+"~", bytes.Replace(data, []byte(old), []byte(new), 1), 0o600); err != nil {
		return "", err
	}
	if err := os.Rename(path+"~", path); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	got := ""
	_ = mesh.Until(ctx, "the edit to hold", func() (bool, error) {
		got, err = code(w.intruder.do(ctx, ask{host: paymentHost, path: onePayment}))
		return err == nil && got == want, err
	})
	return got, nil
}

// spoil cuts a policy file in half, waits until the control plane has said so, and asks as the intruder; then it repairs the file.
func (w *world) spoil(file string) (string, error) {
	path := filepath.Join(w.config, file)
	data, err := os.ReadFile(path)
	if err != nil {
		return "", err
	}
	if err := os.WriteFile(path, data[:len(data)-25], 0o600); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(w.ctx, 10*time.Second)
	defer cancel()
	err = mesh.Until(ctx, "a problem to be reported", func() (bool, error) {
		problems, err := w.errors(ctx)
		return problems > 0, err
	})
	got, e := code(w.intruder.do(ctx, ask{host: paymentHost, path: onePayment}))
	return got, errors.Join(err, e, os.WriteFile(path, data, 0o600))
}

// rotation waits until payment-service's proxy shows another certificate than it does now.
func (w *world) rotation() (string, error) {
	old, err := w.serial()
	if err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(w.ctx, 40*time.Second)
	defer cancel()
	err = mesh.Until(ctx, "a new certificate", func() (bool, error) {
		now, err := w.serial()
		return err == nil && now != old, err
	})
	if err != nil {
		return "the same certificate", err
	}
	return "rotated", nil
}

// serial is the serial number of the certificate that payment-service's proxy shows to a peer with an SVID.
func (w *world) serial() (string, error) {
	d := tls.Dialer{Config: w.peer}
	ctx, cancel := context.WithTimeout(w.ctx, 5*time.Second)
	defer cancel()
	conn, err := d.DialContext(ctx, "tcp", paymentInbound)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	return conn.(*tls.Conn).ConnectionState().PeerCertificates[0].SerialNumber.String(), nil
}
