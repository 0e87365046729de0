package kinds

import (
	"fmt"
	"net/netip"
	"strings"

	networkingv1alpha3 "istio.io/api/networking/v1alpha3"

	"github.com/credence-mesh/credence/policy"
)

func sidecar(o *object) policy.Resource {
	spec := specOf[networkingv1alpha3.Sidecar](o)
	o.checkLabels("spec.workloadSelector.labels", spec.GetWorkloadSelector().GetLabels())
	if len(spec.GetIngress())+len(spec.GetEgress()) == 0 && spec.GetOutboundTrafficPolicy() == nil && spec.GetInboundConnectionPool() == nil {
		o.refuse("spec.ingress", CodeMissingField, "ingress, egress or outboundTrafficPolicy", "a Sidecar says something of its workload's traffic")
	}
	numbers := map[string]bool{}
	for i, in := range spec.GetIngress() {
		at := fmt.Sprintf("spec.ingress[%d]", i)
		o.ingress(at, in)
		o.unique(at+".port.number", "port", fmt.Sprint(in.GetPort().GetNumber()), numbers)
	}
	places := map[string]bool{}
	for i, out := range spec.GetEgress() {
		at := fmt.Sprintf("spec.egress[%d]", i)
		o.egress(at, out)
		switch p := out.GetPort(); {
		case p == nil && i < len(spec.GetEgress())-1:
			o.refuse(at, CodeConflict, "move it to the end", "the egress listener without a port is for the rest, and so the last")
		case p.GetNumber() == 0:
			o.unique(at+".bind", "socket", out.GetBind(), places)
		default:
			o.unique(at+".port.number", "port", fmt.Sprint(p.GetNumber()), places)
		}
	}
	if p := spec.GetOutboundTrafficPolicy(); p.GetEgressProxy() != nil && p.GetMode() != networkingv1alpha3.OutboundTrafficPolicy_ALLOW_ANY {
		o.refuse("spec.outboundTrafficPolicy.egressProxy", CodeConflict, "mode: ALLOW_ANY", "an egress proxy is for mode ALLOW_ANY")
	}
	return &policy.Sidecar{Spec: spec}
}

// sidecarPort checks what ingress and egress have in common.
func (o *object) sidecarPort(at string, p *networkingv1alpha3.SidecarPort, bind string) {
	if p.GetName() != "" && !portName(p.GetName()) {
		o.refuse(at+".port.name", CodeBadName, "letters, digits and -, as http-api", "%q is no name of a port", p.GetName())
	}
	o.protocol(at+".port.protocol", p.GetProtocol())
	if o.written(at + ".port.targetPort") {
		o.refuse(at+".port.targetPort", CodeConflict, "defaultEndpoint, for ingress", "a port of a Sidecar has no targetPort")
	}
	if bind != "" && !strings.HasPrefix(bind, "unix://") && !address(bind) {
		o.refuse(at+".bind", CodeBadValue, "an IP address", "%q is no IP address", bind)
	}
}

func (o *object) ingress(at string, in *networkingv1alpha3.IstioIngressListener) {
	if in.GetPort() == nil {
		o.refuse(at+".port", CodeMissingField, "port: {number: 8080, protocol: HTTP}", "an ingress listener has a port")
		return
	}
	o.port(at+".port.number", int32(min(in.GetPort().GetNumber(), 1<<30)))
	o.sidecarPort(at, in.GetPort(), in.GetBind())
	if strings.HasPrefix(in.GetBind(), "unix://") {
		o.refuse(at+".bind", CodeBadValue, "an IP address", "an ingress listener is bound to an IP address")
	}
	if e := in.GetDefaultEndpoint(); e != "" && !localEndpoint(e) {
		o.refuse(at+".defaultEndpoint", CodeBadValue, "127.0.0.1:PORT, 0.0.0.0:PORT or unix:///path", "%q is no local endpoint", e)
	}
	o.ingressTLS(at+".tls", in.GetTls())
}

func (o *object) ingressTLS(at string, t *networkingv1alpha3.ServerTLSSettings) {
	if t == nil {
		return
	}
	switch t.GetMode() {
	case networkingv1alpha3.ServerTLSSettings_ISTIO_MUTUAL, networkingv1alpha3.ServerTLSSettings_AUTO_PASSTHROUGH:
		o.refuse(at+".mode", CodeBadValue, "SIMPLE or MUTUAL; mTLS of the mesh is PeerAuthentication's", "mode %s is not for a Sidecar", t.GetMode())
	}
	for _, f := range []struct {
		name string
		set  bool
	}{
		{"httpsRedirect", t.GetHttpsRedirect()}, {"credentialName", t.GetCredentialName() != ""}, {"subjectAltNames", len(t.GetSubjectAltNames()) > 0},
	} {
		if f.set {
			o.refuse(at+"."+f.name, CodeConflict, "remove it", "%s is not for a Sidecar", f.name)
		}
	}
}

func (o *object) egress(at string, out *networkingv1alpha3.IstioEgressListener) {
	if p := out.GetPort(); p != nil {
		socket := strings.HasPrefix(out.GetBind(), "unix://")
		o.sidecarPort(at, p, out.GetBind())
		switch {
		case p.GetNumber() == 0 && !socket:
			o.refuse(at+".port.number", CodeBadPort, "1 to 65535, or bind: unix:///path", "0 is no port")
		case p.GetNumber() > 0:
			o.port(at+".port.number", int32(min(p.GetNumber(), 1<<30)))
		case out.GetCaptureMode() == networkingv1alpha3.CaptureMode_IPTABLES:
			o.refuse(at+".captureMode", CodeConflict, "captureMode: NONE", "a Unix socket is not captured by iptables")
		}
	}
	if len(out.GetHosts()) == 0 {
		o.refuse(at+".hosts", CodeMissingField, `hosts: ["./*"]`, "an egress listener names hosts")
	}
	for j, h := range out.GetHosts() {
		space, host, ok := strings.Cut(h, "/")
		if !ok || space == "" || host != "*" && !hostname(host) {
			o.refuse(fmt.Sprintf("%s.hosts[%d]", at, j), CodeBadValue, "namespace/host, with ., ~ or * as namespace", "%q is no namespace and host", h)
		}
	}
}

func localEndpoint(e string) bool {
	if path, ok := strings.CutPrefix(e, "unix://"); ok {
		return path != ""
	}
	ap, err := netip.ParseAddrPort(e)
	return err == nil && ap.Port() > 0 && (ap.Addr().IsLoopback() || ap.Addr().IsUnspecified())
}
