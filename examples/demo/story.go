package demo

import (
	"bytes"
	"context"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"

	"github.com/credence-mesh/credence/internal/issuer"
)

// story is every row, in the order in which it is told.
func story() []row {
	rows := meshRows()
	rows = append(rows, tokenRows()...)
	rows = append(rows, limitRows()...)
	rows = append(rows, tenantRows()...)
	return append(rows, changeRows()...)
}

const (
	paymentHost = "payment-service.production"
	onePayment  = "/api/v1/payments/1"
)

func meshRows() []row {
	return []row{
		{"order-service calls payment-service over mutual TLS", "200", func(w *world) (string, error) {
			return code(w.order.do(w.ctx, ask{host: paymentHost, path: onePayment}))
		}},
		{"plaintext to payment-service, past its proxy's front door", "refused", func(w *world) (string, error) {
			a, err := newClient("http://"+paymentInbound, nil).do(w.ctx, ask{host: paymentHost, path: onePayment})
			if refused(err) {
				return "refused", nil
			}
			return code(a, err)
		}},
		{"an intruder with a valid SVID but no right calls payment-service", "403", func(w *world) (string, error) {
			return code(w.intruder.do(w.ctx, ask{host: paymentHost, path: onePayment}))
		}},
		{"order-service deletes a payment, a method that no rule allows", "403", func(w *world) (string, error) {
			return code(w.order.do(w.ctx, ask{method: http.MethodDelete, host: paymentHost, path: onePayment}))
		}},
	}
}

func tokenRows() []row {
	orders := func(token func(*world) (string, error)) func(*world) (string, error) {
		return func(w *world) (string, error) {
			t, err := token(w)
			if err != nil {
				return "", err
			}
			return code(w.gateway.do(w.ctx, ask{path: "/api/v1/orders", token: t}))
		}
	}
	with := func(edit issuer.Claims) func(*world) (string, error) {
		return orders(func(w *world) (string, error) { return w.token("acme", "enterprise", edit) })
	}
	return []row{
		{"the gateway, with a good token", "200", with(nil)},
		{"no token", "403", orders(func(*world) (string, error) { return "", nil })},
		{"/health needs no token", "200", func(w *world) (string, error) {
			return code(w.gateway.do(w.ctx, ask{path: "/health"}))
		}},
		{"a token whose signature was tampered with", "401", orders(tampered)},
		{"an expired token", "401", with(issuer.Claims{"exp": time.Now().Add(-time.Hour).Unix()})},
		{"a token of an issuer that nobody named", "401", with(issuer.Claims{"iss": "https://evil.example"})},
		{"a forged token, alg:none", "401", orders(func(w *world) (string, error) {
			return w.issuer.Unsigned(user("acme", "enterprise", nil))
		})},
		{"a token for another audience", "403", with(issuer.Claims{"aud": "billing.example.com"})},
		{"/admin as a user", "403", adminRow("user")},
		{"/admin as an admin", "200", adminRow("admin")},
	}
}

func adminRow(role string) func(*world) (string, error) {
	return func(w *world) (string, error) {
		t, err := w.token("acme", "enterprise", issuer.Claims{"role": role})
		if err != nil {
			return "", err
		}
		return code(w.gateway.do(w.ctx, ask{path: "/admin/users", token: t}))
	}
}

func limitRows() []row {
	return []row{
		{"free tier: 25 searches within a minute, 10 are allowed", "429, remaining 0 of 10", func(w *world) (string, error) {
			return searches(w, "flood", "free")
		}},
		{"another customer of the free tier at the same time", "200", func(w *world) (string, error) {
			t, err := w.token("patient", "free", nil)
			if err != nil {
				return "", err
			}
			return code(w.gateway.do(w.ctx, ask{path: "/api/v1/search?q=1", token: t}))
		}},
		{"enterprise: 25 searches", "200", func(w *world) (string, error) { return searches(w, "acme", "enterprise") }},
		{"a body of 1 MiB and a byte", "413", func(w *world) (string, error) { return upload(w, 1<<20+1) }},
		{"a body of 1 MiB", "200", func(w *world) (string, error) { return upload(w, 1<<20) }},
	}
}

// searches asks 25 times, more than twice the free tier's 10 a minute: one window's end in between cannot hide the limit.
func searches(w *world, tenant, tier string) (string, error) {
	t, err := w.token(tenant, tier, nil)
	if err != nil {
		return "", err
	}
	for i := range 25 {
		a, err := w.gateway.do(w.ctx, ask{path: "/api/v1/search?q=" + strconv.Itoa(i), token: t})
		if err != nil || a.status == http.StatusTooManyRequests {
			return fmt.Sprintf("%d, remaining %s of %s", a.status, a.header.Get("X-RateLimit-Remaining"), firstNumber(a.header.Get("X-RateLimit-Limit"))), err
		}
		if a.status != http.StatusOK {
			return a.code(), nil
		}
	}
	return "200", nil
}

func firstNumber(s string) string {
	n, _, _ := strings.Cut(s, ",")
	return n
}

func upload(w *world, size int) (string, error) {
	t, err := w.token("acme", "enterprise", nil)
	if err != nil {
		return "", err
	}
	return code(w.gateway.do(w.ctx, ask{method: http.MethodPost, path: "/api/v1/orders", token: t, body: bytes.Repeat([]byte("x"), size)}))
}

func tenantRows() []row {
	read := func(path string) func(*world) (string, error) {
		return func(w *world) (string, error) {
			t, err := w.token("tenant-a", "enterprise", nil)
			if err != nil {
				return "", err
			}
			return code(w.gateway.do(w.ctx, ask{path: path, token: t}))
		}
	}
	return []row{
		{"tenant A reads its own data", "200", read("/api/v1/tenants/tenant-a/orders")},
		{"tenant A reads tenant B", "403", read("/api/v1/tenants/tenant-b/orders")},
		{"… by //", "403", read("/api//v1//tenants/tenant-b/orders")},
		{"… by %2f", "400", read("/api/v1/tenants%2ftenant-b/orders")},
		{"… by %74enants", "403", read("/api/v1/%74enants/tenant-b/orders")},
		{"… by /TENANTS/", "403", read("/api/v1/TENANTS/tenant-b/orders")},
		{"… by dot segments", "403", read("/api/v1/tenants/tenant-a/../tenant-b/orders")},
		{"… by escaped dot segments", "403", read("/api/v1/tenants/tenant-a/%2e%2e/tenant-b/orders")},
		{"… by %2e%2e; which a second proxy would read as ..", "400", read("/x/%2e%2e;/api/v1/tenants/tenant-b/orders")},
		{"a spoofed x-tenant-id beside tenant A's token", "tenant-a", func(w *world) (string, error) {
			t, err := w.token("tenant-a", "enterprise", nil)
			if err != nil {
				return "", err
			}
			a, err := w.gateway.do(w.ctx, ask{path: "/api/v1/orders", token: t, header: map[string]string{"x-tenant-id": "tenant-b"}})
			if err != nil || a.status != http.StatusOK {
				return a.code(), err
			}
			return strings.Join(a.echo.Headers["X-Tenant-Id"], ","), nil
		}},
		{"a spoofed x-tenant-id without any token", "removed", func(w *world) (string, error) {
			a, err := w.gateway.do(w.ctx, ask{path: "/health", header: map[string]string{"x-tenant-id": "tenant-b"}})
			if err != nil || a.status != http.StatusOK {
				return a.code(), err
			}
			if got := a.echo.Headers["X-Tenant-Id"]; len(got) > 0 {
				return strings.Join(got, ","), nil
			}
			return "removed", nil
		}},
	}
}

func code(a answer, err error) (string, error) { return a.code(), err }

// paying is the steady call of order-service to payment-service.
func paying(w *world) func(context.Context) error {
	return func(ctx context.Context) error {
		a, err := w.order.do(ctx, ask{host: paymentHost, path: onePayment})
		if err == nil && a.status != http.StatusOK {
			err = fmt.Errorf("status %d", a.status)
		}
		return err
	}
}
