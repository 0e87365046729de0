package attest

import (
	"net"
	"net/netip"
	"sync"
	"time"
)

// limiter is a token bucket for each client address. Secrets of 256 bits need no protection from guessing; the CPU that refuses guesses does.
type limiter struct {
	rate  float64 // attempts a second
	burst float64

	mu      sync.Mutex
	buckets map[netip.Prefix]bucket
	swept   time.Time
}

type bucket struct {
	left float64
	at   time.Time
}

// maxBuckets bounds the memory. Beyond it, addresses that were not seen lately share one bucket.
const maxBuckets = 10_000

func newLimiter(rate, burst float64) *limiter {
	return &limiter{rate: rate, burst: burst, buckets: map[netip.Prefix]bucket{}}
}

func (l *limiter) allow(addr net.Addr) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, key := time.Now(), l.slot(addr)
	b, ok := l.buckets[key]
	if !ok {
		b = bucket{left: l.burst, at: now}
	}
	b.left = min(l.burst, b.left+now.Sub(b.at).Seconds()*l.rate)
	b.at = now
	allowed := b.left >= 1
	if allowed {
		b.left--
	}
	l.buckets[key] = b
	return allowed
}

// slot is the bucket of an address: its own for IPv4, that of its /64 for IPv6, the common one for what has no address.
func (l *limiter) slot(addr net.Addr) netip.Prefix {
	tcp, ok := addr.(*net.TCPAddr)
	if !ok {
		return netip.Prefix{}
	}
	ip := tcp.AddrPort().Addr().Unmap().WithZone("")
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	key, err := ip.Prefix(bits)
	if err != nil {
		return netip.Prefix{}
	}
	if _, known := l.buckets[key]; !known && len(l.buckets) >= maxBuckets {
		l.forget()
		if len(l.buckets) >= maxBuckets {
			return netip.Prefix{}
		}
	}
	return key
}

// forget drops the buckets that are full again: they say nothing. It looks no more often than they fill, so that a crowd of addresses does
// not burn the CPU that this limiter protects.
func (l *limiter) forget() {
	full := time.Duration(l.burst / l.rate * float64(time.Second))
	if time.Since(l.swept) < full {
		return
	}
	l.swept = time.Now()
	for k, b := range l.buckets {
		if time.Since(b.at) > full {
			delete(l.buckets, k)
		}
	}
}
