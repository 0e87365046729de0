package snapshot

import (
	"github.com/credence-mesh/credence/xds/resource"
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Item is a resource as it goes over the wire, encoded once and spliced into the frames of all the proxies that get it.
type Item struct {
	*resource.Resource
	delta mem.Buffer
	sotw  mem.Buffer
	sum   sum
}

// Field numbers of envoy.service.discovery.v3 and google.protobuf.Any.
const (
	fieldResources       = 2 // of DiscoveryResponse and DeltaDiscoveryResponse
	fieldResourceVersion = 1 // of Resource
	fieldResourceBody    = 2
	fieldResourceName    = 3
	fieldAnyType         = 1
	fieldAnyValue        = 2
)

// NewItem encodes a resource for the wire. The Any is the last field of the delta form, and has the field number that the
// state-of-the-world form needs, so that both forms are the same bytes.
func NewItem(r *resource.Resource) *Item {
	body := sizeString(len(r.Body.TypeUrl)) + sizeString(len(r.Body.Value))
	head := sizeString(len(r.Version)) + sizeString(len(r.Name))
	inner := head + sizeString(body)
	b := make([]byte, 0, sizeString(inner))
	b = protowire.AppendTag(b, fieldResources, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(inner))
	b = appendString(b, fieldResourceVersion, r.Version)
	b = appendString(b, fieldResourceName, r.Name)
	start := len(b)
	b = protowire.AppendTag(b, fieldResourceBody, protowire.BytesType)
	b = protowire.AppendVarint(b, uint64(body))
	b = appendString(b, fieldAnyType, r.Body.TypeUrl)
	b = protowire.AppendTag(b, fieldAnyValue, protowire.BytesType)
	b = protowire.AppendBytes(b, r.Body.Value)
	return &Item{Resource: r, delta: mem.SliceBuffer(b), sotw: mem.SliceBuffer(b[start:]), sum: sumOf(r)}
}

// Delta is the item as one `resources` field of a DeltaDiscoveryResponse. It must not be modified.
func (i *Item) Delta() mem.Buffer { return i.delta }

// SotW is the item as one `resources` field of a DiscoveryResponse. It must not be modified.
func (i *Item) SotW() mem.Buffer { return i.sotw }

func appendString(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// sizeString is the size of a length-delimited field whose number is below 16.
func sizeString(n int) int { return 1 + protowire.SizeBytes(n) }
