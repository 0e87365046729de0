package kinds

import (
	"fmt"
	"text/template"

	gatewayv1 "sigs.k8s.io/gateway-api/apis/v1"

	"github.com/credence-mesh/credence/policy"
)

// The limits of the Gateway API's own schema.
const (
	maxListeners = 64
	maxGrants    = 16
)

func gatewayOf(o *object) policy.Resource {
	spec := specOf[gatewayv1.GatewaySpec](o)
	if len(spec.Listeners) == 0 {
		o.refuse("spec.listeners", CodeMissingField, "listeners: [{name: http, port: 80, protocol: HTTP}]", "a Gateway has a listener")
	}
	o.atMost("spec.listeners", len(spec.Listeners), maxListeners)
	names, places := map[string]bool{}, map[string]bool{}
	for i, l := range spec.Listeners {
		at := fmt.Sprintf("spec.listeners[%d]", i)
		o.listener(at, l)
		o.unique(at+".name", "listener name", string(l.Name), names)
		host := "any host"
		if l.Hostname != nil && *l.Hostname != "" {
			host = string(*l.Hostname)
		}
		o.unique(at, "the place", fmt.Sprintf("%s of port %d for %s", l.Protocol, l.Port, host), places)
	}
	return &policy.Gateway{Spec: spec}
}

func (o *object) listener(at string, l gatewayv1.Listener) {
	if !subdomain(string(l.Name)) {
		o.refuse(at+".name", CodeBadName, "lower case letters, digits, - and .", "%q is no name", l.Name)
	}
	o.port(at+".port", int32(l.Port))
	if l.Hostname != nil && *l.Hostname != "" && !hostname(string(*l.Hostname)) {
		o.refuse(at+".hostname", CodeBadValue, "a DNS name: shop.example.com, or *.example.com where a wildcard is meant", "%q is no host name", *l.Hostname)
	}
	switch l.Protocol {
	case gatewayv1.HTTPProtocolType, gatewayv1.TCPProtocolType, gatewayv1.UDPProtocolType:
		if l.TLS != nil {
			o.refuse(at+".tls", CodeConflict, "protocol: HTTPS, or remove tls", "a listener of protocol %s has no TLS", l.Protocol)
		}
		if l.Protocol != gatewayv1.HTTPProtocolType && l.Hostname != nil && *l.Hostname != "" {
			o.refuse(at+".hostname", CodeConflict, "remove it", "a listener of protocol %s sees no host name", l.Protocol)
		}
	case gatewayv1.HTTPSProtocolType, gatewayv1.TLSProtocolType:
		o.listenerTLS(at, l)
	default:
		o.refuse(at+".protocol", CodeBadValue, "HTTP, HTTPS, TLS, TCP or UDP", "unknown protocol %q", l.Protocol)
	}
}

func (o *object) listenerTLS(at string, l gatewayv1.Listener) {
	passthrough := l.TLS != nil && l.TLS.Mode != nil && *l.TLS.Mode == gatewayv1.TLSModePassthrough
	if passthrough && l.Protocol == gatewayv1.HTTPSProtocolType {
		o.refuse(at+".tls.mode", CodeConflict, "protocol: TLS", "protocol HTTPS terminates TLS")
	}
	if !passthrough && (l.TLS == nil || len(l.TLS.CertificateRefs)+len(l.TLS.Options) == 0) {
		o.refuse(at+".tls", CodeMissingField, "tls: {certificateRefs: [{name: SECRET}]}", "protocol %s needs a certificate", l.Protocol)
	}
}

func referenceGrant(o *object) policy.Resource {
	spec := specOf[gatewayv1.ReferenceGrantSpec](o)
	if len(spec.From) == 0 {
		o.refuse("spec.from", CodeMissingField, "from: [{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: NAMESPACE}]", "a grant says from where")
	}
	if len(spec.To) == 0 {
		o.refuse("spec.to", CodeMissingField, "to: [{group: \"\", kind: Service}]", "a grant says to what")
	}
	o.atMost("spec.from", len(spec.From), maxGrants)
	o.atMost("spec.to", len(spec.To), maxGrants)
	for i, f := range spec.From {
		if f.Kind == "" || f.Namespace == "" {
			o.refuse(fmt.Sprintf("spec.from[%d]", i), CodeMissingField, "{group: gateway.networking.k8s.io, kind: HTTPRoute, namespace: NAMESPACE}", "kind and namespace are needed")
		}
	}
	for i, t := range spec.To {
		if t.Kind == "" {
			o.refuse(fmt.Sprintf("spec.to[%d]", i), CodeMissingField, "{group: \"\", kind: Service}", "kind is needed")
		}
	}
	return &policy.ReferenceGrant{Spec: spec}
}

func clusterSPIFFEID(o *object) policy.Resource {
	spec := specOf[policy.ClusterSPIFFEIDSpec](o)
	if spec.SPIFFEIDTemplate == "" {
		o.refuse("spec.spiffeIDTemplate", CodeMissingField, "spiffe://{{ .TrustDomain }}/ns/{{ .PodMeta.Namespace }}/sa/{{ .PodSpec.ServiceAccountName }}", "a template is needed")
	} else if _, err := template.New("id").Parse(spec.SPIFFEIDTemplate); err != nil {
		o.refuse("spec.spiffeIDTemplate", CodeBadValue, "the syntax of Go's text/template", "is no template")
	}
	return &policy.ClusterSPIFFEID{Spec: spec}
}

// clusterIssuer and certificate are recognised; what they say beside their names is cert-manager's.
func clusterIssuer(o *object) policy.Resource {
	specOf[map[string]any](o)
	return &policy.ClusterIssuer{}
}

func certificate(o *object) policy.Resource {
	specOf[map[string]any](o)
	return &policy.Certificate{}
}
