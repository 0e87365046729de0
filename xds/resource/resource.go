// Package resource is a finished xDS resource: serialised once, named, versioned by its content, and shared by every proxy that gets it.
package resource

import (
	"crypto/sha256"
	"encoding/base64"
	"fmt"
	"strings"

	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/types/known/anypb"
)

// Type is a type of xDS resource, in the order in which a proxy must get them (make before break).
type Type uint8

// The types that Credence serves.
const (
	Cluster         Type = iota // CDS
	Endpoints                   // EDS
	Secret                      // SDS
	ExtensionConfig             // ECDS
	Listener                    // LDS
	RouteConfig                 // RDS
	NumTypes
)

var urls = [NumTypes]string{
	Cluster:         "type.googleapis.com/envoy.config.cluster.v3.Cluster",
	Endpoints:       "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
	Secret:          "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
	ExtensionConfig: "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
	Listener:        "type.googleapis.com/envoy.config.listener.v3.Listener",
	RouteConfig:     "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
}

// URL is the type URL of the xDS protocol.
func (t Type) URL() string { return urls[t] }

// String is the short name that users of Envoy know.
func (t Type) String() string {
	return [NumTypes]string{"cds", "eds", "sds", "ecds", "lds", "rds"}[t]
}

// TypeOf finds a type by its URL.
func TypeOf(url string) (Type, bool) {
	for t, u := range urls {
		if u == url {
			return Type(t), true
		}
	}
	return 0, false
}

// Source is the object of a user that a resource came from.
type Source struct {
	Object string // "AuthorizationPolicy production/require-jwt"
	At     string // "authz.yaml:3"
}

// String is "AuthorizationPolicy production/require-jwt (authz.yaml:3)".
func (s Source) String() string {
	if s.At == "" {
		return s.Object
	}
	return s.Object + " (" + s.At + ")"
}

// Resource is one finished resource. It is immutable.
type Resource struct {
	Type    Type
	Name    string
	Version string     // a hash of Body: equal content has an equal version, also after a restart
	Body    *anypb.Any // the message, serialised deterministically
	Sources []Source   // what users wrote that this resource came from; may be empty
	Private bool       // Body holds a private key: it goes to its proxy and nowhere else, never into a dump or a log
}

// New packs a message. It is the only place where xDS messages are serialised.
func New(t Type, name string, m proto.Message, sources ...Source) (*Resource, error) {
	body, err := Pack(m)
	if err != nil {
		return nil, fmt.Errorf("%s %s: %w", t, name, err)
	}
	return &Resource{Type: t, Name: name, Version: version(body.Value), Body: body, Sources: sources}, nil
}

// version is stable over restarts: a proxy that reconnects with the versions it holds is sent only what differs.
func version(b []byte) string {
	sum := sha256.Sum256(b)
	return base64.RawURLEncoding.EncodeToString(sum[:8])
}

// Pack serialises deterministically: anypb.New on a message with a map gives several encodings, and unchanged configuration would be
// pushed again.
func Pack(m proto.Message) (*anypb.Any, error) {
	b, err := proto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, err
	}
	return &anypb.Any{TypeUrl: "type.googleapis.com/" + string(m.ProtoReflect().Descriptor().FullName()), Value: b}, nil
}

// Message is the full name of the packed message.
func (r *Resource) Message() string {
	return r.Body.TypeUrl[strings.LastIndexByte(r.Body.TypeUrl, '/')+1:]
}
