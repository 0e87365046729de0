// Package snapshot turns a stream of policy Sets into what each proxy must have, and keeps the account of what each proxy took. It rebuilds
// only the parts that a change touches, publishes immutable views that proxies with equal parts share, and wakes nobody else.
package snapshot
