package explain

import (
	"google.golang.org/protobuf/types/known/structpb"
)

// claimsNamespace is where Envoy's jwt_authn leaves verified claims.
const claimsNamespace = "envoy.filters.http.jwt_authn"

// metadata is dynamic metadata by the name of the filter that wrote it.
type metadata map[string]*structpb.Struct

func (m metadata) set(filter, key string, v *structpb.Value) {
	if m[filter] == nil {
		m[filter] = &structpb.Struct{Fields: map[string]*structpb.Value{}}
	}
	m[filter].Fields[key] = v
}

// find descends; nil where there is nothing.
func (m metadata) find(filter string, path []string) *structpb.Value {
	s := m[filter]
	for i, p := range path {
		v, ok := s.GetFields()[p]
		if !ok {
			return nil
		}
		if i == len(path)-1 {
			return v
		}
		s = v.GetStructValue()
	}
	return nil
}
