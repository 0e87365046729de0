// Package limit is the rate-limit service: it reads configuration as envoyproxy/ratelimit writes it, matches descriptors exactly as that
// service does, counts in memory, and answers Envoy over envoy.service.ratelimit.v3.
//
// What it adds is one rule: entries of a descriptor whose key begins with ReservedPrefix take no part in matching but do name the bucket,
// so that customers who share a limit never share its quota.
package limit

import (
	"strings"
	"time"

	"github.com/credence-mesh/credence/policy"
)

// ReservedPrefix begins the keys of descriptor entries that Credence itself adds. They split buckets and match nothing.
const ReservedPrefix = "credence."

// CustomerKey is the entry that names the customer of a request, from a verified claim. See docs/limits.md.
const CustomerKey = ReservedPrefix + "customer"

// Config is one configuration: a domain and what is limited in it.
type Config struct {
	Domain      string
	Source      string        // "ConfigMap production/ratelimit-config config.yaml": stable across edits
	At          policy.Origin // where the configuration begins
	Descriptors []Descriptor
	Void        bool // refused: its domain, where one could be read, must answer with an error and not with "no limit"
}

// Descriptor is a node of the tree. An empty Value matches every value of Key, each with a bucket of its own; a Value that ends in "*"
// matches by prefix.
type Descriptor struct {
	Key            string
	Value          string
	Rate           Rate
	Descriptors    []Descriptor
	Shadow         bool // shadow_mode: counted and reported, never refused
	Quota          bool // quota_mode: over the limit is reported, never refused, and says no time of reset
	ShareThreshold bool // all values that a wildcard matches share one bucket
	At             policy.Origin
}

// name is the key under which a descriptor is found among its siblings, as upstream composes it.
func (d Descriptor) name() string {
	if d.Value == "" {
		return d.Key
	}
	return d.Key + "_" + d.Value
}

// Rate is what a descriptor allows. The zero value limits nothing.
type Rate struct {
	Unit      Unit
	Requests  uint32 // a unit; zero refuses all
	Unlimited bool
	Name      string
	Replaces  []string // names of limits that do not apply to a request to which this one applies
}

// Limits tells whether the descriptor has a limit at all.
func (r Rate) Limits() bool { return r.Unlimited || r.Unit != NoUnit }

// Unit is the length of a window. Windows begin at multiples of it since the Unix epoch.
type Unit uint8

// The units. A month has 30 days and a year 365, as upstream.
const (
	NoUnit Unit = iota
	Second
	Minute
	Hour
	Day
	Month
	Year
	Week
)

var unitNames = [...]string{"", "second", "minute", "hour", "day", "month", "year", "week"}

var unitSeconds = [...]int64{0, 1, 60, 3600, 86400, 30 * 86400, 365 * 86400, 7 * 86400}

// String is the name that configuration uses.
func (u Unit) String() string { return unitNames[u] }

// Duration is the length of the window.
func (u Unit) Duration() time.Duration { return time.Duration(unitSeconds[u]) * time.Second }

func parseUnit(s string) Unit {
	for u, name := range unitNames {
		if u != int(NoUnit) && strings.EqualFold(name, s) {
			return Unit(u)
		}
	}
	return NoUnit
}
