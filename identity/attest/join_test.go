package attest

import (
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/credence-mesh/credence/identity"
	"github.com/credence-mesh/credence/identity/attest/attestv1"
)

func TestJoinThenCallThenRenew(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	c := p.join(t, orders, 0)
	if left := time.Until(c.NotAfter()); left < 59*time.Minute || left > time.Hour {
		t.Errorf("the credential lives %s", left)
	}
	if err := check(t, p.client(t, c.ClientTLS())); err != nil {
		t.Fatal(err)
	}
	got := <-p.seen
	want := identity.Proven{ID: known[orders], Workload: orders, Serial: c.Chain[0].SerialNumber.Text(16), NotAfter: c.Chain[0].NotAfter}
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	renewed, err := Renew(t.Context(), p.addr, c, 0)
	if err != nil {
		t.Fatal(err)
	}
	if renewed.Workload != orders || renewed.Chain[0].SerialNumber.Cmp(c.Chain[0].SerialNumber) == 0 {
		t.Errorf("not a new credential of the same workload")
	}
	if err := check(t, p.client(t, renewed.ClientTLS())); err != nil {
		t.Fatal(err)
	}
}

func TestAStolenShortCredentialStaysShort(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	for _, c := range []struct {
		name      string
		join, ask time.Duration
		longest   time.Duration
	}{
		{"an hour stays an hour", 0, 90 * 24 * time.Hour, time.Hour},
		{"the server bounds the first", 3650 * 24 * time.Hour, 0, 90 * 24 * time.Hour},
		{"a month may be made an hour", 30 * 24 * time.Hour, time.Hour, time.Hour},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			renewed, err := Renew(t.Context(), p.addr, p.join(t, orders, c.join), c.ask)
			if err != nil {
				t.Fatal(err)
			}
			if left := time.Until(renewed.NotAfter()); left > c.longest+time.Second || left < c.longest-time.Minute {
				t.Errorf("it lives %s, want %s", left, c.longest)
			}
		})
	}
}

func TestTokensThatAreRefused(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	used := p.token(t, orders)
	if _, err := Join(t.Context(), p.addr, used, orders, 0); err != nil {
		t.Fatal(err)
	}
	guessed, err := parseToken(p.token(t, orders))
	if err != nil {
		t.Fatal(err)
	}
	guessed.secret[31] ^= 1
	gone := identity.Workload{Namespace: "production", Name: "gone"}
	for _, c := range []struct {
		name  string
		token string
		as    identity.Workload
		want  error
	}{
		{"replayed", used, orders, ErrTokenUsed},
		{"guessed", guessed.encode(), orders, ErrTokenUnknown},
		{"of another workload", p.token(t, orders), spy, ErrTokenWorkload},
		{"of a workload that is not there", p.token(t, gone), gone, status.Error(codes.NotFound, "there is no workload production/gone")},
		{"of a workload that claims to be the control plane", p.token(t, identity.Workload{Namespace: "production", Name: "crown"}),
			identity.Workload{Namespace: "production", Name: "crown"}, status.Error(codes.PermissionDenied, "kept for the control plane")},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			_, err := Join(t.Context(), p.addr, c.token, c.as, 0)
			if err == nil || !strings.Contains(err.Error(), status.Convert(c.want).Message()) {
				t.Errorf("got %v, want %v", err, c.want)
			}
			if err != nil && strings.Contains(err.Error(), c.token[len(c.token)-20:]) {
				t.Error("the error shows the secret")
			}
		})
	}
}

func TestJoinSaysNothingToAnotherServer(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	foreign, _ := newAuthority(t, domain)
	text := p.token(t, orders)
	impostor := p.listen(t, foreign)
	if _, err := Join(t.Context(), impostor, text, orders, 0); err == nil || !strings.Contains(err.Error(), "not the control plane") {
		t.Errorf("got %v", err)
	}
	if _, err := Join(t.Context(), p.addr, text, orders, 0); err != nil {
		t.Errorf("the token was used up by an impostor: %v", err)
	}
}

func TestABadRequestDoesNotUseTheToken(t *testing.T) {
	t.Parallel()
	p := newPlane(t)
	text := p.token(t, orders)
	client := attestv1.NewAttestationClient(p.client(t, tlsWith(nil)))
	_, err := client.Join(t.Context(), &attestv1.JoinRequest{Token: text, WorkloadNamespace: orders.Namespace, WorkloadName: orders.Name, Csr: []byte("x")})
	if status.Code(err) != codes.InvalidArgument {
		t.Errorf("got %v", err)
	}
	if _, err := Join(t.Context(), p.addr, text, orders, 0); err != nil {
		t.Error(err)
	}
}
