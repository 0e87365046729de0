package snapshot

import (
	"fmt"
	"testing"

	clusterv3 "github.com/envoyproxy/go-control-plane/envoy/config/cluster/v3"

	"github.com/credence-mesh/credence/xds/resource"
)

func TestLayerRefuses(t *testing.T) {
	t.Parallel()
	c := func(name string) *resource.Resource {
		r, err := resource.New(resource.Cluster, name, &clusterv3.Cluster{Name: name})
		if err != nil {
			t.Fatal(err)
		}
		return r
	}
	private := c("p")
	private.Private = true
	secret := c("s")
	secret.Type = resource.Secret
	for name, list := range map[string][]*resource.Resource{"twice": {c("a"), c("a")}, "private": {private}, "secret": {secret}, "no name": {c("")}} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if _, err := NewView(list...); err == nil {
				t.Error("accepted")
			}
		})
	}
}

// TestDeltaIsTheDifference: for arbitrary pairs of views with overlapping parts, old + delta = new.
func TestDeltaIsTheDifference(t *testing.T) {
	t.Parallel()
	intern := newInterner()
	layer := func(seed, n int) *Layer {
		var list []*resource.Resource
		for i := range 12 {
			if (seed>>i)&1 == 1 {
				r, err := resource.New(resource.Cluster, fmt.Sprint("r", (i+n)%16), &clusterv3.Cluster{Name: fmt.Sprint(seed % (i + 2))})
				if err != nil {
					t.Fatal(err)
				}
				list = append(list, r)
			}
		}
		l, err := newLayer(nil, intern, list)
		if err != nil {
			t.Fatal(err)
		}
		return l
	}
	state := func(v *View) map[string]string {
		m := map[string]string{}
		for _, i := range v.List(resource.Cluster) {
			m[i.Name] = i.Version
		}
		return m
	}
	x := 12345
	for range 500 {
		x = (x*1103515245 + 12345) & 0x7fffffff
		was := newView([]*Layer{layer(x&0xfff, 0), layer(x>>8&0xfff, 5)})
		is := newView([]*Layer{layer(x>>4&0xfff, 0), layer(x>>12&0xfff, 5), layer(x>>3&0xfff, 9)}[:1+x%3])
		d := is.Since(was)[resource.Cluster]
		got := state(was)
		for _, i := range d.Changed {
			if got[i.Name] == i.Version {
				t.Fatalf("%s did not change", i.Name)
			}
			got[i.Name] = i.Version
		}
		for _, n := range d.Removed {
			if _, ok := got[n]; !ok {
				t.Fatalf("%s was not there", n)
			}
			delete(got, n)
		}
		if want := state(is); fmt.Sprint(got) != fmt.Sprint(want) {
			t.Fatalf("got %v want %v", got, want)
		}
	}
}
