package server

import (
	"strconv"

	"go.uber.org/zap"

	"github.com/credence-mesh/credence/snapshot"
)

// edge is where the server logs. Nothing that it writes holds the content of a resource.
type edge struct{ log *zap.Logger }

func newEdge(l *zap.Logger) edge {
	if l == nil {
		l = zap.NewNop()
	}
	return edge{l}
}

func about(p snapshot.Peer) []zap.Field {
	return []zap.Field{zap.String("proxy", p.Workload.String()), zap.String("instance", p.Instance)}
}

func (e edge) connected(p snapshot.Peer) {
	e.log.Debug("proxy connected", append(about(p), zap.String("identity", p.ID.String()), zap.String("address", p.Address), zap.String("envoy", p.Version))...)
}

func (e edge) disconnected(p snapshot.Peer) { e.log.Debug("proxy disconnected", about(p)...) }

func (e edge) stalled(p snapshot.Peer) { e.log.Warn("proxy does not read: dropped", about(p)...) }

func (e edge) refused(p snapshot.Peer, n snapshot.Nack) {
	e.log.Warn("proxy refused configuration; it keeps the last that it took",
		append(about(p), zap.String("type", n.Type), zap.String("problem", n.Says), zap.Strings("resources", n.Resources), zap.Strings("sources", n.Sources))...)
}

func (e edge) secretUnavailable(p snapshot.Peer, name string, err error) {
	e.log.Warn("secret unavailable; asking again", append(about(p), zap.String("secret", name), zap.Error(err))...)
}

func itoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }
