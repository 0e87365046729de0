package server

import (
	"strings"

	corev3 "github.com/envoyproxy/go-control-plane/envoy/config/core/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/credence-mesh/credence/identity"
)

// maxNodeID bounds the id of a node: two names of Kubernetes and an instance.
const maxNodeID = 1024

// parseNode reads the id of a node: "NAMESPACE/NAME~INSTANCE". The instance may be missing.
func parseNode(id string) (identity.Workload, string, error) {
	name, instance, _ := strings.Cut(id, "~")
	ns, name, ok := strings.Cut(name, "/")
	if !ok || ns == "" || name == "" || strings.Contains(name, "/") || len(id) > maxNodeID {
		return identity.Workload{}, "", status.Error(codes.InvalidArgument, `the node id must be "NAMESPACE/NAME~INSTANCE"`)
	}
	return identity.Workload{Namespace: strings.Clone(ns), Name: strings.Clone(name)}, strings.Clone(instance), nil
}

// authorize tells whether a peer may be a workload. A credential that was issued for one workload is good for that one only.
func authorize(p identity.Proven, w identity.Workload, id identity.ID) error {
	if p.ID.IsZero() || id.IsZero() || p.ID != id || (p.Workload != identity.Workload{} && p.Workload != w) {
		return status.Errorf(codes.PermissionDenied, "the credential that was shown is not one of workload %s", w)
	}
	return nil
}

// sameNode refuses a stream that claims to be another node later on. Nodes may be left out of later messages.
func sameNode(first string, n *corev3.Node) error {
	if n != nil && n.GetId() != "" && n.GetId() != first {
		return status.Error(codes.PermissionDenied, "a stream must not change its node")
	}
	return nil
}

// envoyVersion is what the node says of itself; it is shown, never trusted.
func envoyVersion(n *corev3.Node) string {
	if b := n.GetUserAgentBuildVersion(); b != nil {
		v := b.GetVersion()
		return strings.Join([]string{itoa(v.GetMajorNumber()), itoa(v.GetMinorNumber()), itoa(v.GetPatch())}, ".")
	}
	return cut(n.GetUserAgentVersion(), 64)
}
