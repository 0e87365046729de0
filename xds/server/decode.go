package server

import (
	"errors"
	"unicode/utf8"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	statuspb "google.golang.org/genproto/googleapis/rpc/status"
	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/proto"
)

// Field numbers of DeltaDiscoveryRequest.
const (
	deltaNode        = 1
	deltaTypeURL     = 2
	deltaSubscribe   = 3
	deltaUnsubscribe = 4
	deltaHeld        = 5
	deltaNonce       = 6
	deltaError       = 7
)

// holding is one resource that a proxy says it holds.
type holding struct{ name, version string }

var errUTF8 = errors.New("a string of the request is not valid UTF-8")

// decodeDelta reads a DeltaDiscoveryRequest. A proxy that comes back lists all that it holds: a thousand proxies with a thousand resources
// would fill a million map entries, of which each is looked at once. So the strings stay where they are, in one copy of the message.
func decodeDelta(b []byte) (*request, error) {
	r, text := &request{}, string(b)
	for at := 0; at < len(b); {
		num, typ, n := protowire.ConsumeTag(b[at:])
		if n < 0 {
			return nil, protowire.ParseError(n)
		}
		at += n
		if n = protowire.ConsumeFieldValue(num, typ, b[at:]); n < 0 {
			return nil, protowire.ParseError(n)
		}
		if typ == protowire.BytesType {
			_, prefix := protowire.ConsumeVarint(b[at:])
			if err := r.field(num, b[at+prefix:at+n], text[at+prefix:at+n]); err != nil {
				return nil, err
			}
		}
		at += n
	}
	return r, nil
}

// field takes one field, given both as bytes and as text. Fields that are not known are ignored, as protobuf wants.
func (r *request) field(num protowire.Number, b []byte, text string) error {
	switch num {
	case deltaNode:
		if r.node == nil {
			r.node = &corev3.Node{}
		}
		return proto.UnmarshalOptions{Merge: true}.Unmarshal(b, r.node)
	case deltaError:
		var s statuspb.Status
		if err := proto.Unmarshal(b, &s); err != nil {
			return err
		}
		r.refused, r.refusal = true, s.GetMessage()
		return nil
	case deltaHeld:
		h, err := decodeHolding(b, text)
		if r.held == nil {
			r.held = make([]holding, 0, 64)
		}
		r.held = append(r.held, h)
		return err
	}
	if num <= deltaError && !utf8.ValidString(text) {
		return errUTF8
	}
	switch num {
	case deltaTypeURL:
		r.url = text
	case deltaSubscribe:
		r.subscribe = append(r.subscribe, text)
	case deltaUnsubscribe:
		r.unsubscribe = append(r.unsubscribe, text)
	case deltaNonce:
		r.nonce = text
	}
	return nil
}

// decodeHolding reads one entry of initial_resource_versions.
func decodeHolding(b []byte, text string) (holding, error) {
	var h holding
	for at := 0; at < len(b); {
		num, typ, n := protowire.ConsumeTag(b[at:])
		if n < 0 {
			return h, protowire.ParseError(n)
		}
		at += n
		if n = protowire.ConsumeFieldValue(num, typ, b[at:]); n < 0 {
			return h, protowire.ParseError(n)
		}
		if typ == protowire.BytesType {
			_, prefix := protowire.ConsumeVarint(b[at:])
			switch num {
			case 1:
				h.name = text[at+prefix : at+n]
			case 2:
				h.version = text[at+prefix : at+n]
			}
		}
		at += n
	}
	if !utf8.ValidString(h.name) || !utf8.ValidString(h.version) {
		return h, errUTF8
	}
	return h, nil
}
