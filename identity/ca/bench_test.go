package ca

import (
	"crypto/ecdsa"
	"crypto/rand"
	"crypto/sha256"
	"testing"
	"time"
)

// BenchmarkMint compares a complete SVID with the least cryptography that it needs, one key and one signature, measured in the same run, one
// after the other; the metric "x" is the ratio.
func BenchmarkMint(b *testing.B) {
	a := openIn(b, newState(b))
	digest := sha256.Sum256([]byte("to be signed"))
	var bare, whole time.Duration
	for b.Loop() {
		start := time.Now()
		key, err := newKey()
		if err != nil {
			b.Fatal(err)
		}
		if _, err := ecdsa.SignASN1(rand.Reader, key, digest[:]); err != nil {
			b.Fatal(err)
		}
		middle := time.Now()
		if _, err := a.Mint(b.Context(), Request{ID: orders}); err != nil {
			b.Fatal(err)
		}
		bare += middle.Sub(start)
		whole += time.Since(middle)
	}
	b.ReportMetric(float64(bare.Nanoseconds())/float64(b.N), "bare-ns/op")
	b.ReportMetric(float64(whole.Nanoseconds())/float64(b.N), "mint-ns/op")
	b.ReportMetric(float64(whole)/float64(bare), "x")
}
