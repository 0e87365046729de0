package server

import (
	"fmt"

	"github.com/credence-mesh/credence/snapshot"
	"google.golang.org/grpc/encoding"
	_ "google.golang.org/grpc/encoding/proto" // the codec of the other services
	"google.golang.org/grpc/mem"
	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers of DiscoveryResponse and DeltaDiscoveryResponse.
const (
	fieldVersion      = 1 // version_info, system_version_info
	fieldTypeURL      = 4
	fieldNonce        = 5
	fieldDeltaRemoved = 6
)

// frame is a response whose resources are bytes that other streams share. Protobuf allows the fields of a message in any order, so that a
// message is its parts, one after the other.
type frame struct {
	own   []byte // everything that is of this stream only
	items []*snapshot.Item
	sotw  bool
	size  int
}

func newFrame(version, typeURL, nonce string, r *response, sotw bool) *frame {
	f := &frame{items: r.items, sotw: sotw}
	f.own = make([]byte, 0, len(version)+len(typeURL)+len(nonce)+16)
	f.own = appendField(f.own, fieldVersion, version)
	f.own = appendField(f.own, fieldTypeURL, typeURL)
	f.own = appendField(f.own, fieldNonce, nonce)
	if !sotw {
		for _, name := range r.removed {
			f.own = appendField(f.own, fieldDeltaRemoved, name)
		}
	}
	f.size = len(f.own)
	for _, i := range f.items {
		f.size += f.buffer(i).Len()
	}
	return f
}

func (f *frame) buffer(i *snapshot.Item) mem.Buffer {
	if f.sotw {
		return i.SotW()
	}
	return i.Delta()
}

func appendField(b []byte, field protowire.Number, s string) []byte {
	return protowire.AppendString(protowire.AppendTag(b, field, protowire.BytesType), s)
}

// codec marshals frames by splicing and reads delta requests in place; everything else it does as gRPC does.
type codec struct{ encoding.CodecV2 }

func newCodec() (codec, error) {
	c := encoding.GetCodecV2("proto")
	if c == nil {
		return codec{}, fmt.Errorf("gRPC has no codec for protobuf")
	}
	return codec{c}, nil
}

// Marshal implements encoding.CodecV2.
func (c codec) Marshal(v any) (mem.BufferSlice, error) {
	f, ok := v.(*frame)
	if !ok {
		return c.CodecV2.Marshal(v)
	}
	out := make(mem.BufferSlice, 0, len(f.items)+1)
	for _, i := range f.items {
		out = append(out, f.buffer(i))
	}
	return append(out, mem.SliceBuffer(f.own)), nil
}

// Unmarshal implements encoding.CodecV2.
func (c codec) Unmarshal(data mem.BufferSlice, v any) error {
	r, ok := v.(*request)
	if !ok {
		return c.CodecV2.Unmarshal(data, v)
	}
	buf := data.MaterializeToBuffer(mem.DefaultBufferPool())
	defer buf.Free()
	d, err := decodeDelta(buf.ReadOnlyData())
	if err != nil {
		return err
	}
	*r = *d
	return nil
}
