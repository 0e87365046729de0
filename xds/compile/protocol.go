package compile

import "strings"

// Protocol is what a port speaks, as Istio names it.
type Protocol uint8

// The protocols. The zero value is TCP: what nobody named is bytes.
const (
	TCP Protocol = iota
	HTTP
	HTTP2
	GRPC
	TLS // bytes that are TLS already; HTTPS too
	UDP // not carried
)

// IsHTTP tells whether the port is served by an HTTP connection manager.
func (p Protocol) IsHTTP() bool { return p == HTTP || p == HTTP2 || p == GRPC }

// protocolOf reads appProtocol, or else the prefix of the port's name up to the first dash, as Istio does.
func protocolOf(appProtocol, name string) Protocol {
	if appProtocol != "" {
		return parseProtocol(strings.TrimPrefix(appProtocol, "kubernetes.io/"))
	}
	lower := strings.ToLower(name)
	if strings.HasPrefix(lower, "grpc-web") {
		return HTTP
	}
	prefix, _, _ := strings.Cut(lower, "-")
	return parseProtocol(prefix)
}

func parseProtocol(s string) Protocol {
	switch strings.ToLower(s) {
	case "http", "http1", "grpc-web", "ws":
		return HTTP
	case "http2", "h2c":
		return HTTP2
	case "grpc":
		return GRPC
	case "https", "tls", "wss":
		return TLS
	case "udp":
		return UDP
	default:
		return TCP
	}
}
