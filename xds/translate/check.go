package translate

import (
	"errors"
	"fmt"

	"google.golang.org/protobuf/proto"
)

// Check reads finished resources once more, before anything is published. Whatever it refuses would be refused by Envoy, or, worse, be
// accepted and leave something open.
func Check(r *Resources) error {
	c := &checker{r: r}
	c.valid()
	c.names()
	c.references()
	c.listeners()
	c.routes()
	return errors.Join(c.errs...)
}

// checker gathers what is wrong.
type checker struct {
	r              *Resources
	errs           []error
	clusters       map[string]bool
	tables         map[string]bool
	extensionNames map[string]bool
	filters        map[string][]string // names of the HTTP filters in front of a route table
	wanted         []reference         // clusters that filters name
	next           [8]int              // where the next finished clusters that are asked for may be
	turn           int
	asks           bool // note the clusters that routes name, instead of looking for them
	asked          []string
}

// reference is a use of a cluster.
type reference struct{ what, cluster string }

func (c *checker) fail(format string, args ...any) {
	c.errs = append(c.errs, fmt.Errorf(format, args...))
}

// validator is what protoc-gen-validate gives every message of Envoy's.
type validator interface{ ValidateAll() error }

func (c *checker) validate(what string, m proto.Message) {
	if v, ok := m.(validator); ok {
		if err := v.ValidateAll(); err != nil {
			c.fail("%s: %w", what, err)
		}
	}
}

func (c *checker) valid() {
	for _, m := range c.r.Clusters {
		c.validate("cluster "+m.Name, m)
	}
	for _, m := range c.r.Endpoints {
		c.validate("endpoints "+m.ClusterName, m)
	}
	for _, m := range c.r.Extensions {
		c.inside("extension "+m.Name, m)
	}
	for _, m := range c.r.Listeners {
		c.inside("listener "+m.Name, m)
	}
	for _, m := range c.r.Routes {
		c.inside("route table "+m.Name, m)
	}
}

// inside validates a message and everything packed in it.
func (c *checker) inside(what string, m proto.Message) {
	c.validate(what, m)
	err := eachPacked(m.ProtoReflect(), func(inner proto.Message) {
		c.validate(what, inner)
		c.trap(what, inner)
		c.refer(what, inner)
	})
	if err != nil {
		c.fail("%s: %w", what, err)
	}
}

// names refuses a name that two resources of a type have, or that is empty.
func (c *checker) names() {
	one := func(kind string) func(string) {
		seen := map[string]bool{}
		return func(name string) {
			if name == "" || seen[name] {
				c.fail("%s %q: empty or given twice", kind, name)
			}
			seen[name] = true
		}
	}
	cluster, endpoints, extension, listener, table := one("cluster"), one("endpoints"), one("extension"), one("listener"), one("route table")
	for _, m := range c.r.Clusters {
		if cluster(m.Name); c.finished(m.Name) {
			cluster(m.Name)
		}
	}
	for _, m := range c.r.Endpoints {
		endpoints(m.ClusterName)
	}
	for _, m := range c.r.Extensions {
		extension(m.Name)
	}
	for _, m := range c.r.Listeners {
		listener(m.Name)
	}
	for _, m := range c.r.Routes {
		table(m.Name)
	}
	for _, m := range c.r.Tables {
		table(m.Config.Name)
	}
}
